/*
 * LoRA files that a job begins with: summed into the base model's weights when it is loaded, or taken as the adapter's
 * first values. Thread: the engine's.
 */
#ifndef DRAFT_TRAIN_BASE_LORA_H
#define DRAFT_TRAIN_BASE_LORA_H

#include "tensor/lora_file.h"
#include "train/pipeline.h"

/* W += weight * scale * up x down for every pair of the file, in the UNet and the text encoder (NULL: its pairs are
 * left out). A pair whose layer the model does not have, or has in another shape, is refused before anything is
 * changed. Before the weights' first use: the backend's packed forms are not renewed. */
bool draft_lora_merge(const char *path, double weight, struct draft_unet *unet, struct draft_clip_text *text,
                      struct draft_error *err);

/* The adapter's values from a file of the same rank with exactly the adapter's layers; another scale than the adapter's
 * alpha / rank is multiplied into up. */
bool draft_lora_continue(const char *path, struct draft_adapter *adapter, struct draft_error *err);

#endif
