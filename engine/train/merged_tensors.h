/* Inside the export of merged models: the parts of the base model, what changes them, and tables of tensors to be
 * written whose values are made when their turn comes. Shared by merged_folder.c and merged_single.c. */
#ifndef DRAFT_TRAIN_MERGED_TENSORS_H
#define DRAFT_TRAIN_MERGED_TENSORS_H

#include "models/part.h"
#include "tensor/lora_file.h"
#include "train/checkpoint.h"
#include "train/merged.h"
#include "train/model_files.h"

enum { DRAFT_MERGED_PARTS = 3, DRAFT_MERGED_LORAS = DRAFT_MAX_BASE_LORAS + 1 };

struct draft_merged {
    const struct draft_merged_options *options;
    struct draft_model_files files;
    struct draft_weights *weights[DRAFT_MERGED_PARTS];
    struct draft_lora_file *lora[DRAFT_MERGED_LORAS];
    double weight[DRAFT_MERGED_LORAS];
    int loras;
    bool changes_text;
    struct draft_checkpoint full; /* of a job that trained the UNet's own weights; else closed */
};

/* open_clip has query, key and value in one tensor. */
enum { DRAFT_MERGED_FUSED = 3 };

/* One tensor to be written: the parts' tensors one below the other. */
struct draft_merged_output {
    const struct draft_safetensors_entry *from[DRAFT_MERGED_FUSED];
    int parts;
    bool text, unet; /* whose LoRA pairs apply */
    char name[DRAFT_LDM_NAME];
};

struct draft_merged_outputs {
    const struct draft_merged *merged;
    struct draft_merged_output *output;
    struct draft_safetensors_item *item;
    int count;
};

/* Everything open, every pair's layer there. `path`: of the output, beside which a temporary file may be written. */
bool draft_merged_open(struct draft_merged *merged, const struct draft_merged_options *options, const char *path,
                       struct draft_error *err);
void draft_merged_close(struct draft_merged *merged);

/* Room for `capacity` tensors. */
bool draft_merged_outputs_make(struct draft_merged_outputs *outputs, const struct draft_merged *merged, int capacity,
                               struct draft_error *err);
void draft_merged_outputs_free(struct draft_merged_outputs *outputs);
/* One more, of this entry, part (enum draft_ldm_part) and name; its item, whose shape may be changed. */
struct draft_safetensors_item *draft_merged_append(struct draft_merged_outputs *outputs,
                                                   const struct draft_safetensors_entry *entry, int part,
                                                   const char *name);
bool draft_merged_write(struct draft_merged_outputs *outputs, const char *path, const char *const *metadata,
                        struct draft_error *err);

/* Integers: position_ids, which are 0, 1, 2 ... */
static inline bool draft_merged_is_inert(const struct draft_safetensors_entry *entry)
{
    return entry->dtype == DRAFT_I64 || entry->dtype == DRAFT_I32;
}

extern const char *const draft_merged_folder_of[DRAFT_MERGED_PARTS], *const draft_merged_stem_of[DRAFT_MERGED_PARTS];

#endif
