/* Probes: short-lived workers that look at the GPUs, and what their answers do to the list of devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices.h"
#include "log.h"
#include "message.h"

void draftd_devices_open(struct draftd *d)
{
    struct draftd_device *cpu = &d->devices.device[DRAFTD_CPU];
    snprintf(cpu->name, sizeof cpu->name, "cpu");
    cpu->health = DRAFTD_FIT;
    cpu->listed = true;
    cpu->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    d->devices.count = 1;
    d->devices.probing = DRAFTD_NOTHING;
    d->devices.list = true;
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

static struct draftd_device *take_gpu(struct draftd *d, const Draftd__Worker__Probed__Gpu *found)
{
    int place = found->number + 1;
    if (found->number < 0 || place >= DRAFTD_MAX_DEVICES)
        return NULL;
    for (; d->devices.count <= place; d->devices.count++)
        snprintf(d->devices.device[d->devices.count].name, sizeof d->devices.device[0].name, "cuda:%d",
                 d->devices.count - 1);
    struct draftd_device *gpu = &d->devices.device[place];
    draftd_clean_text(gpu->description, sizeof gpu->description, found->name);
    draftd_clean_text(gpu->driver, sizeof gpu->driver, found->driver);
    snprintf(gpu->capability, sizeof gpu->capability, "%d.%d", found->major, found->minor);
    gpu->memory_bytes = found->memory_bytes;
    return gpu;
}

/* Why a probe gave no answer, in one sentence. */
static void explain(struct draftd *d, const struct draftd_worker *worker, char *text, size_t size)
{
    const char *code;
    if (worker->finished && worker->result.code)
        snprintf(text, size, "%s", worker->result.message);
    else if (worker->finished)
        snprintf(text, size, "the probe gave no sound answer");
    else if (worker->killed == DRAFTD_KILLED_UNWANTED)
        snprintf(text, size, "no answer within %d s: the driver or the GPU hangs", d->probe_ms / 1000);
    else
        draftd_worker_explain(d, worker, 0, text, size, &code);
}

/* Whether any GPU is there: by this listing, or by an earlier one where this gave no answer. */
static bool any_listed(const struct draftd *d)
{
    for (int i = 1; i < d->devices.count; i++)
        if (d->devices.device[i].listed)
            return true;
    return false;
}

static void take_list(struct draftd *d, const struct draftd_worker *worker)
{
    const Draftd__Worker__Probed *probed = worker->finished && !worker->result.code ? worker->probed : NULL;
    d->devices.no_gpu[0] = '\0';
    for (int i = 1; worker->finished && i < d->devices.count; i++)
        d->devices.device[i].listed = false;
    for (size_t i = 0; probed && i < probed->n_gpus; i++) {
        int known = d->devices.count;
        struct draftd_device *gpu = take_gpu(d, probed->gpus[i]);
        if (gpu == NULL)
            continue;
        gpu->listed = true;
        if (gpu - d->devices.device >= known)
            draftd_log(DRAFTD_INFO, gpu->name, "found: %s, compute capability %s, %.1f GiB", gpu->description,
                       gpu->capability, (double)gpu->memory_bytes / (1 << 30));
    }
    if (!any_listed(d))
        explain(d, worker, d->devices.no_gpu, sizeof d->devices.no_gpu);
    if (d->devices.no_gpu[0])
        draftd_log(DRAFTD_INFO, NULL, "no GPU: %s", d->devices.no_gpu);
    bool answered = worker->finished || d->draining; /* a crash may be chance, a sentence is not */
    d->devices.list_at_ms = answered ? 0 : draftd_now_ms() + d->probe_ms;
    d->devices.listed = true;
}

static void drain(struct draftd *d, struct draftd_device *gpu, const char *reason)
{
    snprintf(gpu->reason, sizeof gpu->reason, "%.500s", reason);
    gpu->health = DRAFTD_DRAINED;
    gpu->probe_at_ms = draftd_now_ms() + d->probe_ms;
    draftd_log(DRAFTD_WARNING, gpu->name, "takes no jobs: %s", gpu->reason);
}

static void take_one(struct draftd *d, const struct draftd_worker *worker, int place)
{
    struct draftd_device *gpu = &d->devices.device[place];
    const Draftd__Worker__Probed *probed = worker->probed;
    bool works = worker->finished && !worker->result.code && probed && probed->n_gpus == 1 &&
                 probed->gpus[0]->number == place - 1;
    if (works) {
        take_gpu(d, probed->gpus[0]);
        gpu->free_bytes = probed->gpus[0]->free_bytes;
        if (gpu->reason[0])
            draftd_log(DRAFTD_INFO, gpu->name, "works again");
        gpu->reason[0] = '\0';
        gpu->health = DRAFTD_FIT;
        return;
    }
    char why[1024];
    explain(d, worker, why, sizeof why);
    drain(d, gpu, why);
}

static void ended(struct draftd *d, struct draftd_worker *worker)
{
    int place = d->devices.probing;
    d->devices.prober = NULL;
    d->devices.probing = DRAFTD_NOTHING;
    d->positions_known = false;
    if (place == DRAFTD_LISTING)
        take_list(d, worker);
    else
        take_one(d, worker, place);
    for (const struct draftd_live_job *job = d->jobs; job; job = job->next)
        if (job->state == DRAFTD__V1__JOB__STATE__STATE_QUEUED)
            draftd_tell(d, job->number, 0); /* what it waits for */
    draftd_kick(d);
}

/* --- Starting ----------------------------------------------------------------------------------------------------- */

static void start(struct draftd *d, int place)
{
    struct draft_error err = {0};
    const char *name = place == DRAFTD_LISTING ? "" : d->devices.device[place].name;
    struct draftd_worker *worker = draftd_worker_start(d, DRAFTD_TASK_PROBE, *name ? name : "devices", NULL, &err);
    d->devices.list &= place != DRAFTD_LISTING;
    if (worker == NULL) { /* no process can be made: soon again */
        draftd_log(DRAFTD_ERROR, NULL, "cannot look at the GPUs: %s", err.message);
        if (place == DRAFTD_LISTING) {
            d->devices.listed = true;
            d->devices.list_at_ms = draftd_now_ms() + d->probe_ms;
            snprintf(d->devices.no_gpu, sizeof d->devices.no_gpu, "%s", err.message);
        } else {
            drain(d, &d->devices.device[place], err.message);
        }
        return;
    }
    d->devices.prober = worker;
    d->devices.probing = place;
    worker->end = ended;
    worker->kill_at_ms = draftd_now_ms() + d->probe_ms;
    Draftd__Worker__Probe probe = DRAFTD__WORKER__PROBE__INIT;
    probe.device = (char *)name; /* packing reads it only */
    Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
    command.kind_case = DRAFTD__WORKER__COMMAND__KIND_PROBE;
    command.probe = &probe;
    draftd_worker_send(d, worker, &command);
}

void draftd_devices_check(struct draftd *d, int64_t now_ms, int64_t *next_ms)
{
    if (d->devices.prober || d->draining || d->quit)
        return;
    int64_t at = d->devices.list_at_ms;
    if (d->devices.list || (at && now_ms >= at)) {
        d->devices.list_at_ms = 0;
        start(d, DRAFTD_LISTING);
        return;
    }
    if (at && at < *next_ms)
        *next_ms = at;
    for (int i = 1; i < d->devices.count; i++) {
        struct draftd_device *gpu = &d->devices.device[i];
        if (gpu->health == DRAFTD_DRAINED && now_ms >= gpu->probe_at_ms)
            gpu->health = DRAFTD_UNPROBED;
        if (!gpu->listed)
            continue;
        if (gpu->health == DRAFTD_DRAINED && gpu->probe_at_ms < *next_ms)
            *next_ms = gpu->probe_at_ms;
        if (gpu->health == DRAFTD_UNPROBED && draftd_device_user(d, i) == NULL) {
            start(d, i);
            return;
        }
    }
}

/* --- Asked for ---------------------------------------------------------------------------------------------------- */

static bool is_asked(const struct draftd *d, int device, const char *name)
{
    return d->devices.device[device].listed && (!*name || strcmp(d->devices.device[device].name, name) == 0);
}

static bool any_pending(const struct draftd *d, const char *name)
{
    for (int i = 1; i < d->devices.count; i++)
        if (is_asked(d, i, name) && d->devices.device[i].health == DRAFTD_UNPROBED && !draftd_device_user(d, i))
            return true;
    return false;
}

static bool probe_anew(struct draftd *d, const char *name, struct draftd_patience patience, struct draft_error *err)
{
    int asked = 0;
    bool waits = true;
    d->devices.list = true;
    draftd_kick(d);
    while (waits && (d->devices.list || d->devices.probing == DRAFTD_LISTING) && draftd_accepts_work(d, err))
        waits = draftd_wait(d, patience);
    for (int i = 1; i < d->devices.count; i++) {
        asked += is_asked(d, i, name);
        if (is_asked(d, i, name) && draftd_device_user(d, i) == NULL)
            draftd_device_doubt(d, i);
    }
    while (waits && any_pending(d, name) && draftd_accepts_work(d, err))
        waits = draftd_wait(d, patience);
    if (!draftd_accepts_work(d, err))
        return false;
    if (!waits)
        return draft_fail(err, DRAFT_UNAVAILABLE, "the GPUs did not answer within the call's deadline; try again");
    return !*name || asked || strcmp(name, "cpu") == 0 ||
           draft_fail_field(err, DRAFT_NOT_FOUND, "device", "there is no device \"%.40s\"%s%.800s", name,
                            d->devices.no_gpu[0] ? ": " : "", d->devices.no_gpu);
}

bool draftd_probe_devices(struct draftd *d, const char *name, struct draftd_patience patience,
                          Draftd__V1__ProbeDevicesResponse **reply, struct draft_error *err)
{
    char shown[64];
    draftd_clean_text(shown, sizeof shown, name);
    pthread_mutex_lock(&d->lock);
    bool ok = probe_anew(d, shown, patience, err);
    if (ok) {
        *reply = draftd_message_new(&draftd__v1__probe_devices_response__descriptor);
        for (int i = 0; i < d->devices.count; i++)
            if (d->devices.device[i].listed || draftd_device_user(d, i))
                draftd_message_append(&(*reply)->devices, &(*reply)->n_devices, draftd_device_message(d, i));
        draftd_message_string(&(*reply)->no_gpu, d->devices.no_gpu);
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}
