/*
 * PyTorch's own files (.bin, .ckpt, .pt, .pth) are pickles: programs that run when they are read. They are recognised,
 * by name or by their first bytes, only to be refused with the way to convert them. Thread: any.
 */
#ifndef DRAFT_TENSOR_PICKLE_H
#define DRAFT_TENSOR_PICKLE_H

#include "base/error.h"

bool draft_is_pickle(const char *path);
/* Always false. `path`: one file of a whole model or of a LoRA. */
bool draft_refuse_pickle(const char *path, struct draft_error *err);
/* Always false. `name`: the pickle that a part of a diffusers folder has in place of `stem`.safetensors. */
bool draft_refuse_pickle_in(const char *folder, const char *stem, const char *name, struct draft_error *err);

#endif
