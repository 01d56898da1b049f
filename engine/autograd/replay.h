/*
 * Replay: a block of ops that is the same in every step is recorded once and then launched whole, so that the host's
 * time for hundreds of small launches is paid once (on CUDA: stream capture and CUDA graphs). A backend that does not
 * record simply runs the block, every time; so does one that was told to, a graph that is being profiled, and a key
 * that says so.
 *
 * The first run of a key is an ordinary one, in which weights get their forms, kernels are loaded and arenas grow; the
 * second is recorded and launched; from the third on the recording is launched and the block is not called. Therefore
 *   - a block leaves nothing behind but values, in memory that was there before it: tensors made earlier, and the
 *     gradients of leaves (whether those are written is kept with the recording). What it allocates, notes included, is
 *     given back at its end, and its tape is empty then;
 *   - what decides a launch is in the key: sizes, switches, numbers passed by value, the addresses of what it reads and
 *     writes. How far the arenas are filled and which gradients are written is added here;
 *   - what changes from run to run is in tensors made before it, written by draft_written() before each run;
 *   - inside nothing is read by the host, sent by it, waited for, or allocated from the backend but by arenas.
 * A block that breaks the last rule is found while it is recorded: nothing has run then, so it is run in the ordinary
 * way, now and ever after, and draft_replay_refusal() says why.
 *
 * A recording is dropped when memory it may point to is given back (draft_backend_head.changes), or when it has not
 * been used for long and room is needed.
 */
#ifndef DRAFT_AUTOGRAD_REPLAY_H
#define DRAFT_AUTOGRAD_REPLAY_H

#include "autograd/graph.h"

enum { DRAFT_REPLAY_NUMBERS = 24, DRAFT_REPLAY_ADDRESSES = 16 };

struct draft_replay_key {
    const char *name; /* of the block, in error messages; a literal */
    bool never;       /* run it every time: somebody looks into it */
    double number[DRAFT_REPLAY_NUMBERS];
    const void *address[DRAFT_REPLAY_ADDRESSES];
};

/* False: the graph has failed. */
typedef bool (*draft_replayed)(struct draft_graph *g, void *context);
bool draft_replay(struct draft_graph *g, const struct draft_replay_key *key, draft_replayed block, void *context);

/* How often blocks were run, recorded, and launched from a recording, since the graph was made. */
struct draft_replay_count {
    int64_t run, recorded, launched;
};
struct draft_replay_count draft_replay_count(const struct draft_graph *g);
/* Why a block could not be recorded, the first time that happened; NULL: it never did. */
const char *draft_replay_refusal(const struct draft_graph *g);

/* Inside the graph. */
struct draft_replays;
void draft_replays_free(struct draft_graph *g);
/* A leaf's gradient is about to be written, as the first (overwriting) or not. */
void draft_replay_leaf(struct draft_graph *g, struct draft_tensor *leaf, bool accumulate);

#endif
