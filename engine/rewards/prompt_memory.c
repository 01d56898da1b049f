#include "rewards/prompt_memory.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "backend/backend.h"

enum { SLOTS = 2048 }; /* a newcomer takes the place of the one with the same hash */

struct embedded {
    char *prompt;
    float *numbers; /* [width] */
};

struct draft_prompt_memory {
    int64_t width; /* 0 until the first */
    struct embedded slot[SLOTS];
};

struct draft_prompt_memory *draft_prompt_memory_create(struct draft_error *err)
{
    struct draft_prompt_memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the embeddings of prompts");
    return memory;
}

void draft_prompt_memory_destroy(struct draft_prompt_memory *memory)
{
    for (int i = 0; memory != NULL && i < SLOTS; i++) {
        free(memory->slot[i].prompt);
        free(memory->slot[i].numbers);
    }
    free(memory);
}

static bool remember(struct draft_prompt_memory *memory, struct embedded *slot, const char *prompt,
                     const struct draft_tensor *embedding, struct draft_graph *g)
{
    const float *values = draft_read(g, embedding);
    if (values == NULL)
        return false;
    size_t bytes = (size_t)draft_tensor_count(embedding) * sizeof(float);
    char *copy = strdup(prompt);
    float *numbers = malloc(bytes);
    if (copy == NULL || numbers == NULL) {
        free(copy);
        free(numbers);
        return draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "out of memory for the embedding of a prompt");
    }
    memcpy(numbers, values, bytes);
    free(slot->prompt);
    free(slot->numbers);
    *slot = (struct embedded){copy, numbers};
    memory->width = draft_tensor_count(embedding);
    return true;
}

/* Its place is filled when this returns it. */
static const struct embedded *embed_one(struct draft_prompt_memory *memory, struct draft_graph *g, const char *prompt,
                                        draft_embed_prompt embed, void *context)
{
    struct embedded *slot = &memory->slot[XXH3_64bits(prompt, strlen(prompt)) % SLOTS];
    if (slot->prompt != NULL && strcmp(slot->prompt, prompt) == 0)
        return slot;
    bool was = draft_no_grad(g);
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *embedding = embed(g, context, prompt);
    bool ok = embedding != NULL && remember(memory, slot, prompt, embedding, g);
    draft_scope_end(g, mark, NULL);
    g->recording = was;
    return ok ? slot : NULL;
}

struct draft_tensor *draft_prompt_memory_embed(struct draft_prompt_memory *memory, struct draft_graph *g,
                                               const char *const *prompts, int64_t n, draft_embed_prompt embed,
                                               void *context)
{
    struct draft_tensor *text = NULL;
    float *values = NULL;
    for (int64_t i = 0; i < n && draft_graph_ok(g); i++) {
        const struct embedded *one = embed_one(memory, g, prompts[i], embed, context);
        if (one == NULL)
            return NULL;
        if (text == NULL)
            values = draft_write(g, text = draft_new(g, DRAFT_F32, 2, (int64_t[]){n, memory->width}));
        if (values != NULL)
            memcpy(values + i * memory->width, one->numbers, (size_t)memory->width * sizeof(float));
    }
    for (int i = 0; draft_backend_is_dry(g->backend) && i < SLOTS; i++) { /* these mean nothing */
        free(memory->slot[i].prompt);
        memory->slot[i].prompt = NULL;
    }
    return values != NULL && draft_written(g, text, values) ? text : NULL;
}
