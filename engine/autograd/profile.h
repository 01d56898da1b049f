/*
 * Where the time goes: each op that a graph runs, forward or backward, between two marks on the clock of whoever
 * computes (a GPU's events, the host's clock), beside what it must do at least (ops/cost.h). Ops of one phase, kind and
 * shape are one row. A graph with a profile runs op by op, nothing is replayed; one without asks a pointer and no more.
 *
 * What is inside a recomputed block counts by itself. Thread: the graph's.
 */
#ifndef DRAFT_AUTOGRAD_PROFILE_H
#define DRAFT_AUTOGRAD_PROFILE_H

#include "autograd/graph.h"

struct draft_profile;

struct draft_profile_row {
    const char *phase; /* as draft_profile_phase() was told; "" before that */
    char what[112];    /* "conv2d 3x3 320>320 at 2x64x64" */
    bool backward;
    int64_t calls;
    int64_t launches;             /* of kernels; 0 on the CPU */
    double seconds, flops, bytes; /* of all calls */
};

enum { DRAFT_PROFILE_ROWS = 2048 }; /* at most */

/* NULL: no memory, or the backend cannot tell times (err says so). */
struct draft_profile *draft_profile_create(struct draft_backend *backend, struct draft_error *err);
void draft_profile_destroy(struct draft_profile *profile); /* NULL is fine */

/* Ops from now on belong to this phase; a literal. Does nothing for a graph without a profile. */
void draft_profile_phase(struct draft_graph *g, const char *phase);
/* Forgets all rows. */
void draft_profile_clear(struct draft_profile *profile);
/* The rows, the longest first; they last until the next op or call. False: a time could not be read. */
bool draft_profile_rows(struct draft_profile *profile, const struct draft_profile_row **rows, int *count,
                        struct draft_error *err);

/* Sums of rows, the longest first, into sums[count]: by phase (`what` is the phase then), or by op and direction, of
 * whatever shape (`what`: the op's name). Returns how many there are. */
int draft_profile_by_phase(const struct draft_profile_row *rows, int count, struct draft_profile_row *sums);
int draft_profile_by_op(const struct draft_profile_row *rows, int count, struct draft_profile_row *sums);

/* What the graph's backend reaches, measured: a large product of g->activations (FLOP/s), a large copy (bytes read and
 * written, a second), and the seconds of one kernel that has nothing to do, of many one after the other (0 where
 * nothing is launched). Takes a second or so, and some hundred MB of a GPU. */
struct draft_roofline {
    double flops, bytes, launch;
};
bool draft_profile_roofline(struct draft_graph *g, struct draft_roofline *out);

/* What a row's time is bound by: whichever of its FLOPs, bytes and launches takes longest by the roofline; share: how
 * much of the row's time that explains. Below a tenth it is none of them: a poor kernel, small shapes, the host. */
enum draft_profile_bound { DRAFT_BOUND_NOTHING, DRAFT_BOUND_FLOPS, DRAFT_BOUND_BYTES, DRAFT_BOUND_LAUNCHES };
enum draft_profile_bound draft_profile_bound(const struct draft_roofline *reached, const struct draft_profile_row *row,
                                             double *share);
const char *draft_profile_bound_name(enum draft_profile_bound bound); /* "FLOPs", "nothing" */

/* For the graph: runs one direction of a call, timed where g has a profile. */
typedef bool (*draft_op_function)(struct draft_graph *g, struct draft_call *call);
bool draft_profile_run(struct draft_graph *g, struct draft_call *call, draft_op_function function, bool backward);

static inline bool draft_op_run(struct draft_graph *g, struct draft_call *call, draft_op_function function,
                                bool backward)
{
    return g->profile == NULL ? function(g, call) : draft_profile_run(g, call, function, backward);
}

#endif
