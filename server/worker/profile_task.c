/*
 * draft-engine profile: one job's steps with every op timed, without a daemon: a JobSpec in protobuf on stdin, a JSON
 * object on stdout, whose keys client/profile.c reads. Started by `draft bench --profile`.
 */
#include <jansson.h>
#include <stdio.h>

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

/* One step warms up, then `steps` are timed. */
static json_t *profile(struct draft_engine *engine, int64_t steps, struct draft_error *err)
{
    struct draft_report warm;
    return draft_engine_step(engine, &warm, err) ? draft_engine_profile(engine, steps, 0, err) : NULL;
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
