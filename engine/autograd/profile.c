#include "autograd/profile.h"

#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/cost.h"
#include "ops/op.h"

enum { MAX_ROWS = DRAFT_PROFILE_ROWS, BUCKETS = 4096 };

struct draft_profile {
    struct draft_backend *backend;
    const char *phase;
    int count, waiting;      /* rows; calls whose marks have not been read */
    bool full;               /* rows were left out */
    int16_t bucket[BUCKETS]; /* 1 + row; 0: empty */
    int row_of[DRAFT_MARKS / 2];
    struct draft_profile_row row[MAX_ROWS];
    struct draft_profile_row sorted[MAX_ROWS];
};

struct draft_profile *draft_profile_create(struct draft_backend *backend, struct draft_error *err)
{
    struct draft_profile *profile = calloc(1, sizeof *profile);
    if (profile == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a profile");
        return NULL;
    }
    profile->backend = backend;
    profile->phase = "";
    return profile;
}

void draft_profile_destroy(struct draft_profile *profile)
{
    free(profile);
}

void draft_profile_phase(struct draft_graph *g, const char *phase)
{
    if (g->profile != NULL)
        g->profile->phase = phase;
}

void draft_profile_clear(struct draft_profile *profile)
{
    profile->count = profile->waiting = 0;
    profile->full = false;
    profile->row[MAX_ROWS - 1] = (struct draft_profile_row){0};
    memset(profile->bucket, 0, sizeof profile->bucket);
}

/* Reads the marks of the calls that wait. */
static bool settle(struct draft_profile *profile, struct draft_error *err)
{
    for (int i = 0; i < profile->waiting; i++) {
        double seconds;
        if (!draft_backend_between(profile->backend, 2 * i, 2 * i + 1, &seconds, err))
            return false;
        profile->row[profile->row_of[i]].seconds += seconds;
    }
    profile->waiting = 0;
    return true;
}

static int new_row(struct draft_profile *profile, uint32_t bucket, const char *what, bool backward)
{
    if (profile->count == MAX_ROWS - 1) { /* the last row takes what has no place */
        profile->full = true;
        return MAX_ROWS - 1;
    }
    struct draft_profile_row *row = &profile->row[profile->count];
    *row = (struct draft_profile_row){.phase = profile->phase, .backward = backward};
    memcpy(row->what, what, strlen(what) + 1);
    profile->bucket[bucket] = (int16_t)++profile->count;
    return profile->count - 1;
}

/* The row of this phase, direction and text; made where there is none. */
static int find_row(struct draft_profile *profile, const char *what, bool backward)
{
    uint32_t hash = backward ? 2166136261u : 84696351u;
    for (const char *text[] = {profile->phase, what}, **t = text; t < text + 2; t++)
        for (const char *p = *t; *p; p++)
            hash = (hash ^ (unsigned char)*p) * 16777619u;
    uint32_t i = hash % BUCKETS;
    for (; profile->bucket[i] != 0; i = (i + 1) % BUCKETS) {
        const struct draft_profile_row *row = &profile->row[profile->bucket[i] - 1];
        if (row->backward == backward && row->phase == profile->phase && strcmp(row->what, what) == 0)
            return profile->bucket[i] - 1;
    }
    return new_row(profile, i, what, backward);
}

bool draft_profile_run(struct draft_graph *g, struct draft_call *call, draft_op_function function, bool backward)
{
    struct draft_profile *profile = g->profile;
    char what[sizeof profile->row[0].what];
    if (draft_op_list[call->op->id] != call->op) /* a recomputed block: its ops are counted one by one */
        return function(g, call);
    /* The wants of a backward pass show before it has written them. */
    struct draft_cost cost = draft_op_cost(call, backward);
    draft_op_describe(call, what, sizeof what);
    int row = find_row(profile, what, backward), at = profile->waiting;
    uint64_t launched = draft_backend_launches(g->backend);
    if (!draft_backend_mark(g->backend, 2 * at, &g->error))
        return false;
    bool done = function(g, call);
    if (!draft_graph_ok(g) || !draft_backend_mark(g->backend, 2 * at + 1, &g->error))
        return done && draft_graph_ok(g);
    struct draft_profile_row *to = &profile->row[row];
    to->calls++;
    to->launches += (int64_t)(draft_backend_launches(g->backend) - launched);
    to->flops += cost.flops;
    to->bytes += cost.bytes;
    profile->row_of[at] = row;
    profile->waiting++;
    return (profile->waiting < DRAFT_MARKS / 2 || settle(profile, &g->error)) && done;
}

static int longest_first(const void *a, const void *b)
{
    double x = ((const struct draft_profile_row *)a)->seconds, y = ((const struct draft_profile_row *)b)->seconds;
    return (x < y) - (x > y);
}

bool draft_profile_rows(struct draft_profile *profile, const struct draft_profile_row **rows, int *count,
                        struct draft_error *err)
{
    if (!settle(profile, err))
        return false;
    *count = profile->count;
    memcpy(profile->sorted, profile->row, (size_t)profile->count * sizeof *profile->row);
    if (profile->full) {
        profile->sorted[*count] = profile->row[MAX_ROWS - 1];
        profile->sorted[*count].phase = "";
        strcpy(profile->sorted[(*count)++].what, "others");
    }
    qsort(profile->sorted, (size_t)*count, sizeof *profile->sorted, longest_first);
    *rows = profile->sorted;
    return true;
}

/* --- Sums ---------------------------------------------------------------------------------------------------------
 */

/* Into the sum of this name and direction, which is made where there is none. */
static void add_row(const struct draft_profile_row *row, const char *name, size_t length, bool backward,
                    struct draft_profile_row *sums, int *count)
{
    int i = 0;
    while (i < *count &&
           (sums[i].backward != backward || strncmp(sums[i].what, name, length) != 0 || sums[i].what[length] != '\0'))
        i++;
    if (i == *count) {
        sums[(*count)++] = (struct draft_profile_row){.phase = "", .backward = backward};
        memcpy(sums[i].what, name, length);
    }
    sums[i].calls += row->calls;
    sums[i].launches += row->launches;
    sums[i].seconds += row->seconds;
    sums[i].flops += row->flops;
    sums[i].bytes += row->bytes;
}

int draft_profile_by_phase(const struct draft_profile_row *rows, int count, struct draft_profile_row *sums)
{
    int made = 0;
    for (int i = 0; i < count; i++)
        add_row(&rows[i], rows[i].phase, strlen(rows[i].phase), false, sums, &made);
    qsort(sums, (size_t)made, sizeof *sums, longest_first);
    return made;
}

int draft_profile_by_op(const struct draft_profile_row *rows, int count, struct draft_profile_row *sums)
{
    int made = 0;
    for (int i = 0; i < count; i++)
        add_row(&rows[i], rows[i].what, strcspn(rows[i].what, " "), rows[i].backward, sums, &made);
    qsort(sums, (size_t)made, sizeof *sums, longest_first);
    return made;
}

/* --- The roofline ---------------------------------------------------------------------------------------------------
 */

/* Square matrices grow until one run takes long enough to be read, or they are as large as a GPU wants them. */
enum { TIMES = 5, LEAST_SIDE = 256, MOST_SIDE = 8192 };
static const double LONG_ENOUGH = 5e-3;

struct probe {
    struct draft_tensor *x, weight; /* the weight as a model's: on the host, frozen */
};

static void multiply(struct draft_graph *g, struct probe *probe)
{
    draft_linear(g, probe->x, &probe->weight, NULL, NULL);
}

static void copy(struct draft_graph *g, struct probe *probe)
{
    draft_axpby(g, 1, probe->x, 0, NULL);
}

/* Seconds of the fastest of a few runs; the first, which prepares, does not count. */
static bool fastest(struct draft_graph *g, void (*run)(struct draft_graph *g, struct probe *probe), struct probe *probe,
                    double *best)
{
    struct draft_mark mark = draft_graph_mark(g);
    *best = 0;
    for (int i = 0; i <= TIMES && draft_graph_ok(g); i++) {
        double seconds = 0;
        bool timed = draft_backend_mark(g->backend, 0, &g->error);
        run(g, probe);
        timed = timed && draft_graph_ok(g) && draft_backend_mark(g->backend, 1, &g->error) &&
                draft_backend_between(g->backend, 0, 1, &seconds, &g->error);
        if (timed && i > 0 && (*best == 0 || seconds < *best))
            *best = seconds;
        draft_graph_release(g, mark);
    }
    return draft_graph_ok(g) && *best > 0;
}

static void pattern(float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(i * 7919 % 1021) / 1021 - 0.5f;
}

static bool prepare(struct draft_graph *g, int64_t side, struct probe *probe)
{
    int64_t n = side * side;
    probe->weight = (struct draft_tensor){.dtype = DRAFT_F32, .rank = 2, .dim = {side, side}, .name = "roofline"};
    probe->weight.data = malloc((size_t)n * sizeof(float));
    probe->x = draft_new(g, DRAFT_F32, 2, probe->weight.dim);
    float *values = draft_write(g, probe->x);
    if (values == NULL || probe->weight.data == NULL)
        return draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "no memory to measure the machine");
    pattern(values, n);
    pattern(probe->weight.data, n);
    return draft_written(g, probe->x, values);
}

/* *seconds of one run on matrices of *side. */
static bool reach(struct draft_graph *g, void (*run)(struct draft_graph *g, struct probe *probe), bool product,
                  int64_t *side, double *seconds)
{
    struct draft_mark mark = draft_graph_mark(g);
    bool ok = true;
    for (*side = LEAST_SIDE; ok; *side *= 2) {
        struct probe probe;
        ok = prepare(g, *side, &probe);
        if (ok && product)
            probe.x = draft_convert(g, probe.x, g->activations);
        ok = ok && probe.x != NULL && fastest(g, run, &probe, seconds);
        draft_backend_forget(g->backend, &probe.weight);
        free(probe.weight.data);
        draft_graph_release(g, mark);
        if (!ok || *seconds >= LONG_ENOUGH || *side == MOST_SIDE)
            break;
    }
    return ok;
}

enum { FEW = 32 };

static void copy_often(struct draft_graph *g, struct probe *probe)
{
    for (int i = 0; i < FEW; i++)
        draft_axpby(g, 1, probe->x, 0, NULL);
}

/* Seconds of a launch of next to nothing; 0: nothing is launched. */
static bool reach_launches(struct draft_graph *g, double *seconds)
{
    struct draft_mark mark = draft_graph_mark(g);
    struct probe probe;
    uint64_t before = draft_backend_launches(g->backend);
    bool ok = prepare(g, 1, &probe) && fastest(g, copy_often, &probe, seconds);
    bool launched = draft_backend_launches(g->backend) > before;
    *seconds = ok && launched ? *seconds / FEW : 0;
    free(probe.weight.data);
    draft_graph_release(g, mark);
    return ok;
}

bool draft_profile_roofline(struct draft_graph *g, struct draft_roofline *out)
{
    struct draft_profile *asked = g->profile;
    bool was = draft_no_grad(g);
    int64_t factor, copied;
    double product, moved, launch;
    g->profile = NULL;
    bool ok = reach(g, copy, false, &copied, &moved) && reach(g, multiply, true, &factor, &product) &&
              reach_launches(g, &launch);
    g->recording = was;
    g->profile = asked;
    if (ok)
        *out = (struct draft_roofline){.flops = 2 * (double)factor * (double)factor * (double)factor / product,
                                       .bytes = 2 * (double)copied * (double)copied * sizeof(float) / moved,
                                       .launch = launch};
    return ok;
}

enum draft_profile_bound draft_profile_bound(const struct draft_roofline *reached, const struct draft_profile_row *row,
                                             double *share)
{
    const double least[] = {[DRAFT_BOUND_FLOPS] = row->flops / reached->flops,
                            [DRAFT_BOUND_BYTES] = row->bytes / reached->bytes,
                            [DRAFT_BOUND_LAUNCHES] = (double)row->launches * reached->launch};
    enum draft_profile_bound bound = DRAFT_BOUND_FLOPS;
    for (enum draft_profile_bound i = DRAFT_BOUND_BYTES; i <= DRAFT_BOUND_LAUNCHES; i++)
        bound = least[i] > least[bound] ? i : bound;
    *share = row->seconds > 0 ? least[bound] / row->seconds : 0;
    return *share < 0.1 ? DRAFT_BOUND_NOTHING : bound;
}

const char *draft_profile_bound_name(enum draft_profile_bound bound)
{
    static const char *const name[] = {"nothing", "FLOPs", "bytes", "launches"};
    return name[bound];
}
