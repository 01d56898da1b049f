/*
 * What a job on a device must keep to, shown on the built-in demo model; run from the top of the tree.
 *
 *   gpu_check job device  --device NAME  says which GPU it is; moves numbers there and back, multiplies some
 *   gpu_check job same    --device NAME  two runs give the same checkpoint, to the bit
 *   gpu_check job resume  --device NAME  stopped half-way and gone on from the checkpoint: the same, to the bit
 *   gpu_check job eager   --device NAME  with CUDA graphs and without (DRAFT_CUDA_EAGER=1): the same, to the bit
 *   gpu_check job rewards --device NAME  with each reward the steps that the CPU takes, within a hundredth
 *   gpu_check job flat    --device NAME  memory after --steps steps is what it was after a few
 *   gpu_check job full    --device NAME  on a GPU that others fill, a job fails clearly, and the next one runs
 *   gpu_check job refused --device NAME  a job that a GPU of 8 GiB cannot hold is refused, with what would fit
 *
 *   options: --steps N (6; flat: 1000)  --T N (4)  --size PIXELS (64)  --batch N (2)  --precision fp32|bf16
 *            --reward KIND[:FOLDER] (the demo's CLIP)
 *
 * Prints one JSON line. Exit status: 0 so it is, 1 it is not, 77 there is no CUDA device.
 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/open.h"
#include "ops/ops.h"
#include "state.h"

static const char *const prompts[] = {"a lion", "a cat on a blue background", "a small pineapple", "an animal"};

struct job {
    const char *device;
    int64_t steps;
    int T, size, batch;
    const char *reward;
    enum draft_precision precision;
};

static int fail(const char *doing, const struct draft_error *err)
{
    printf("%s: %s\n", doing, err->message);
    return 1;
}

static bool config_of(const struct job *job, struct draft_job_config *config, struct draft_error *err)
{
    *config = (struct draft_job_config){.model = DEMO "/emoji-sd",
                                        .prompts = prompts,
                                        .prompt_count = sizeof prompts / sizeof *prompts,
                                        .reward_count = 1,
                                        .kl_coeff = 0.25,
                                        .sampling_steps = job->T,
                                        .guidance = 4,
                                        .height = job->size,
                                        .width = job->size,
                                        .lora_rank = 8, /* it goes along in the products of bf16 */
                                        .learning_rate = 1e-3,
                                        .global_batch = job->batch,
                                        .micro_batch = job->batch,
                                        .steps = job->steps,
                                        .seed = 3,
                                        .precision = job->precision,
                                        .device = job->device,
                                        .evaluation.every = -1};
    return draft_reward_spec_parse(job->reward, &config->reward[0], err);
}

static struct draft_engine *open_job(const struct job *job, struct draft_error *err)
{
    struct draft_job_config config;
    return config_of(job, &config, err) ? draft_engine_open(&config, NULL, err) : NULL;
}

static bool train(struct draft_engine *engine, int64_t steps, struct draft_report *report, struct draft_error *err)
{
    for (int64_t i = 0; i < steps; i++)
        if (!draft_engine_step(engine, report, err))
            return false;
    return true;
}

/* The checkpoint's checksum: trained weights, moments, step. `path` NULL: the file is not kept. */
static bool digest(struct draft_engine *engine, const char *path, char sum[40], struct draft_error *err)
{
    char own[] = "/tmp/gpu_job_XXXXXX";
    int file = path ? -1 : mkstemp(own);
    struct draft_saved saved;
    bool ok = (path || file >= 0) && draft_engine_save(engine, path ? path : own, &saved, err);
    if (ok)
        memcpy(sum, saved.checksum, sizeof saved.checksum);
    if (file >= 0) {
        close(file);
        unlink(own);
    }
    return ok;
}

/* A whole job in one go. */
static bool whole(const struct job *job, char sum[40], struct draft_error *err)
{
    struct draft_report report;
    struct draft_engine *engine = open_job(job, err);
    bool ok = engine && train(engine, job->steps, &report, err) && digest(engine, NULL, sum, err);
    draft_engine_close(engine);
    return ok;
}

static int verdict(const char *first, const char a[40], const char *second, const char b[40])
{
    bool same = strcmp(a, b) == 0;
    if (!same)
        printf("%s and %s differ: checkpoints %s and %s\n", first, second, a, b);
    printf("{\"%s\": \"%s\", \"%s\": \"%s\"}\n", first, a, second, b);
    return same ? 0 : 1;
}

/* --- The commands ---------------------------------------------------------------------------------------------------
 */

/* The device's clock in a kernel, which tells a step's phases apart, beside the driver's between two events. */
static bool clocks_agree(struct draft_graph *g)
{
    enum { TIMES = 300, NUMBERS = 1 << 16 };
    struct draft_tensor *x = draft_new(g, DRAFT_F32, 1, (int64_t[]){NUMBERS});
    struct draft_tensor *clock = draft_new(g, DRAFT_F32, 1, (int64_t[]){4}); /* two doubles: read last, passed */
    double seconds = 0, *at = draft_graph_ok(g) ? (double *)(void *)draft_f32(clock) : NULL;
    bool ok = at && draft_backend_fill(g->backend, draft_f32(x), NUMBERS, 1, &g->error) &&
              draft_backend_fill(g->backend, draft_f32(clock), 4, 0, &g->error) &&
              draft_backend_mark(g->backend, 0, &g->error) && draft_backend_lap(g->backend, at, NULL, &g->error);
    struct draft_mark mark = draft_graph_mark(g);
    for (int i = 0; ok && i < TIMES; i++) {
        ok = draft_axpby(g, 1, x, 0, NULL) != NULL;
        draft_graph_release(g, mark);
    }
    ok = ok && draft_backend_lap(g->backend, at, at + 1, &g->error) && draft_backend_mark(g->backend, 1, &g->error) &&
         draft_backend_between(g->backend, 0, 1, &seconds, &g->error);
    const double *read = ok ? (const double *)(const void *)draft_read(g, clock) : NULL;
    if (!read)
        printf("the device's clock: %s\n", g->error.message);
    else if (fabs(read[1] - seconds) > 0.1 * seconds + 2e-5)
        printf("%d copies took %.6f s by the device's clock and %.6f s between events\n", TIMES, read[1], seconds);
    else
        return true;
    return false;
}

static int device(const struct job *job)
{
    struct draft_error err = {0};
    struct draft_device list[16];
    struct draft_device_choice choice;
    int count = draft_devices(getenv("DRAFT_CUDA_LIBRARIES"), list, 16, &err);
    if (count <= 0) {
        printf("skipped: no CUDA device%s%s\n", err.message[0] ? ": " : "", err.message);
        return 77;
    }
    if (!draft_device_parse(job->device, &choice, &err))
        return fail("the device", &err);
    const struct draft_device *d = &list[choice.number < count ? choice.number : 0];
    struct draft_backend *backend =
        draft_backend_open(job->device, getenv("DRAFT_CUDA_LIBRARIES"), &(struct draft_backend_options){.threads = 1},
                           &draft_services, &err);
    struct draft_arena *step = backend ? draft_backend_arena(backend, "step", (size_t)1 << 34, &err) : NULL;
    struct draft_graph g;
    if (!step || !draft_graph_init(&g, backend, step, &err))
        return fail("opening it", &err);
    static float numbers[64 * 64];
    for (int i = 0; i < 64 * 64; i++)
        numbers[i] = i / 64 == i % 64 ? 1 : 0;
    struct draft_tensor *x = draft_new(&g, DRAFT_F32, 2, (int64_t[]){64, 64});
    float *to = draft_write(&g, x);
    if (to)
        memcpy(to, numbers, sizeof numbers);
    struct draft_tensor *y = to && draft_written(&g, x, to) ? draft_linear(&g, x, x, NULL, NULL) : NULL;
    const float *back = draft_read(&g, y);
    bool good = back && memcmp(back, numbers, sizeof numbers) == 0; /* 1 x 1 */
    if (!good)
        printf("a product of unit matrices: %s\n", back ? "is no unit matrix" : g.error.message);
    good = good && clocks_agree(&g);
    draft_graph_finish(&g);
    draft_arena_destroy(step);
    draft_backend_destroy(backend);
    char capability[16];
    snprintf(capability, sizeof capability, "%d.%d", d->major, d->minor);
    json_t *said = json_pack("{ss ss sI si}", "name", d->name, "compute_capability", capability, "memory_bytes",
                             (json_int_t)d->memory, "count", count);
    json_dumpf(said, stdout, 0);
    printf("\n");
    json_decref(said);
    return good ? 0 : 1;
}

static int same(const struct job *job)
{
    struct draft_error err = {0};
    char a[40] = "", b[40] = "";
    return whole(job, a, &err) && whole(job, b, &err) ? verdict("run", a, "again", b) : fail("a job", &err);
}

static int eager(const struct job *job)
{
    struct draft_error err = {0};
    char a[40] = "", b[40] = "";
    unsetenv("DRAFT_CUDA_EAGER");
    if (!whole(job, a, &err))
        return fail("with graphs", &err);
    setenv("DRAFT_CUDA_EAGER", "1", 1);
    return whole(job, b, &err) ? verdict("graphs", a, "eager", b) : fail("without graphs", &err);
}

static int resume(const struct job *job)
{
    struct draft_error err = {0};
    struct draft_report report;
    char a[40] = "", b[40] = "", path[] = "/tmp/gpu_job_XXXXXX";
    int file = mkstemp(path);
    if (file >= 0)
        close(file);
    int64_t half = job->steps / 2;
    struct draft_engine *engine = open_job(job, &err);
    bool ok = file >= 0 && engine && train(engine, half, &report, &err) && digest(engine, path, b, &err);
    draft_engine_close(engine);
    engine = ok ? open_job(job, &err) : NULL;
    ok = engine && draft_engine_restore(engine, path, &err) && train(engine, job->steps - half, &report, &err) &&
         digest(engine, NULL, b, &err);
    draft_engine_close(engine);
    unlink(path);
    return ok && whole(job, a, &err) ? verdict("whole", a, "resumed", b) : fail("a job", &err);
}

static double metric(const struct draft_report *report, const char *name)
{
    for (int i = 0; i < report->count; i++)
        if (strcmp(report->metric[i].name, name) == 0)
            return report->metric[i].value;
    return NAN;
}

/* Three steps, of which a GPU launches the last from a recording; *off: the largest relative difference. */
static bool as_on_the_cpu(const struct job *job, double *off, struct draft_error *err)
{
    static const char *const names[] = {"reward", "loss", "grad_norm"};
    struct job there = *job;
    there.device = "cpu";
    struct draft_engine *engine = open_job(job, err), *cpu = engine ? open_job(&there, err) : NULL;
    bool ok = cpu != NULL;
    *off = 0;
    for (int step = 0; ok && step < 3; step++) {
        struct draft_report a, b;
        ok = train(engine, 1, &a, err) && train(cpu, 1, &b, err);
        for (int i = 0; ok && i < 3; i++) {
            double ours = metric(&a, names[i]), theirs = metric(&b, names[i]);
            double relative = fabs(ours - theirs) / fmax(fabs(theirs), 0.01);
            if (!isnan(*off) && !(relative <= *off)) /* NaN stays */
                *off = relative;
        }
    }
    draft_engine_close(cpu);
    draft_engine_close(engine);
    return ok;
}

static int rewards(const struct job *job)
{
    static const char *const all[] = {"clip:" DEMO "/emoji-clip",
                                      "hps:tests/fixtures/rewards/hps",
                                      "aesthetic:tests/fixtures/rewards/aesthetic",
                                      "imagereward:tests/fixtures/rewards/imagereward",
                                      "jpeg",
                                      NULL};
    bool good = true;
    json_t *said = json_object();
    for (const char *const *reward = all; *reward; reward++) {
        struct draft_error err = {0};
        struct job own = *job;
        double off;
        own.reward = *reward;
        own.steps = 3;
        if (!as_on_the_cpu(&own, &off, &err)) {
            good = fail(*reward, &err) == 0;
            continue;
        }
        if (!(off <= 1e-2))
            printf("%s: %g off the CPU's\n", *reward, off);
        good = good && off <= 1e-2;
        json_object_set_new(said, *reward, isfinite(off) ? json_real(off) : json_null());
    }
    json_dumpf(said, stdout, JSON_REAL_PRECISION(2));
    printf("\n");
    json_decref(said);
    return good ? 0 : 1;
}

/* The engine's own counts are exact; the process's and the device's memory may settle a little. */
enum { COUNTS = 3, SETTLED_AFTER = 10, HOST_SLACK = 16 << 20 };
static void count(const struct draft_engine *engine, uint64_t counts[COUNTS])
{
    counts[0] = draft_arena_high_water(engine->step);
    counts[1] = draft_arena_live(engine->weights);
    counts[2] = draft_backend_prepared_bytes(engine->backend);
}

static int flat(const struct job *job)
{
    static const char *const name[] = {"activations", "engine", "prepared weights"};
    struct draft_error err = {0};
    struct draft_report report;
    uint64_t before[COUNTS], after[COUNTS], held = 0, most;
    struct draft_engine *engine = open_job(job, &err);
    int64_t settled = job->steps > SETTLED_AFTER ? SETTLED_AFTER : 1;
    if (!engine || !train(engine, settled, &report, &err))
        return fail("a job", &err);
    count(engine, before);
    held = draft_anonymous_memory();
    if (!train(engine, job->steps - settled, &report, &err))
        return fail("a job", &err);
    count(engine, after);
    most = draft_anonymous_memory();
    draft_engine_close(engine);
    bool good = most <= held + HOST_SLACK;
    if (!good)
        printf("the process holds %" PRIu64 " bytes after %" PRId64 " steps, %" PRIu64 " after %" PRId64 "\n", most,
               job->steps, held, settled);
    for (int i = 0; i < COUNTS; i++)
        if (before[i] != after[i]) {
            printf("%s: %" PRIu64 " bytes after %" PRId64 " steps, %" PRIu64 " after %" PRId64 "\n", name[i], after[i],
                   job->steps, before[i], settled);
            good = false;
        }
    printf("{\"steps\": %" PRId64 ", \"activation_bytes\": %" PRIu64 ", \"host_bytes_before\": %" PRIu64
           ", \"host_bytes_after\": %" PRIu64 "}\n",
           job->steps, after[0], held, most);
    return good ? 0 : 1;
}

/* --- A full GPU -----------------------------------------------------------------------------------------------------
 */

enum { MAX_BLOCKS = 4096, LEFT_BYTES = 16 << 20 };

struct hog {
    struct draft_backend *backend;
    void *block[MAX_BLOCKS];
    int count;
};

static void let_go(struct hog *hog)
{
    while (hog->count > 0)
        draft_backend_free(hog->backend, hog->block[--hog->count]);
}

/* Takes the device's memory until less than `leave` bytes are left, as another program would. */
static void take(struct hog *hog, size_t leave)
{
    for (size_t bytes = (size_t)1 << 30; bytes >= leave; bytes /= 2)
        while (hog->count < MAX_BLOCKS) {
            struct draft_error full = {0};
            void *block = draft_backend_alloc(hog->backend, bytes, &full);
            if (!block)
                break;
            hog->block[hog->count++] = block;
        }
}

static bool failed_clearly(const char *what, bool ran, const struct draft_error *err)
{
    bool good = !ran && err->code == DRAFT_OUT_OF_MEMORY;
    printf("%s%s: %s\n", what, good ? "" : " must fail for want of memory", ran ? "it ran" : err->message);
    return good;
}

/* "...; with micro_batch 1 it needs 3.2 GiB" */
static bool says_what_fits(const struct draft_error *err)
{
    bool good = strstr(err->message, "it needs") != NULL;
    if (!good)
        printf("that does not say what would fit\n");
    return good;
}

/* While others hold nearly all of it. */
static bool fails_on_a_full_gpu(const struct job *job, struct hog *hog)
{
    struct draft_error err = {0};
    char sum[40];
    take(hog, LEFT_BYTES);
    bool ran = whole(job, sum, &err);
    let_go(hog);
    return failed_clearly("a job with 16 MiB of the GPU left", ran, &err);
}

/* Others take the rest once the job has opened: its step fails, and says what would fit. */
static bool fails_in_the_middle(const struct job *job, struct hog *hog)
{
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_engine *engine = open_job(job, &err);
    if (!engine) {
        fail("a job", &err);
        return false;
    }
    take(hog, LEFT_BYTES);
    bool ran = train(engine, job->steps, &report, &err);
    let_go(hog);
    draft_engine_say_what_fits(engine, &err);
    draft_engine_close(engine);
    return failed_clearly("a job that finds the GPU full in its first step", ran, &err) && says_what_fits(&err);
}

/* As the daemon asks at submit; 8 GiB, so that the largest of GPUs shows it too. */
static int refused(const struct job *job)
{
    struct draft_error err = {0};
    struct job large = *job;
    struct draft_job_config config;
    struct draft_inspection inspection;
    large.size = 512;
    large.batch = 64;
    bool taken = config_of(&large, &config, &err);
    config.gpu_memory = UINT64_C(8) << 30;
    taken = taken && draft_inspect(&config, NULL, &inspection, &err);
    return failed_clearly("64 pictures of 512 pixels at once", taken, &err) && says_what_fits(&err) ? 0 : 1;
}

static int full(const struct job *job)
{
    static struct hog hog;
    struct draft_error err = {0};
    char before[40] = "", after[40] = "";
    hog.backend = draft_backend_open(job->device, getenv("DRAFT_CUDA_LIBRARIES"), &(struct draft_backend_options){0},
                                     &draft_services, &err);
    if (!hog.backend || !whole(job, before, &err))
        return fail("a job", &err);
    bool good = fails_on_a_full_gpu(job, &hog) && fails_in_the_middle(job, &hog);
    if (!whole(job, after, &err))
        return fail("the next job", &err);
    draft_backend_destroy(hog.backend);
    return verdict("before", before, "after", after) == 0 && good ? 0 : 1;
}

/* --- Command line ---------------------------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    int (*run)(const struct job *job);
} commands[] = {{"device", device},   {"same", same}, {"resume", resume}, {"eager", eager},
                {"rewards", rewards}, {"flat", flat}, {"full", full},     {"refused", refused}};

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"device", required_argument, NULL, 'd'},    {"steps", required_argument, NULL, 's'},
        {"T", required_argument, NULL, 'T'},         {"size", required_argument, NULL, 'S'},
        {"batch", required_argument, NULL, 'b'},     {"reward", required_argument, NULL, 'r'},
        {"precision", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
    struct job job = {.device = "cuda:0",
                      .T = 4,
                      .size = 64,
                      .batch = 2,
                      .reward = "clip:" DEMO "/emoji-clip",
                      .precision = DRAFT_PRECISION_FP32};
    bool good = true;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'd')
            job.device = optarg;
        else if (o == 's')
            job.steps = atoll(optarg);
        else if (o == 'T')
            job.T = atoi(optarg);
        else if (o == 'S')
            job.size = atoi(optarg);
        else if (o == 'b')
            job.batch = atoi(optarg);
        else if (o == 'r')
            job.reward = optarg;
        else if (o == 'p')
            job.precision = strcmp(optarg, "bf16") == 0 ? DRAFT_PRECISION_BF16 : DRAFT_PRECISION_FP32;
        else
            good = false;
    }
    for (size_t i = 0; good && argc - optind == 1 && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[optind], commands[i].name) == 0) {
            if (job.steps < 1)
                job.steps = commands[i].run == flat ? 1000 : 6;
            return commands[i].run(&job);
        }
    fprintf(stderr, "usage: gpu_check job COMMAND [--device NAME] ... (see the head of its source)\n");
    return 2;
}
