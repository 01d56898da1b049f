/*
 * The rewards of a job as one number per picture: a weighted sum of terms, each term also known by itself.
 * Ownership: draft_scoring_close(). Thread: one.
 */
#ifndef DRAFT_TRAIN_SCORING_H
#define DRAFT_TRAIN_SCORING_H

#include "rewards/reward.h"

struct draft_scoring {
    int terms;
    struct draft_reward *term[DRAFT_MAX_TERMS];
    double weight[DRAFT_MAX_TERMS];
    char name[DRAFT_MAX_TERMS][40];    /* "clip"; the second of a kind is "clip2" */
    char measure[DRAFT_MAX_TERMS][40]; /* a true measure's name, numbered alike; "": the kind has none */
};

bool draft_scoring_open(struct draft_scoring *scoring, const struct draft_reward_spec *specs, int count,
                        struct draft_arena *arena, struct draft_error *err);
void draft_scoring_close(struct draft_scoring *scoring); /* zeroed is fine */

/* What is to be known of the pictures before there are any: what each term reads of their prompts. */
struct draft_asked {
    struct draft_tensor *text[DRAFT_MAX_TERMS];
};
/* In the step arena. False: the graph failed. */
bool draft_score_read(struct draft_scoring *scoring, struct draft_graph *g, const char *const *prompts, int64_t n,
                      struct draft_asked *asked);
/* images [n, h, w, 3] in [0, 1] -> sum of weight * term [n]. term[i] (may be NULL) receives each term's own [n]. */
struct draft_tensor *draft_score(struct draft_scoring *scoring, struct draft_graph *g, struct draft_tensor *images,
                                 const struct draft_asked *asked, struct draft_tensor **term);

bool draft_score_measured(const struct draft_scoring *scoring); /* a term has a true measure */
/* Adds the sums over n pictures [h, w, 3] on the host of each true measure to sum[terms]; terms without one are left
 * alone. */
bool draft_score_measures(struct draft_scoring *scoring, const float *pictures, int n, int h, int w, double *sum,
                          struct draft_error *err);

#endif
