/* SystemService: what a client adapts to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "job.h"
#include "message.h"

/* The kinds of reward the engine has: its table alone, the daemon does not link it. */
static const struct {
    const char *name, *help;
} rewards[] = {
#define DRAFT_REWARD(name, help) {#name, help},
#include "rewards/rewards.def"
#undef DRAFT_REWARD
};

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

bool draftd_server_info(struct draftd *d, Draftd__V1__GetServerInfoResponse **reply, struct draft_error *err)
{
    (void)err; /* nothing here can fail */
    Draftd__V1__GetServerInfoResponse *info = draftd_message_new(&draftd__v1__get_server_info_response__descriptor);
    draftd_message_string(&info->version, DRAFT_VERSION);
    info->pid = (int32_t)getpid();
    info->start_time_us = d->start_time_us;
    draftd_message_string(&info->state_dir, d->state_dir);
    draftd_message_string(&info->socket, d->socket);
    draftd_message_string(&info->demo_dir, d->demo_dir);
    info->max_queue = d->max_queue;
    for (size_t i = 0; i < sizeof rewards / sizeof rewards[0]; i++) {
        Draftd__V1__GetServerInfoResponse__RewardKind *kind =
            draftd_message_new(&draftd__v1__get_server_info_response__reward_kind__descriptor);
        draftd_message_string(&kind->name, rewards[i].name);
        draftd_message_string(&kind->help, rewards[i].help);
        draftd_message_append(&info->rewards, &info->n_rewards, kind);
    }
    Draftd__V1__GetServerInfoResponse__Device *cpu =
        draftd_message_new(&draftd__v1__get_server_info_response__device__descriptor);
    draftd_message_string(&cpu->name, "cpu");
    cpu->description = describe_cpu(d->threads > 0 ? d->threads : (int)sysconf(_SC_NPROCESSORS_ONLN));
    cpu->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    draftd_message_append(&info->devices, &info->n_devices, cpu);

    pthread_mutex_lock(&d->lock);
    for (const struct draftd_live_job *job = d->jobs; job; job = job->next) {
        info->queued_jobs += job->state == DRAFTD__V1__JOB__STATE__STATE_QUEUED;
        if (job->worker) {
            info->running_jobs++;
            draftd_message_string(&cpu->job_id, job->id);
        }
    }
    info->draining = d->draining;
    info->revision = d->revision;
    pthread_mutex_unlock(&d->lock);
    *reply = info;
    return true;
}
