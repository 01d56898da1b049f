#include "autograd/replay.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/tape.h"
#include "backend/backend.h"

enum { ROOM = 32 }; /* recordings at a time: a job's few, and those of its previews */

enum state { SEEN_ONCE, RECORDED, REFUSED };

/* A leaf whose gradient the block writes; first: over what was there. */
struct leaf {
    struct draft_tensor *tensor;
    bool first;
};

struct entry {
    struct draft_replay_key key;
    struct draft_mark mark; /* where its memory begins */
    bool recording;         /* the graph's */
    enum state state;
    uint64_t changes; /* of the backend, when it was run or recorded */
    void *work;       /* the backend's recording */
    int leaves, room;
    struct leaf *leaf;
    int64_t used; /* when */
};

struct draft_replays {
    struct entry entry[ROOM];
    int entries;
    struct entry *noting; /* the entry whose block is being run */
    int64_t clock;
    struct draft_replay_count count;
    char refusal[512];
};

static void forget(struct draft_graph *g, struct entry *entry)
{
    if (entry->work != NULL)
        draft_backend_kind(g->backend)->drop(g->backend, entry->work);
    free(entry->leaf);
    *entry = (struct entry){.leaf = NULL};
}

void draft_replays_free(struct draft_graph *g)
{
    for (int i = 0; g->replays != NULL && i < g->replays->entries; i++)
        forget(g, &g->replays->entry[i]);
    free(g->replays);
    g->replays = NULL;
}

/* --- Which recording ---------------------------------------------------------------------------------------------- */

static bool same_key(const struct draft_replay_key *a, const struct draft_replay_key *b)
{
    bool same = strcmp(a->name, b->name) == 0;
    for (int i = 0; i < DRAFT_REPLAY_NUMBERS; i++)
        same = same && a->number[i] == b->number[i];
    for (int i = 0; i < DRAFT_REPLAY_ADDRESSES; i++)
        same = same && a->address[i] == b->address[i];
    return same;
}

static bool same_leaves(const struct entry *entry)
{
    for (int i = 0; i < entry->leaves; i++)
        if (entry->leaf[i].tensor->grad_written == entry->leaf[i].first)
            return false;
    return true;
}

static bool matches(const struct entry *entry, const struct draft_graph *g, const struct draft_replay_key *key)
{
    struct draft_mark mark = draft_graph_mark(g);
    return entry->recording == g->recording && entry->mark.step == mark.step && entry->mark.notes == mark.notes &&
           same_key(&entry->key, key) && same_leaves(entry);
}

/* The place of one that is gone, or of the one that was not used for longest. */
static struct entry *place(struct draft_graph *g)
{
    struct draft_replays *replays = g->replays;
    struct entry *oldest = &replays->entry[0];
    if (replays->entries < ROOM)
        return &replays->entry[replays->entries++];
    for (int i = 1; i < ROOM; i++)
        if (replays->entry[i].used < oldest->used)
            oldest = &replays->entry[i];
    forget(g, oldest);
    return oldest;
}

static struct entry *find(struct draft_graph *g, const struct draft_replay_key *key)
{
    struct draft_replays *replays = g->replays;
    struct entry *entry = NULL;
    for (int i = 0; entry == NULL && i < replays->entries; i++)
        if (replays->entry[i].key.name != NULL && matches(&replays->entry[i], g, key))
            entry = &replays->entry[i];
    if (entry == NULL || entry->state == REFUSED || entry->changes == draft_backend_changes(g->backend))
        return entry;
    forget(g, entry); /* what it points to may be gone; what it needs may have to be made again */
    return NULL;
}

/* --- One run ------------------------------------------------------------------------------------------------------ */

void draft_replay_leaf(struct draft_graph *g, struct draft_tensor *leaf, bool accumulate)
{
    struct entry *entry = g->replays != NULL ? g->replays->noting : NULL;
    if (entry == NULL)
        return;
    for (int i = 0; i < entry->leaves; i++)
        if (entry->leaf[i].tensor == leaf)
            return;
    if (entry->leaves == entry->room) {
        int room = entry->room > 0 ? 2 * entry->room : 64;
        struct leaf *grown = realloc(entry->leaf, (size_t)room * sizeof *grown);
        if (grown == NULL) {
            draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "out of memory for the list of gradients of a recording");
            return;
        }
        entry->leaf = grown;
        entry->room = room;
    }
    entry->leaf[entry->leaves++] = (struct leaf){leaf, !accumulate};
}

/* Runs the block, and gives back what it took. */
static bool run(struct draft_graph *g, draft_replayed block, void *context)
{
    struct draft_mark mark = draft_graph_mark(g);
    g->tape->holes = mark.step; /* what lies below may be full when a recording is launched */
    bool done = block(g, context) && draft_graph_ok(g);
    g->tape->holes = 0;
    if (!done)
        return false;
    assert(g->tape->last == NULL && g->tape->level == 0);
    draft_graph_release(g, mark);
    return true;
}

static bool run_noting(struct draft_graph *g, struct entry *entry, draft_replayed block, void *context)
{
    entry->leaves = 0;
    g->replays->noting = entry;
    bool done = run(g, block, context);
    g->replays->noting = NULL;
    entry->changes = draft_backend_changes(g->backend);
    return done;
}

/* The first run of a key. Stopped half-way, not all is known and loaded that the next would need. */
static bool run_first(struct draft_graph *g, const struct draft_replay_key *key, draft_replayed block, void *context)
{
    struct entry *entry = place(g);
    *entry = (struct entry){
        .key = *key, .mark = draft_graph_mark(g), .recording = g->recording, .used = ++g->replays->clock};
    g->replays->count.run++;
    bool done = run_noting(g, entry, block, context);
    if (!done)
        forget(g, entry);
    return done;
}

/* As it was before the block was run in vain. */
static void undo(struct draft_graph *g, const struct entry *entry)
{
    for (int i = 0; i < entry->leaves; i++)
        entry->leaf[i].tensor->grad_written = !entry->leaf[i].first;
    *g->tape = (struct draft_tape){.leaves = g->tape->leaves};
    draft_graph_release(g, entry->mark);
    g->recording = entry->recording;
    g->error = (struct draft_error){0};
}

static bool launch(struct draft_graph *g, struct entry *entry)
{
    for (int i = 0; i < entry->leaves; i++)
        entry->leaf[i].tensor->grad_written = true;
    g->replays->count.launched++;
    bool done = draft_backend_kind(g->backend)->launch(g->backend, entry->work, &g->error);
    draft_error_prefix(&g->error, "%s: ", entry->key.name);
    return done;
}

static bool record(struct draft_graph *g, struct entry *entry, draft_replayed block, void *context)
{
    const struct draft_backend_kind *kind = draft_backend_kind(g->backend);
    bool done = kind->record(g->backend, &g->error) && run_noting(g, entry, block, context);
    struct draft_error ended = {0};
    entry->work = kind->recorded(g->backend, done, &ended);
    if (entry->work != NULL) {
        entry->state = RECORDED;
        g->replays->count.recorded++;
        return launch(g, entry);
    }
    if (g->error.code == DRAFT_CANCELLED)
        return false;
    if (g->replays->refusal[0] == '\0')
        snprintf(g->replays->refusal, sizeof g->replays->refusal, "%s: %.400s", entry->key.name,
                 done ? ended.message : g->error.message);
    entry->state = REFUSED;
    undo(g, entry);
    g->replays->count.run++;
    return run(g, block, context);
}

bool draft_replay(struct draft_graph *g, const struct draft_replay_key *key, draft_replayed block, void *context)
{
    if (!draft_graph_ok(g))
        return false;
    if (key->never || g->profile != NULL || !draft_backend_records(g->backend))
        return run(g, block, context);
    if (g->replays == NULL && (g->replays = calloc(1, sizeof *g->replays)) == NULL)
        return draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "out of memory for recordings");
    assert(g->replays->noting == NULL && "a replayed block within another");
    struct entry *entry = find(g, key);
    if (entry == NULL)
        return run_first(g, key, block, context);
    entry->used = ++g->replays->clock;
    if (entry->state == RECORDED)
        return launch(g, entry);
    if (entry->state == SEEN_ONCE)
        return record(g, entry, block, context);
    g->replays->count.run++;
    return run(g, block, context);
}

struct draft_replay_count draft_replay_count(const struct draft_graph *g)
{
    return g->replays != NULL ? g->replays->count : (struct draft_replay_count){0};
}

const char *draft_replay_refusal(const struct draft_graph *g)
{
    return g->replays != NULL && g->replays->refusal[0] != '\0' ? g->replays->refusal : NULL;
}
