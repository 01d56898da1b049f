/* SystemService: what a client adapts to. */
#include <unistd.h>

#include "devices.h"
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
    pthread_mutex_lock(&d->lock);
    for (const struct draftd_live_job *job = d->jobs; job; job = job->next) {
        info->queued_jobs += job->state == DRAFTD__V1__JOB__STATE__STATE_QUEUED;
        info->running_jobs += job->worker != NULL;
    }
    for (int i = 0; i < d->devices.count; i++)
        if (d->devices.device[i].listed || draftd_device_user(d, i))
            draftd_message_append(&info->devices, &info->n_devices, draftd_device_message(d, i));
    draftd_message_string(&info->no_gpu, d->devices.no_gpu);
    info->draining = d->draining;
    info->revision = d->revision;
    pthread_mutex_unlock(&d->lock);
    *reply = info;
    return true;
}
