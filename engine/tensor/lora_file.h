/*
 * LoRA files as other tools write them: pairs of a down and an up matrix for layers of the UNet and of the text
 * encoder. Names of kohya ("lora_unet_..._to_q.lora_down.weight" and ".alpha"), diffusers
 * ("unet....to_q.lora.down.weight", its older
 * "....processor.to_q_lora.down.weight") and PEFT ("....lora_A.weight"), also on convolutions (LoCon). What changes a
 * layer in another way (LoHa, LoKr, DoRA, mid matrices) is refused. Thread: read-only after open.
 */
#ifndef DRAFT_TENSOR_LORA_FILE_H
#define DRAFT_TENSOR_LORA_FILE_H

#include "tensor/safetensors.h"

enum { DRAFT_LORA_MODULE = 256, DRAFT_LORA_MAX_RANK = 4096 };

/* The layer's weight becomes W + scale * up x down. */
struct draft_lora_pair {
    bool text;                      /* of the text encoder, else of the UNet */
    char module[DRAFT_LORA_MODULE]; /* diffusers' path with "_" for "." */
    int64_t rank;
    double scale;                               /* alpha / rank; 1 where the file has no alpha */
    const struct draft_safetensors_entry *down; /* [rank, in] or [rank, in, kh, kw] */
    const struct draft_safetensors_entry *up;   /* [out, rank] or [out, rank, 1, 1] */
};

struct draft_lora_file;

struct draft_lora_file *draft_lora_file_open(const char *path, struct draft_error *err);
void draft_lora_file_close(struct draft_lora_file *file); /* NULL is fine */
int draft_lora_file_count(const struct draft_lora_file *file);
const struct draft_lora_pair *draft_lora_file_at(const struct draft_lora_file *file, int index); /* by text, module */
const char *draft_lora_file_path(const struct draft_lora_file *file);
/* Both matrices as floats, checked to be finite: down [rank, in * kh * kw], up [out, rank]; malloc'd. */
bool draft_lora_pair_read(const struct draft_lora_pair *pair, float **down, float **up, struct draft_error *err);
/* "a.b.c" -> "a_b_c", cut to the size. */
void draft_lora_mangle(char out[DRAFT_LORA_MODULE], const char *path, int length);

#endif
