#include "bench.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "interrupt.h"
#include "live.h"
#include "request_id.h"
#include "series.h"

/* --- The place ---------------------------------------------------------------------------------------------------- */

static const char prompts[] = "a photo of a lighthouse at night\nan oil painting of a fox in the snow\n"
                              "a bowl of fruit on a wooden table\na steam train crossing a bridge\n";

const char *draft_bench_prompts(const struct draft_bench *bench, char path[128])
{
    snprintf(path, 128, "%s/prompts.txt", bench->folder);
    return path;
}

bool draft_bench_place(struct draft_bench *bench, struct draft_status *st)
{
    char path[128];
    struct draft_error err = {0};
    snprintf(bench->folder, sizeof bench->folder, "/tmp/draft-bench-XXXXXX");
    if (!mkdtemp(bench->folder)) {
        bench->folder[0] = 0;
        return draft_status_fail(st, DRAFT_STATUS_INTERNAL, "cannot make a folder in /tmp: %s", strerror(errno));
    }
    return draft_atomic_write_file(draft_bench_prompts(bench, path), prompts, sizeof prompts - 1, &err) ||
           draft_status_take(st, &err);
}

bool draft_bench_open(struct draft_bench *bench, bool own, struct draft_status *st)
{
    char state[128], log[128];
    if (!draft_bench_place(bench, st))
        return false;
    if (!own) {
        bench->rpc = draft_connect(bench->cx);
        return true;
    }
    snprintf(state, sizeof state, "%s/state", bench->folder);
    snprintf(log, sizeof log, "%s/draftd.log", bench->folder);
    bench->own = draft_private_daemon_start(&bench->daemon, state, NULL, log, &bench->rpc, st);
    return bench->own;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

/* --- The job ------------------------------------------------------------------------------------------------------ */

struct following {
    struct draft_live *live;
    int64_t preparing_us, running_us; /* when it began to load, and to train; 0: not seen */
    int64_t calls;                    /* of the network in one step's sampling; 0: not seen */
    char device[64];                  /* that it ran on */
};

static bool update(void *context, const draft_job *job, const Draftd__V1__JobEvent *event)
{
    struct following *f = context;
    const Draftd__V1__Progress *p = job->progress;
    if (*job->device)
        snprintf(f->device, sizeof f->device, "%s", job->device);
    if (event && !f->preparing_us && job->state == DRAFTD__V1__JOB__STATE__STATE_PREPARING)
        f->preparing_us = event->time_us;
    if (event && !f->running_us && job->state == DRAFTD__V1__JOB__STATE__STATE_RUNNING)
        f->running_us = event->time_us;
    if (p && p->phase_total > 0 && !strcmp(p->phase, "sampling"))
        f->calls = p->phase_total;
    return draft_live_update(f->live, job, event);
}

static void tick(void *context)
{
    draft_live_tick(((struct following *)context)->live);
}

static void connection(void *context, bool lost)
{
    draft_live_connection(((struct following *)context)->live, lost);
}

/* A job that was asked for may be there although its reply was not awaited: the same request id finds it. */
static bool submit(struct draft_bench *bench, const Draftd__V1__JobSpec *spec, struct draft_status *st)
{
    char request_id[DRAFT_REQUEST_ID_BYTES];
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    draft_request_id(request_id);
    request.spec = (Draftd__V1__JobSpec *)(uintptr_t)spec;
    request.request_id = request_id;
    Draftd__V1__CreateJobResponse *reply = draft_create_job(bench->rpc, &request, &bench->cx->err, st);
    if (!reply && draft_interrupted() && !bench->own) {
        struct draft_status again = {0};
        draft_interrupt_clear();
        bench->interrupted = true;
        reply = draft_rpc_create_job(bench->rpc, &request, &again);
    }
    if (!reply)
        return false;
    draft_job_id(reply->job->id, bench->id);
    for (size_t i = 0; i < reply->job->n_warnings; i++)
        fprintf(bench->cx->err.out, "warning: %s\n", reply->job->warnings[i]);
    draft_free_message(reply);
    return st->code == DRAFT_STATUS_OK;
}

/* Over the points after the first step; NaN when there are none. */
static double mean(const struct draft_series_set *set, const char *name)
{
    const struct draft_series *series = draft_series_find(set, name);
    double sum = 0;
    int count = 0;
    for (size_t i = 0; series && i < series->count; i++) {
        if (series->steps[i] <= 1 || isnan(series->values[i]))
            continue;
        sum += series->values[i];
        count++;
    }
    return count > 0 ? sum / count : NAN;
}

/* Wall time between one step's report and the next, which is what a job of many steps takes for each. */
static double between_steps(const struct draft_series *series)
{
    if (!series || series->count < 2)
        return NAN;
    size_t last = series->count - 1;
    return (double)(series->times_us[last] - series->times_us[0]) * 1e-6 / (double)last;
}

/* A job that was over before it was seen to run was on the CPU: no GPU's opens so fast. */
static bool where(struct draft_bench *bench, const char *device, const Draftd__V1__JobSpec *spec,
                  struct draft_bench_numbers *n, struct draft_status *st)
{
    Draftd__V1__GetServerInfoRequest request = DRAFTD__V1__GET_SERVER_INFO_REQUEST__INIT;
    Draftd__V1__GetServerInfoResponse *info = draft_rpc_get_server_info(bench->rpc, &request, st);
    snprintf(n->device, sizeof n->device, "%s", *device ? device : "cpu");
    for (size_t i = 0; info && i < info->n_devices; i++)
        if (!strcmp(info->devices[i]->name, n->device))
            snprintf(n->description, sizeof n->description, "%s", info->devices[i]->description);
    draft_free_message(info);
    if (*spec->precision && strcmp(spec->precision, "auto") != 0)
        n->precision = spec->precision;
    else
        n->precision = strcmp(n->device, "cpu") == 0 ? "fp32" : "bf16";
    return info != NULL;
}

static bool measure(struct draft_bench *bench, const draft_job *job, const struct following *f,
                    struct draft_bench_numbers *n, struct draft_status *st)
{
    const Draftd__V1__JobSpec *spec = job->spec;
    struct draft_series_set set;
    if (!draft_series_fetch(bench->rpc, bench->id, NULL, 0, 0, 10000, &set, st))
        return false;
    const struct draft_series *loss = draft_series_find(&set, "loss");
    int batch = spec->length->global_batch, micro = spec->length->micro_batch;
    int T = spec->sampling->steps, K = spec->sampling->truncation_steps ? spec->sampling->truncation_steps : 1;
    int64_t parts = (batch + micro - 1) / micro, calls = f->calls ? f->calls / parts : T;
    n->steps = (int)spec->length->steps - 1;
    n->sample = mean(&set, "seconds/sample");
    n->forward = mean(&set, "seconds/forward");
    n->backward = mean(&set, "seconds/backward");
    n->optimizer = mean(&set, "seconds/optimizer");
    n->step = between_steps(loss);
    n->opening = f->preparing_us && f->running_us ? (double)(f->running_us - f->preparing_us) * 1e-6 : NAN;
    n->first_step = loss && loss->count && f->running_us ? (double)(loss->times_us[0] - f->running_us) * 1e-6 : NAN;
    n->it_per_second = calls > K && K < T ? (double)((calls - K) * batch) / n->sample : NAN;
    n->samples_per_second = batch / n->step;
    n->peak_bytes = draft_series_last(draft_series_find(&set, "memory/peak_bytes"));
    n->estimated_bytes = job->memory_bytes ? (double)job->memory_bytes : NAN;
    draft_series_clear(&set);

    return where(bench, f->device, spec, n, st);
}

bool draft_bench_run(struct draft_bench *bench, const Draftd__V1__JobSpec *spec, draft_job **job,
                     struct draft_bench_numbers *numbers, struct draft_status *st)
{
    *numbers = (struct draft_bench_numbers){.steps = 0};
    if (!submit(bench, spec, st))
        return false;
    struct following f = {.live = draft_live_create(&bench->cx->err, bench->rpc, bench->id)};
    struct draft_follow follow = {
        .context = &f, .update = update, .tick = tick, .connection = connection, .patience_seconds = 15};
    *job = draft_follow_job(bench->rpc, bench->id, &follow, st);
    draft_live_close(f.live, false);
    if (!*job)
        return false;
    if ((*job)->state != DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED)
        return draft_status_fail(st, DRAFT_STATUS_INTERNAL, "the bench job %s: %s", draft_state_name((*job)->state),
                                 (*job)->reason);
    return measure(bench, *job, &f, numbers, st);
}

/* --- Nothing stays ------------------------------------------------------------------------------------------------ */

static void end_job(struct draft_bench *bench)
{
    enum { WAIT_SECONDS = 60 };
    struct draft_status st = {0};
    Draftd__V1__CancelJobRequest cancel = DRAFTD__V1__CANCEL_JOB_REQUEST__INIT;
    Draftd__V1__DeleteJobRequest delete = DRAFTD__V1__DELETE_JOB_REQUEST__INIT;
    cancel.job_id = delete.job_id = bench->id;
    bool ended = false;
    draft_free_message(draft_rpc_cancel_job(bench->rpc, &cancel, &st)); /* refused when it has ended: fine */
    for (int i = 0; !ended && i < 10 * WAIT_SECONDS; i++) {
        struct draft_status now = {0};
        draft_job *job = draft_get_job(bench->rpc, bench->id, &now);
        ended = !job || draft_state_ended(job->state);
        draft_free_message(job);
        if (!ended)
            usleep(100000);
    }
    st = (struct draft_status){0};
    Google__Protobuf__Empty *reply = draft_rpc_delete_job(bench->rpc, &delete, &st);
    if (!reply)
        fprintf(bench->cx->err.out, "draft: %s could not be removed: %s\n", bench->id, st.message);
    draft_free_message(reply);
}

void draft_bench_close(struct draft_bench *bench)
{
    draft_interrupt_clear(); /* the calls below are to be made */
    if (*bench->id && !bench->own)
        end_job(bench);
    if (bench->own)
        draft_rpc_close(bench->rpc);
    draft_private_daemon_stop(&bench->daemon);
    if (*bench->folder)
        nftw(bench->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    *bench = (struct draft_bench){.cx = bench->cx};
}
