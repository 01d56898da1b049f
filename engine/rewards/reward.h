/*
 * A reward: a differentiable score of pictures, larger is better. One file rewards/<name>.c and one line in rewards.def;
 * train/ sees this interface alone.
 */
#ifndef DRAFT_REWARDS_REWARD_H
#define DRAFT_REWARDS_REWARD_H

#include "autograd/graph.h"

enum { DRAFT_MAX_TERMS = 8 };

/* One term as a job names it: "clip:DIR", "jpeg:quality=50,mode=compressibility", with a weight in the mix. */
struct draft_reward_spec {
    char kind[32];
    char path[512];    /* weights' folder, or "" */
    char options[128]; /* "key=value,key=value" of this kind */
    double weight;
};

struct draft_reward;

struct draft_reward_kind {
    const char *name;
    const char *help; /* a line for --help: what it measures, path and options */
    struct draft_reward *(*open)(const struct draft_reward_spec *spec, struct draft_arena *arena, struct draft_error *err);
    /* images [n, h, w, 3] in [0, 1], prompts[n] -> [n], differentiable in the images. */
    struct draft_tensor *(*score)(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                  const char *const *prompts);
    /* A true measure reported beside the differentiable one (the encoded JPEG size in kB), or NULL. */
    const char *measure_name;
    bool (*measure)(struct draft_reward *reward, const float *images, int n, int h, int w, double *out, struct draft_error *err);
    void (*close)(struct draft_reward *reward);
};

/* Every implementation's struct begins with this. */
struct draft_reward {
    const struct draft_reward_kind *kind;
};

const struct draft_reward_kind *draft_reward_kind_find(const char *name);        /* NULL when unknown */
const struct draft_reward_kind *draft_reward_kind_at(int index);                 /* NULL at the end */
/* Parses "clip:/path", "jpeg:quality=50", "0.5*clip:/path" ; `mix` is several terms with weights. Refuses what no kind knows. */
bool draft_reward_spec_parse(const char *text, struct draft_reward_spec *spec, struct draft_error *err);

#endif
