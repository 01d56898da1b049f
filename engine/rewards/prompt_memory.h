/*
 * Embeddings of prompts, remembered: the text's side of a reward has no gradient and a job asks for the same prompts
 * again and again. Internal to rewards/. Thread: its reward's.
 */
#ifndef DRAFT_REWARDS_PROMPT_MEMORY_H
#define DRAFT_REWARDS_PROMPT_MEMORY_H

#include "autograd/graph.h"

struct draft_prompt_memory;

struct draft_prompt_memory *draft_prompt_memory_create(struct draft_error *err);
void draft_prompt_memory_destroy(struct draft_prompt_memory *memory); /* NULL is fine */

/* One prompt, without recording, in a scope of its own -> [1, width]. A failure is g->error. */
typedef struct draft_tensor *(*draft_embed_prompt)(struct draft_graph *g, void *context, const char *prompt);
/* prompts[n] -> [n, width], a constant. Each prompt is embedded by itself, so that its numbers never depend on which
 * others were asked for before or beside it. */
struct draft_tensor *draft_prompt_memory_embed(struct draft_prompt_memory *memory, struct draft_graph *g,
                                               const char *const *prompts, int64_t n, draft_embed_prompt embed,
                                               void *context);

#endif
