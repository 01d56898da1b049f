#include "devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "job.h"
#include "log.h"
#include "message.h"

static bool is_automatic(const char *wish)
{
    return !*wish || strcmp(wish, "auto") == 0;
}

/* The place of the wish's GPU, 0 when it names no certain one. */
static int numbered(const char *wish)
{
    int number = strncmp(wish, "cuda:", 5) == 0 ? atoi(wish + 5) : -1;
    return number >= 0 && number < DRAFTD_MAX_DEVICES - 1 ? number + 1 : 0;
}

const char *draftd_device_name(const struct draftd *d, int device)
{
    return device == DRAFTD_NO_DEVICE ? "" : d->devices.device[device].name;
}

const struct draftd_worker *draftd_device_user(const struct draftd *d, int device)
{
    for (const struct draftd_worker *worker = d->workers; worker; worker = worker->next)
        if (worker->device == device && !worker->over)
            return worker;
    return NULL;
}

void draftd_device_doubt(struct draftd *d, int device)
{
    if (device <= DRAFTD_CPU)
        return;
    d->devices.device[device].health = DRAFTD_UNPROBED;
    d->positions_known = false;
    draftd_kick(d);
}

/* --- Choosing ----------------------------------------------------------------------------------------------------- */

/* A GPU that the wish and the job's need allow, fit or not. */
static bool allows(const struct draftd *d, int device, const char *wish, uint64_t gpu_memory)
{
    const struct draftd_device *gpu = &d->devices.device[device];
    bool named = strcmp(wish, "cuda") == 0 || numbered(wish) == device;
    return (named || (is_automatic(wish) && gpu_memory > 0)) && gpu->listed && gpu_memory <= gpu->memory_bytes;
}

/* Whether any GPU is worth waiting for. */
static bool waits_for_gpu(const struct draftd *d, const char *wish, uint64_t gpu_memory)
{
    if (!is_automatic(wish))
        return strcmp(wish, "cpu") != 0;
    if (!d->devices.listed)
        return gpu_memory > 0;
    for (int i = 1; i < d->devices.count; i++)
        if (allows(d, i, wish, gpu_memory) && d->devices.device[i].health != DRAFTD_DRAINED)
            return true;
    return false;
}

int draftd_device_queue(const struct draftd *d, const char *wish, uint64_t gpu_memory)
{
    return !waits_for_gpu(d, wish, gpu_memory) ? DRAFTD_CPU : numbered(wish) ? numbered(wish) : DRAFTD_NO_DEVICE;
}

static bool is_free(const struct draftd *d, int device)
{
    return d->devices.device[device].health == DRAFTD_FIT && draftd_device_user(d, device) == NULL;
}

/* "cuda:0: job-3 is running" */
static void describe(const struct draftd *d, int device, char *text, size_t size)
{
    const struct draftd_device *dev = &d->devices.device[device];
    const struct draftd_worker *user = draftd_device_user(d, device);
    if (user && user->task == DRAFTD_TASK_TRAIN)
        snprintf(text, size, "%s: %s is running", dev->name, user->about);
    else if (user)
        snprintf(text, size, "%s: %s is being drawn", dev->name, user->about);
    else if (dev->health == DRAFTD_DRAINED)
        snprintf(text, size, "%s, which is drained: %s", dev->name, dev->reason);
    else
        snprintf(text, size, "%s: it is being looked at", dev->name);
}

static void describe_gpus(const struct draftd *d, const char *wish, uint64_t gpu_memory, char *text, size_t size)
{
    size_t used = 0;
    snprintf(text, size, "%s: %s", is_automatic(wish) ? "a GPU" : wish,
             !d->devices.listed ? "the devices are being looked at" : "no such GPU is here now");
    for (int i = 1; i < d->devices.count && used + 8 < size; i++) {
        if (!allows(d, i, wish, gpu_memory))
            continue;
        if (used > 0)
            used += (size_t)snprintf(text + used, size - used, "; ");
        describe(d, i, text + used, size - used);
        used += strlen(text + used);
    }
}

int draftd_device_choose(const struct draftd *d, const char *wish, uint64_t gpu_memory, char *waits_for, size_t size)
{
    if (!waits_for_gpu(d, wish, gpu_memory)) {
        if (is_free(d, DRAFTD_CPU))
            return DRAFTD_CPU;
        describe(d, DRAFTD_CPU, waits_for, size);
        return DRAFTD_NO_DEVICE;
    }
    for (int i = 1; i < d->devices.count; i++)
        if (allows(d, i, wish, gpu_memory) && is_free(d, i))
            return i;
    describe_gpus(d, wish, gpu_memory, waits_for, size);
    return DRAFTD_NO_DEVICE;
}

int draftd_device_for_preview(const struct draftd *d, const char *wish, uint64_t gpu_memory)
{
    for (int i = 1; i < d->devices.count; i++)
        if (allows(d, i, wish, gpu_memory) && is_free(d, i))
            return i;
    return DRAFTD_NO_DEVICE;
}

uint64_t draftd_device_memory(const struct draftd *d, const char *wish)
{
    uint64_t most = 0;
    bool any = is_automatic(wish) || strcmp(wish, "cuda") == 0;
    for (int i = 1; i < d->devices.count; i++)
        if ((any || numbered(wish) == i) && d->devices.device[i].listed && d->devices.device[i].memory_bytes > most)
            most = d->devices.device[i].memory_bytes;
    return most;
}

bool draftd_device_exists(struct draftd *d, const char *wish, struct draftd_patience patience, struct draft_error *err)
{
    pthread_mutex_lock(&d->lock);
    bool ok = strcmp(wish, "cpu") == 0;
    while (!ok && !d->devices.listed && draftd_wait(d, patience))
        continue;
    if (!ok && !d->devices.listed)
        ok = draft_fail(err, DRAFT_UNAVAILABLE, "the machine's GPUs are still being looked for; try again");
    else if (!ok && !is_automatic(wish) && draftd_device_memory(d, wish) == 0 && d->devices.no_gpu[0])
        ok = draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "spec.device", "%.900s", d->devices.no_gpu);
    else if (!ok && !is_automatic(wish) && draftd_device_memory(d, wish) == 0)
        ok = draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "spec.device",
                              "there is no %s; `draft devices` lists what is here", wish);
    else
        ok = true;
    pthread_mutex_unlock(&d->lock);
    return ok;
}

/* --- For clients -------------------------------------------------------------------------------------------------- */

/* Model name and the best instruction set the kernels are compiled for, from /proc/cpuinfo. */
static char *describe_cpu(int threads)
{
    char line[4096], name[128] = "processor", *isa = "baseline";
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (value == NULL || value[1] == '\0')
            continue;
        if (strncmp(line, "model name", 10) == 0) {
            value[strcspn(value, "\n")] = '\0';
            draftd_clean_text(name, sizeof name, value + 2);
        } else if (strncmp(line, "flags", 5) == 0) {
            isa = strstr(value, " avx512f") ? "x86-64-v4" : strstr(value, " avx2") ? "x86-64-v3" : "x86-64";
            break; /* the other processors are the same */
        }
    }
    if (file)
        fclose(file);
    return draftd_format("%s, %s, %d threads", name, isa, threads);
}

#define STATE(name) DRAFTD__V1__GET_SERVER_INFO_RESPONSE__DEVICE__STATE__STATE_##name

Draftd__V1__GetServerInfoResponse__Device *draftd_device_message(const struct draftd *d, int device)
{
    const struct draftd_device *from = &d->devices.device[device];
    const struct draftd_worker *user = draftd_device_user(d, device);
    Draftd__V1__GetServerInfoResponse__Device *to =
        draftd_message_new(&draftd__v1__get_server_info_response__device__descriptor);
    char text[700] = "";
    draftd_message_string(&to->name, from->name);
    if (device == DRAFTD_CPU)
        to->description = describe_cpu(d->threads > 0 ? d->threads : (int)sysconf(_SC_NPROCESSORS_ONLN));
    else
        draftd_message_string(&to->description, from->description);
    draftd_message_string(&to->driver, from->driver);
    draftd_message_string(&to->capability, from->capability);
    to->memory_bytes = from->memory_bytes;
    to->free_bytes = from->free_bytes;
    if (user && user->task == DRAFTD_TASK_TRAIN)
        draftd_message_string(&to->job_id, user->about);
    to->state = user                              ? STATE(BUSY)
                : from->health == DRAFTD_DRAINED  ? STATE(DRAINED)
                : from->health == DRAFTD_UNPROBED ? STATE(PROBING)
                                                  : STATE(FREE);
    if (from->health == DRAFTD_DRAINED && !user)
        snprintf(text, sizeof text, "%s", from->reason);
    else if (user)
        snprintf(text, sizeof text, "%s is %s", user->about,
                 user->task == DRAFTD_TASK_TRAIN ? "running" : "being drawn");
    draftd_message_string(&to->reason, text);
    return to;
}
