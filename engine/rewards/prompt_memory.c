#include "rewards/prompt_memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "backend/backend.h"

/* A ring: a newcomer takes the place of the oldest, since a prompt is encoded again in no time compared with a step. */
enum { MAX_SLOTS = 2048, MIN_SLOTS = 16, BYTES = 8 << 20 };

struct draft_prompt_memory {
    struct draft_backend *backend; /* that has the numbers; NULL until the first */
    float *numbers;                /* [slots, count] */
    int64_t count;
    int slots, next;
    char *prompt[MAX_SLOTS]; /* NULL: free */
    uint64_t hash[MAX_SLOTS];
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
    if (memory == NULL)
        return;
    for (int i = 0; i < MAX_SLOTS; i++)
        free(memory->prompt[i]);
    if (memory->backend != NULL)
        draft_backend_free(memory->backend, memory->numbers);
    free(memory);
}

size_t draft_prompt_memory_bytes(const struct draft_prompt_memory *memory)
{
    return memory != NULL ? (size_t)memory->slots * (size_t)memory->count * sizeof(float) : 0;
}

static void measure(struct draft_prompt_memory *memory, int64_t count)
{
    int64_t fit = BYTES / (count * (int64_t)sizeof(float));
    memory->slots = fit < MIN_SLOTS ? MIN_SLOTS : fit > MAX_SLOTS ? MAX_SLOTS : (int)fit;
    memory->count = count;
}

static bool begin(struct draft_prompt_memory *memory, struct draft_graph *g)
{
    memory->numbers = draft_backend_alloc(g->backend, draft_prompt_memory_bytes(memory), &g->error);
    memory->backend = memory->numbers != NULL ? g->backend : NULL;
    return memory->numbers != NULL;
}

/* One row of numbers as a tensor. */
static struct draft_tensor row_at(float *numbers, int64_t i, int64_t count)
{
    return (struct draft_tensor){.dtype = DRAFT_F32, .rank = 1, .dim = {count}, .data = numbers + i * count};
}

/* Embeds a prompt into `to`, and gives back what that took. */
static bool embed_into(struct draft_graph *g, struct draft_tensor *to, const char *prompt, draft_embed_prompt embed,
                       void *context)
{
    bool was = draft_no_grad(g);
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *embedding = embed(g, context, prompt);
    bool ok = embedding != NULL && draft_copy_values(g, to, embedding);
    draft_scope_end(g, mark, NULL);
    g->recording = was;
    return ok;
}

/* Where the prompt is; -1: nowhere. */
static int find(const struct draft_prompt_memory *memory, const char *prompt, uint64_t hash)
{
    for (int i = 0; i < memory->slots; i++)
        if (memory->prompt[i] != NULL && memory->hash[i] == hash && strcmp(memory->prompt[i], prompt) == 0)
            return i;
    return -1;
}

/* The prompt's numbers, kept, into `to`. */
static bool recall(struct draft_prompt_memory *memory, struct draft_graph *g, struct draft_tensor *to,
                   const char *prompt, draft_embed_prompt embed, void *context)
{
    const uint64_t hash = XXH3_64bits(prompt, strlen(prompt));
    const int known = find(memory, prompt, hash), slot = known >= 0 ? known : memory->next;
    struct draft_tensor kept = row_at(memory->numbers, slot, memory->count);
    if (known < 0) {
        char **name = &memory->prompt[slot];
        free(*name);
        *name = NULL; /* until its numbers are there */
        if (!embed_into(g, &kept, prompt, embed, context))
            return false;
        if ((*name = strdup(prompt)) == NULL)
            return draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "out of memory for the embedding of a prompt");
        memory->hash[slot] = hash;
        memory->next = (slot + 1) % memory->slots;
    }
    return draft_copy_values(g, to, &kept);
}

struct draft_tensor *draft_prompt_memory_embed(struct draft_prompt_memory *memory, struct draft_graph *g,
                                               const char *const *prompts, int64_t n, int rank, const int64_t *dim,
                                               draft_embed_prompt embed, void *context)
{
    assert(rank + 1 <= DRAFT_MAX_RANK);
    int64_t all[DRAFT_MAX_RANK] = {n}, count = 1;
    for (int i = 0; i < rank; i++)
        count *= all[i + 1] = dim[i];
    struct draft_tensor *out = draft_new(g, DRAFT_F32, rank + 1, all);
    bool dry = draft_backend_is_dry(g->backend); /* its numbers mean nothing, and it is not the one that keeps them */
    if (memory->count == 0)
        measure(memory, count);
    if (out == NULL || (!dry && memory->backend == NULL && !begin(memory, g)))
        return NULL;
    assert(memory->count == count && (dry || memory->backend == g->backend));
    for (int64_t i = 0; i < n; i++) {
        struct draft_tensor row = row_at(draft_f32(out), i, count);
        if (dry ? !embed_into(g, &row, prompts[i], embed, context)
                : !recall(memory, g, &row, prompts[i], embed, context))
            return NULL;
    }
    return out;
}
