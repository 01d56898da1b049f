/* Asking the daemon for pictures and fetching them, as PNG bytes exactly as the daemon made them. */
#ifndef DRAFT_CLIENT_PREVIEWS_H
#define DRAFT_CLIENT_PREVIEWS_H

#include "rpc/rpc.h"

struct draft_picture {
    uint8_t *png;
    size_t bytes;
    const char *prompt; /* of the preview message */
    uint64_t seed;
    double reward;
    int index;
};

struct draft_pictures {
    Draftd__V1__Preview *preview; /* id, step, spec */
    struct draft_picture *items;  /* prompt by prompt, each with its seeds in order */
    int count;
};

/* Told on the way: what is done of the denoising (0, 0 while it waits). */
typedef void (*draft_preview_progress)(void *context, const Draftd__V1__Preview *preview, int64_t done, int64_t total);

/* Asks, waits, fetches. `progress` may be NULL. The pictures are the caller's: draft_pictures_clear(). */
bool draft_preview_run(struct draft_rpc *rpc, const char *job_id, const Draftd__V1__PreviewSpec *spec,
                       draft_preview_progress progress, void *context, struct draft_pictures *out,
                       struct draft_status *st);

/* The three parts, for callers with other things to do meanwhile. create: the preview's id on success. */
bool draft_preview_create(struct draft_rpc *rpc, const char *job_id, const Draftd__V1__PreviewSpec *spec, char id[80],
                          struct draft_status *st);
bool draft_preview_wait(struct draft_rpc *rpc, const char *id, draft_preview_progress progress, void *context,
                        struct draft_status *st);
bool draft_preview_fetch(struct draft_rpc *rpc, const char *id, struct draft_pictures *out, struct draft_status *st);

void draft_pictures_clear(struct draft_pictures *pictures);

#endif
