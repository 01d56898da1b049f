/*
 * The adapter: one pair (down [r, in], up [out, r]) for each adapted linear, in one order for ever (module order of the
 * UNet). down is xavier-normal from the job's seed, up zero, so that step 0 is the base model exactly.
 * Targets: to_q, to_k, to_v, to_out.0 of self- and cross-attention, ff.net.0.proj and ff.net.2.
 */
#ifndef DRAFT_MODELS_LORA_H
#define DRAFT_MODELS_LORA_H

#include "base/arena.h"
#include "ops/ops.h"

struct draft_adapter_entry {
    const char *module; /* "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q" */
    struct draft_lora lora;
    int64_t in, out;
};

struct draft_adapter {
    int count, capacity;
    struct draft_adapter_entry *entry;
    int rank;
    float alpha;
    float strength; /* 1 in training; a preview's LoRA scale; call draft_adapter_set_strength */
    float scale;    /* alpha / rank * strength: what every entry's lora.scale points at */
    bool on;
    struct draft_arena *arena;
    uint64_t seed;
};

struct draft_adapter *draft_adapter_create(struct draft_arena *arena, int rank, float alpha, uint64_t seed,
                                           struct draft_error *err);
/* Called by the UNet while it loads: makes the pair of one linear, initialised. */
const struct draft_lora *draft_adapter_add(struct draft_adapter *adapter, const char *module, int64_t in, int64_t out,
                                           struct draft_error *err);
void draft_adapter_set_strength(struct draft_adapter *adapter, float strength);
size_t draft_adapter_parameters(const struct draft_adapter *adapter); /* numbers */

#endif
