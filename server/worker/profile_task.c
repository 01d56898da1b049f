/*
 * draft-engine profile: one job's steps with every op timed, without a daemon: a JobSpec in protobuf on stdin, a JSON
 * object on stdout, whose keys client/profile.c reads. Started by `draft bench --profile`.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiling.h"
#include "worker/spec.h"
#include "worker/work.h"

enum { MOST_BYTES = 1 << 20 };

static char *const prompts[] = {"a photo of a lighthouse at night", "an oil painting of a fox in the snow",
                                "a bowl of fruit on a wooden table", "a steam train crossing a bridge"};

static Draftd__V1__JobSpec *read_spec(struct draft_error *err)
{
    static unsigned char bytes[MOST_BYTES + 1];
    size_t size = fread(bytes, 1, sizeof bytes, stdin);
    Draftd__V1__JobSpec *spec = size <= MOST_BYTES ? draftd__v1__job_spec__unpack(NULL, size, bytes) : NULL;
    if (!spec)
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "the job on standard input is not a JobSpec of at most 1 MiB");
    return spec;
}

/* The means of the timed steps' "seconds/...". */
static json_t *phases_of(const struct draft_report *sum, int64_t steps)
{
    json_t *phases = json_object();
    for (int i = 0; i < sum->count; i++)
        if (strncmp(sum->metric[i].name, "seconds/", 8) == 0)
            json_object_set_new(phases, sum->metric[i].name + 8, json_real(sum->metric[i].value / (double)steps));
    return phases;
}

static json_t *rows_of(const struct draft_profile_row *rows, int count, int64_t steps)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        double n = (double)steps;
        json_array_append_new(list, json_pack("{ss ss sb sf sf sf sf sf}", "phase", rows[i].phase, "op", rows[i].what,
                                              "backward", rows[i].backward, "calls", (double)rows[i].calls / n,
                                              "launches", (double)rows[i].launches / n, "seconds", rows[i].seconds / n,
                                              "flops", rows[i].flops / n, "bytes", rows[i].bytes / n));
    }
    return list;
}

static bool train(struct draft_engine *engine, int64_t steps, struct draft_report *sum, struct draft_error *err)
{
    *sum = (struct draft_report){0};
    for (int64_t i = 0; i < steps; i++) {
        struct draft_report report;
        if (!draft_engine_step(engine, &report, err))
            return false;
        sum->seconds += report.seconds;
        sum->count = report.count;
        for (int k = 0; k < report.count; k++) {
            memcpy(sum->metric[k].name, report.metric[k].name, sizeof sum->metric[k].name);
            sum->metric[k].value += report.metric[k].value;
        }
    }
    return true;
}

/* One step warms up, then `steps` are timed. */
static json_t *profile(struct draft_engine *engine, int64_t steps, struct draft_error *err)
{
    struct draft_report report;
    struct draft_roofline reached;
    const struct draft_profile_row *rows;
    int count;
    if (!train(engine, 1, &report, err) || !draft_engine_roofline(engine, &reached, err) ||
        !draft_engine_profile(engine, err) || !train(engine, steps, &report, err) ||
        !draft_engine_profile_rows(engine, &rows, &count, err))
        return NULL;
    return json_pack("{sf sf sI ss sf so so}", "flops_per_second", reached.flops, "bytes_per_second", reached.bytes,
                     "steps", (json_int_t)steps, "precision",
                     draft_engine_config(engine)->precision == DRAFT_PRECISION_BF16 ? "bf16" : "fp32", "step_seconds",
                     report.seconds / (double)steps, "phases", phases_of(&report, steps), "rows",
                     rows_of(rows, count, steps));
}

int draftd_profile(void)
{
    struct draft_error err = {0};
    struct draft_job_config config;
    Draftd__V1__JobSpec *spec = read_spec(&err);
    bool ok = spec && draftd_spec_to_config(spec, prompts, sizeof prompts / sizeof *prompts, &config, &err);
    struct draft_engine *engine = ok ? draft_engine_open(&config, NULL, &err) : NULL;
    int64_t steps = engine ? draft_engine_total_steps(engine) - 1 : 0;
    json_t *told = engine ? profile(engine, steps > 0 ? steps : 1, &err) : NULL;
    if (told)
        json_dumpf(told, stdout, JSON_COMPACT);
    else
        fprintf(stderr, "%s\n", err.message);
    bool good = told && fflush(stdout) == 0;
    json_decref(told);
    draft_engine_close(engine);
    if (spec)
        draftd__v1__job_spec__free_unpacked(spec, NULL);
    return good ? 0 : 1;
}
