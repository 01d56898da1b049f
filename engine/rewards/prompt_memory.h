/*
 * What a text encoder says of prompts, remembered: the text's side of a reward and the UNet's context have no gradient,
 * and a job asks for the same prompts again and again. Numbers are kept where the backend computes, so that nothing
 * waits for them. Thread: its owner's.
 */
#ifndef DRAFT_REWARDS_PROMPT_MEMORY_H
#define DRAFT_REWARDS_PROMPT_MEMORY_H

#include "autograd/graph.h"

struct draft_prompt_memory;

struct draft_prompt_memory *draft_prompt_memory_create(struct draft_error *err);
/* Before the backend goes. NULL is fine. */
void draft_prompt_memory_destroy(struct draft_prompt_memory *memory);
/* What it holds, or will, of the backend's memory beside all arenas: known after the first prompt, a dry backend's too.
 * NULL, 0. */
size_t draft_prompt_memory_bytes(const struct draft_prompt_memory *memory);

/* One prompt, without recording, in a scope of its own -> [1, dim]. A failure is g->error. */
typedef struct draft_tensor *(*draft_embed_prompt)(struct draft_graph *g, void *context, const char *prompt);
/* prompts[n] -> [n, dim], a constant; dim is the same in every call. Each prompt is embedded by itself, so that its
 * numbers never depend on which others were asked for before or beside it. */
struct draft_tensor *draft_prompt_memory_embed(struct draft_prompt_memory *memory, struct draft_graph *g,
                                               const char *const *prompts, int64_t n, int rank, const int64_t *dim,
                                               draft_embed_prompt embed, void *context);

#endif
