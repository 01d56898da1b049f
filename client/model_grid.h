/* The grid that compares models: rows are seeds (of one or more prompts), columns the base and tuned models. */
#ifndef DRAFT_CLIENT_MODEL_GRID_H
#define DRAFT_CLIENT_MODEL_GRID_H

#include "previews.h"
#include "terminal.h"

struct draft_model_column {
    char job_id[80];
    double lora_scale;       /* 0: the base model */
    int64_t checkpoint_step; /* < 0: the newest */
    const char *aig;         /* annealed importance guidance between base and tuned; NULL: none */
    char label[96], more[96];
    struct draft_pictures pictures; /* filled by draft_model_grid_fetch */
};

/* Asks for every column's pictures, one after another; spec says prompts, seeds, count and steps. */
bool draft_model_grid_fetch(struct draft_rpc *rpc, struct draft_model_column *columns, int count,
                            const Draftd__V1__PreviewSpec *spec, const struct draft_terminal *terminal,
                            struct draft_status *st);
void draft_model_grid_clear(struct draft_model_column *columns, int count);

/* Draws what was fetched. note may be NULL. */
bool draft_model_grid_png(const struct draft_model_column *columns, int count, const char *title, const char *note,
                          const char *path, struct draft_error *err);

#endif
