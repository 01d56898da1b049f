/*
 * A reward: a differentiable score of pictures, larger is better. One file rewards/<name>.c and one line in
 * rewards.def; train/ sees this interface alone.
 */
#ifndef DRAFT_REWARDS_REWARD_H
#define DRAFT_REWARDS_REWARD_H

#include "autograd/graph.h"
#include "rewards/prompt_memory.h"

enum { DRAFT_MAX_TERMS = 8 };

/* One term as a job names it: "clip:DIR", "jpeg:quality=50,mode=compressibility", with a weight in the mix. */
struct draft_reward_spec {
    char kind[32];
    char path[512];    /* weights' folder, or "" */
    char options[128]; /* "key=value,key=value" of this kind */
    double weight;
};

struct draft_reward;

/* open: `arena` is the engine's (weights); what it returns is freed by close. One reward, one thread. */
struct draft_reward_kind {
    const char *name;
    bool takes_path; /* "kind:PATH"; otherwise "kind:key=value,key=value" */
    struct draft_reward *(*open)(const struct draft_reward_spec *spec, struct draft_arena *arena,
                                 struct draft_error *err);
    /* What score needs beside the images: numbers of the prompts, or of the weights, made before there are images and
     * without a gradient. NULL: nothing. A failure is g->error. */
    struct draft_tensor *(*read)(struct draft_reward *reward, struct draft_graph *g, const char *const *prompts,
                                 int64_t n);
    /* images [n, h, w, 3] in [0, 1], and what read gave of their prompts -> [n], differentiable in the images. The ops
     * are the same for any prompts, so that they may be replayed for others. A failure is g->error. */
    struct draft_tensor *(*score)(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  struct draft_tensor *text);
    /* A true measure reported beside the differentiable one (the encoded JPEG size in kB), or NULL. images as above. */
    const char *measure_name;
    bool (*measure)(struct draft_reward *reward, const float *images, int n, int h, int w, double *out,
                    struct draft_error *err);
    void (*close)(struct draft_reward *reward);
};
#define DRAFT_REWARD(name, help) extern const struct draft_reward_kind draft_reward_##name;
#include "rewards/rewards.def"
#undef DRAFT_REWARD

/* Every implementation's struct begins with this. */
struct draft_reward {
    const struct draft_reward_kind *kind;
    struct draft_prompt_memory *prompts; /* what read remembers, for a job's estimate; NULL: nothing */
};

const struct draft_reward_kind *draft_reward_kind_find(const char *name); /* NULL when unknown */
const struct draft_reward_kind *draft_reward_kind_at(int index);          /* NULL at the end */
/* read and score in one */
struct draft_tensor *draft_reward_score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                        const char *const *prompts);
/* Parses "clip:/path", "jpeg", "jpeg:quality=50", "0.5*clip:/path" (a mix is several terms, each with its weight; 1
 * when absent). Refuses kinds that are not in the table, a path where none is taken, and texts that do not fit. */
bool draft_reward_spec_parse(const char *text, struct draft_reward_spec *spec, struct draft_error *err);

/* For implementations: walks "key=value,key=value". visit returns false to refuse (and sets err). */
bool draft_reward_options_each(const char *options, void *context,
                               bool (*visit)(void *context, const char *key, const char *value,
                                             struct draft_error *err),
                               struct draft_error *err);

#endif
