#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "demo.h"
#include "interrupt.h"
#include "json_message.h"
#include "profile.h"
#include "profile_page.h"
#include "spec.h"

static const struct draft_option own_options[] = {
    {.name = "json", .value = DRAFT_VALUE_STRING, .metavar = "FILE", .help = "the numbers as JSON, too"},
    {.name = "server",
     .help = "on the daemon that runs (see --socket), as one of its jobs, instead of on a draftd of its own"},
    {.name = "profile",
     .help = "where the time goes, phase by phase and op by op, and what bounds each on this machine"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {own_options, draft_spec_options, NULL};

enum { WARM = 1, STEPS = 2, SAMPLING_STEPS = 10, PROFILE_ROWS = 40 };

static char *copy(const char *text)
{
    char *out = strdup(text);
    if (!out)
        abort();
    return out;
}

/* A field of the spec that the command line left alone, or at 0, which asks for the default. */
static void set_default(Draftd__V1__JobSpec *spec, const struct draft_arguments *arguments, const char *flag,
                        const char *path, int value)
{
    json_t *number = json_integer(value);
    if (!flag || draft_arguments_int(arguments, flag, 0) == 0)
        draft_message_set(&spec->base, path, number, NULL); /* cannot fail: an integer of an integer field */
    json_decref(number);
}

/* Without --reward: the demo's own for the demo, else one that needs no weights. */
static void default_reward(Draftd__V1__JobSpec *spec, const char *demo)
{
    spec->rewards = calloc(1, sizeof *spec->rewards);
    if (!spec->rewards)
        abort();
    spec->n_rewards = 1;
    spec->rewards[0] = (Draftd__V1__Reward *)draft_message_new(&draftd__v1__reward__descriptor);
    if (*demo) {
        char path[4096];
        snprintf(path, sizeof path, "%s/emoji-clip", demo);
        spec->rewards[0]->kind = copy("clip");
        spec->rewards[0]->path = copy(path);
    } else {
        spec->rewards[0]->kind = copy("jpeg");
        spec->rewards[0]->options = copy("mode=compressibility");
    }
}

/* The user's settings over a short job's: few steps, one picture, no evaluation, no checkpoint but the last. */
static bool make_spec(struct draft_bench *bench, const struct draft_arguments *arguments, Draftd__V1__JobSpec *spec,
                      struct draft_status *st)
{
    struct draft_error err = {0};
    char demo[4000] = "", path[4096];
    const char *model = arguments->operand_count ? arguments->operands[0] : NULL;
    int64_t steps = draft_arguments_int(arguments, "steps", STEPS);
    if (draft_arguments_has(arguments, "epochs") || steps < 1 || steps > 1000)
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                 "a bench has --steps, from 1 to 1000 measured ones, and no --epochs");
    if (model && draft_arguments_has(arguments, "model"))
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "the model is named twice: as %s and by --model",
                                 model);
    if (!model && !draft_arguments_has(arguments, "model")) {
        if (!draft_demo_model(NULL, demo, sizeof demo, st))
            return false;
        snprintf(path, sizeof path, "%s/emoji-sd", demo);
        model = path;
    }
    if (model)
        spec->model = copy(model);
    if (!draft_arguments_has(arguments, "dataset"))
        spec->dataset = copy(draft_bench_prompts(bench, (char[128]){0}));
    if (!draft_spec_from_arguments(spec, arguments, &err))
        return draft_status_take(st, &err);
    if (spec->n_rewards == 0)
        default_reward(spec, demo);
    if (!*spec->display_name)
        spec->display_name = copy("bench");
    set_default(spec, NULL, NULL, "length.steps", (int)steps + WARM);
    set_default(spec, arguments, "batch", "length.global_batch", 1);
    set_default(spec, arguments, "micro-batch", "length.micro_batch", 1);
    set_default(spec, arguments, "sampling-steps", "sampling.steps", SAMPLING_STEPS);
    set_default(spec, NULL, NULL, "evaluation.every", -1);
    set_default(spec, NULL, NULL, "checkpoint_every", 1000000);
    set_default(spec, arguments, "max-retries", "max_retries", -1);
    return true;
}

static int refuse(const struct draft_bench *b, struct draft_status *st)
{
    draft_spec_name_flag(st->field, st->message, sizeof st->message);
    return draft_report(b->cx, st);
}

static int bench(struct draft_bench *b, const struct draft_arguments *arguments, Draftd__V1__JobSpec *spec)
{
    struct draft_bench_numbers numbers;
    struct draft_status st = {0};
    struct draft_error err = {0};
    draft_job *job = NULL;
    const char *json = draft_arguments_string(arguments, "json", NULL);
    bool own = !draft_arguments_has(arguments, "server") && !draft_arguments_has(arguments, "socket");
    bool good = draft_bench_open(b, own, &st) && make_spec(b, arguments, spec, &st) &&
                draft_bench_run(b, spec, &job, &numbers, &st);
    if (good) {
        draft_bench_print(&numbers, job, &b->cx->out);
        good = !json || draft_bench_write_json(&numbers, job, json, &err) || draft_status_take(&st, &err);
    }
    draft_free_message(job);
    if (draft_interrupted() || b->interrupted)
        return DRAFT_EXIT_INTERRUPTED;
    return good ? DRAFT_EXIT_OK : refuse(b, &st);
}

/* Every op timed, by a worker of our own: no daemon, whose jobs run as fast as they can. */
static int profile(struct draft_bench *b, const struct draft_arguments *arguments, Draftd__V1__JobSpec *spec)
{
    struct draft_status st = {0};
    const char *path = draft_arguments_string(arguments, "json", NULL);
    if (draft_arguments_has(arguments, "server") || draft_arguments_has(arguments, "socket"))
        draft_status_fail(&st, DRAFT_STATUS_INVALID_ARGUMENT,
                          "a profile is taken by a worker of its own; leave --server and --socket out");
    json_t *told = st.code == DRAFT_STATUS_OK && draft_bench_place(b, &st) && make_spec(b, arguments, spec, &st)
                       ? draft_profile_fetch(spec, &st)
                       : NULL;
    if (told)
        draft_profile_print(told, PROFILE_ROWS, draft_ink(&b->cx->out, DRAFT_BOLD), draft_ink(&b->cx->out, DRAFT_PLAIN),
                            b->cx->out.out);
    if (told && path && json_dump_file(told, path, JSON_INDENT(1)) != 0)
        draft_status_fail(&st, DRAFT_STATUS_INTERNAL, "%s could not be written", path);
    json_decref(told);
    if (draft_interrupted())
        return DRAFT_EXIT_INTERRUPTED;
    return st.code == DRAFT_STATUS_OK ? DRAFT_EXIT_OK : refuse(b, &st);
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    struct draft_bench b = {.cx = cx};
    Draftd__V1__JobSpec *spec = draft_spec_new();
    draft_interrupt_install();
    int code = draft_arguments_has(arguments, "profile") ? profile(&b, arguments, spec) : bench(&b, arguments, spec);
    if (code == DRAFT_EXIT_INTERRUPTED)
        fprintf(cx->err.out, "stopped; the bench job is being removed\n");
    draft_bench_close(&b);
    draft_free_message(spec);
    return code;
}

const struct draft_command draft_command_bench = {
    .name = "bench",
    .group = DRAFT_GROUP_START,
    .summary = "how fast your model trains here, and in how much memory",
    .words = "benchmark profile",
    .usage = "[MODEL] [--reward KIND:DIR] [--steps N] [job options]",
    .about =
        "Trains MODEL (default: the built-in demo model) for a few steps and says where the time went: sampling, "
        "forward, "
        "backward, optimizer; denoising steps and samples a second; the peak of the worker's memory beside the "
        "estimate "
        "that a submit makes. One step warms up and N (default 2) are measured. Every option of `draft submit` is "
        "understood, so that the job measured is the one you mean; what differs from a job's defaults: one picture a "
        "step, T = 10, no evaluation, and without --reward the jpeg one, which needs no weights and takes no time.\n\n"
        "A draftd of its own is started in a folder in /tmp and removed with everything in it; with --server or "
        "--socket the bench queues behind the jobs of that daemon, and its job is deleted afterwards, also after "
        "Ctrl-C. Times mean something on an idle machine only.\n\n"
        "--profile times every op instead, on the device's own clock, without a daemon, and puts each beside what a "
        "large product and a large copy reach here: FLOPs, bytes, launches of kernels, which of them bounds it, and "
        "where "
        "to look first. (All its rows: --json.)",
    .examples = "  draft bench\n"
                "  draft bench sd15 --reward clip:PickScore_v1\n"
                "  draft bench sd15 -T 50 --batch 4 --micro-batch 2 --steps 1    what a step of such a job takes\n"
                "  draft bench sd15 --recompute --json recompute.json\n"
                "  draft bench sd15 --device cuda:0 --profile    where the GPU's time goes\n",
    .options = tables,
    .least = 0,
    .most = 1,
    .run = run,
};
