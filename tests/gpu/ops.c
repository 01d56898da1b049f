/*
 * Every op on a device beside the CPU backend: outputs and all gradients, frozen and trained weights, a second run to
 * the same bits. Unlike the ops' own tests it moves values by the backend's functions alone, so it runs on a real GPU,
 * and at the sizes of full models.
 *
 *   gpu_check ops --device NAME [--precision fp32|bf16] [--large] [--after OP] [--spoil OP] [--threads N]
 *
 * Says what it does in the lines that gpu_run reads (runner.h); --after goes on behind an op that ended the process,
 * --spoil changes one op's result, to see that this is seen. Exit status: 0 all within their bounds, else 1.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/open.h"
#include "op_cases.h"

static const double FP32_BOUND = 1e-5, BF16_BOUND = 2e-2;
static const size_t ARENA_BYTES = (size_t)32 << 30; /* address space */

static const char *const ops[] = {
#define DRAFT_OP(name) #name,
#include "ops/ops.def"
#undef DRAFT_OP
};

struct machine {
    struct draft_backend *backend;
    struct draft_arena *step;
    struct draft_graph g;
};

/* What a run gave: [0] the output, then the inputs' gradients. malloc'd; NULL: none. */
struct results {
    float *values[1 + OP_INPUTS];
    int64_t count[1 + OP_INPUTS];
};

struct options {
    const char *device, *after, *spoil;
    bool bf16, large;
    int threads;
};

static bool machine_open(struct machine *m, const char *device, const struct options *options, struct draft_error *err)
{
    const struct draft_backend_options how = {.threads = options->threads};
    m->backend = draft_backend_open(device, getenv("DRAFT_CUDA_LIBRARIES"), &how, &draft_services, err);
    m->step = m->backend ? draft_backend_arena(m->backend, "step", ARENA_BYTES, err) : NULL;
    return m->step && draft_graph_init(&m->g, m->backend, m->step, err);
}

static void machine_close(struct machine *m)
{
    if (m->g.tape)
        draft_graph_finish(&m->g);
    draft_arena_destroy(m->step);
    draft_backend_destroy(m->backend);
}

/* --- One run --------------------------------------------------------------------------------------------------------
 */

/* The same numbers on every backend: splitmix64 of the place. */
static void fill(float *to, int64_t n, uint64_t seed, float scale, float shift)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = (seed << 40) + (uint64_t)i * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        to[i] = shift + scale * ((float)((z ^ z >> 31) >> 40) / (1 << 23) - 1);
    }
}

static struct draft_tensor *on_device(struct draft_graph *g, const struct op_input *in, uint64_t seed)
{
    struct draft_tensor *x = draft_new(g, DRAFT_F32, in->rank, in->dim);
    float *values = draft_write(g, x);
    if (!values)
        return NULL;
    fill(values, draft_tensor_count(x), seed, in->scale != 0 ? in->scale : 1, in->shift);
    x->needs_grad = in->kind != OP_GIVEN;
    return draft_written(g, x, values) ? x : NULL;
}

/* As a model's frozen weights are: on the host, for each backend to make its own form of. */
static void on_host(struct draft_tensor *w, const struct op_input *in, uint64_t seed)
{
    *w = (struct draft_tensor){.dtype = DRAFT_F32, .rank = in->rank, .name = "weight"};
    memcpy(w->dim, in->dim, sizeof w->dim);
    w->data = malloc((size_t)draft_tensor_count(w) * sizeof(float));
    if (!w->data)
        abort();
    fill(w->data, draft_tensor_count(w), seed, in->scale != 0 ? in->scale : 1, in->shift);
}

static float *copied(const float *from, int64_t n)
{
    float *to = from ? malloc((size_t)n * sizeof *to + 1) : NULL;
    return to ? memcpy(to, from, (size_t)n * sizeof *to) : NULL;
}

static bool take(struct machine *m, struct draft_tensor *const *in, struct draft_tensor *y, struct results *r)
{
    struct draft_graph *g = &m->g;
    r->count[0] = draft_tensor_count(y);
    r->values[0] = copied(draft_read(g, y), r->count[0]);
    if (!y->needs_grad)
        return draft_graph_ok(g);
    float *seed = malloc((size_t)r->count[0] * sizeof *seed);
    if (!seed)
        abort();
    fill(seed, r->count[0], 99, 1, 0);
    bool ok = draft_graph_backward(g, y, seed);
    free(seed);
    for (int i = 0; ok && i < OP_INPUTS; i++) {
        if (!in[i] || !in[i]->needs_grad)
            continue;
        int64_t n = draft_tensor_count(in[i]);
        r->count[1 + i] = n;
        r->values[1 + i] = calloc((size_t)n + 1, sizeof(float)); /* no gradient: zero */
        ok = r->values[1 + i] &&
             (!in[i]->grad_written ||
              draft_backend_download(m->backend, r->values[1 + i], in[i]->grad, (size_t)n * sizeof(float), &g->error));
    }
    return ok;
}

static bool run(struct machine *m, const struct op_call *call, bool trained, bool bf16, struct results *r)
{
    struct draft_tensor *in[OP_INPUTS] = {0}, *given[OP_INPUTS] = {0}, weight[OP_INPUTS];
    struct draft_graph *g = &m->g;
    *r = (struct results){0};
    draft_graph_reset(g, NULL);
    for (int i = 0; i < OP_INPUTS; i++) {
        const struct op_input *wanted = &call->in[i];
        bool activation = wanted->kind == OP_ACTIVATION || wanted->kind == OP_GIVEN;
        if (wanted->kind == OP_ABSENT)
            continue;
        if (wanted->kind == OP_FROZEN || (wanted->kind == OP_WEIGHT && !trained))
            on_host(in[i] = &weight[i], wanted, (uint64_t)i + 1);
        else if (!(in[i] = on_device(g, wanted, (uint64_t)i + 1)))
            break;
        given[i] = bf16 && activation ? draft_convert(g, in[i], DRAFT_BF16) : in[i];
    }
    struct draft_tensor *y = draft_graph_ok(g) ? call->run(g, given, call->context) : NULL;
    if (y && y->dtype != DRAFT_F32)
        y = draft_convert(g, y, DRAFT_F32);
    bool ok = y && take(m, in, y, r);
    for (int i = 0; i < OP_INPUTS; i++)
        if (in[i] == &weight[i]) {
            draft_backend_forget(m->backend, in[i]);
            free(weight[i].data);
        }
    return ok;
}

static void forget(struct results *r)
{
    for (int i = 0; i <= OP_INPUTS; i++)
        free(r->values[i]);
}

/* --- Comparing ------------------------------------------------------------------------------------------------------
 */

static double apart(const float *a, const float *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

struct worst {
    double forward, gradient;
    char why[256]; /* "": nothing is wrong */
};

static void compare(const struct op_call *call, const struct results *ours, const struct results *again,
                    const struct results *cpu, double bound, struct worst *worst)
{
    for (int i = 0; i <= OP_INPUTS; i++) {
        if (!cpu->values[i] && !ours->values[i])
            continue;
        double error = ours->values[i] && cpu->values[i] ? apart(ours->values[i], cpu->values[i], cpu->count[i]) : NAN;
        double *most = i == 0 ? &worst->forward : &worst->gradient;
        if (!(error <= *most))
            *most = error;
        bool same = ours->values[i] && again->values[i] &&
                    memcmp(ours->values[i], again->values[i], (size_t)cpu->count[i] * sizeof(float)) == 0;
        if (worst->why[0] || (error <= bound && same))
            continue;
        char of[32] = "the output";
        if (i > 0)
            snprintf(of, sizeof of, "gradient %d", i - 1);
        if (error <= bound)
            snprintf(worst->why, sizeof worst->why, "%s: %s of a second run has other bits", call->what, of);
        else
            snprintf(worst->why, sizeof worst->why, "%s: %s is %.2e off the CPU's, bound %.0e", call->what, of, error,
                     bound);
    }
}

static bool check_call(struct machine *cpu, struct machine *device, const struct op_call *call, bool trained,
                       const struct options *options, struct worst *worst)
{
    struct results ours, again, reference;
    double bound = options->bf16 ? BF16_BOUND : call->bound > 0 ? call->bound : FP32_BOUND;
    bool ok = run(device, call, trained, options->bf16, &ours);
    ok = run(device, call, trained, options->bf16, &again) && ok;
    ok = run(cpu, call, trained, false, &reference) && ok;
    if (ok && options->spoil && !strcmp(options->spoil, call->op))
        ours.values[0][0] += 1;
    if (ok)
        compare(call, &ours, &again, &reference, bound, worst);
    else if (!worst->why[0])
        snprintf(worst->why, sizeof worst->why, "%s: %.200s", call->what,
                 draft_graph_ok(&device->g) ? cpu->g.error.message : device->g.error.message);
    forget(&ours);
    forget(&again);
    forget(&reference);
    return ok;
}

static bool has_weights(const struct op_call *call)
{
    for (int i = 0; i < OP_INPUTS; i++)
        if (call->in[i].kind == OP_WEIGHT)
            return true;
    return false;
}

/* False: it is past its bound, or was not compared at all. */
static bool check_op(struct machine *cpu, struct machine *device, const char *op, const struct options *options)
{
    struct worst worst = {0};
    int compared = 0;
    printf("@ %s begins\n", op);
    fflush(stdout);
    for (int i = 0; i < op_call_count; i++) {
        const struct op_call *call = &op_calls[i];
        if (strcmp(call->op, op) != 0 || call->large != options->large || (call->fp32_only && options->bf16))
            continue;
        check_call(cpu, device, call, false, options, &worst);
        if (has_weights(call) && !options->large && !options->bf16)
            check_call(cpu, device, call, true, options, &worst);
        compared++;
    }
    if (compared == 0 && !options->large && !options->bf16)
        snprintf(worst.why, sizeof worst.why, "nothing calls it: add a line to tests/gpu/op_cases.c");
    if (worst.why[0])
        printf("@ %s failed %s\n", op, worst.why);
    else if (compared > 0)
        printf("@ %s passed output %.1e, gradients %.1e\n", op, worst.forward, worst.gradient);
    else
        printf("@ %s skipped no such call\n", op);
    fflush(stdout);
    return !worst.why[0];
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {{"device", required_argument, NULL, 'd'},
                                            {"precision", required_argument, NULL, 'p'},
                                            {"large", no_argument, NULL, 'l'},
                                            {"after", required_argument, NULL, 'a'},
                                            {"spoil", required_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'd')
            o->device = optarg;
        else if (c == 'p')
            o->bf16 = strcmp(optarg, "bf16") == 0;
        else if (c == 'l')
            o->large = true;
        else if (c == 'a')
            o->after = optarg;
        else if (c == 's')
            o->spoil = optarg;
        else if (c == 't')
            o->threads = atoi(optarg);
        else
            return false;
    }
    return optind == argc && o->device;
}

int main(int argc, char **argv)
{
    struct options options = {.device = NULL};
    struct machine cpu = {0}, device = {0};
    struct draft_error err = {0};
    bool good = true, begun;
    if (!parse(argc, argv, &options)) {
        fprintf(stderr,
                "usage: gpu_check ops --device NAME [--precision fp32|bf16] [--large] [--after OP] [--spoil OP]\n");
        return 2;
    }
    begun = options.after == NULL;
    if (!machine_open(&device, options.device, &options, &err) || !machine_open(&cpu, "cpu", &options, &err)) {
        fprintf(stderr, "gpu_check ops: %s\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (begun)
            good = check_op(&cpu, &device, ops[i], &options) && good;
        begun = begun || strcmp(ops[i], options.after) == 0;
    }
    machine_close(&cpu);
    machine_close(&device);
    return good ? 0 : 1;
}
