/*
 * Where the parts of a model lie: in the folders of a diffusers pipeline, or in one file with the original names. A
 * single file has no vocabulary and may have no scheduler: those are looked for beside it.
 */
#ifndef DRAFT_TRAIN_MODEL_FILES_H
#define DRAFT_TRAIN_MODEL_FILES_H

#include "base/error.h"
#include "sampler/scheduler.h"

enum { DRAFT_MODEL_PATH = 4096 };

struct draft_model_files {
    bool single;
    char unet[DRAFT_MODEL_PATH], vae[DRAFT_MODEL_PATH], text[DRAFT_MODEL_PATH]; /* folders, or thrice the file */
    char tokenizer[DRAFT_MODEL_PATH];                                           /* folder */
    char scheduler[DRAFT_MODEL_PATH]; /* scheduler_config.json; "": a single file without one, see part.h */
    bool open_clip_padding;           /* the vocabulary came without a configuration and SD 2.x pads with "!" */
};

/* Refuses pickles, files that hold no whole model, a single file without a vocabulary, folders of other pipelines
 * (model_index.json), each in its own words. */
bool draft_model_locate(struct draft_model_files *files, const char *model, struct draft_error *err);

/* Its noise schedule: of scheduler/, or of what a single file says of itself. The caller closes it after success. */
bool draft_model_scheduler(const struct draft_model_files *files, struct draft_scheduler *scheduler,
                           struct draft_error *err);

#endif
