/* The worker threads: each takes a call from its lane's queue and does the one thing the call has to do next. */
#include <stdlib.h>

#include "rpc/rpc_internal.h"

static struct draftd_call *pop(struct lane *lane)
{
    pthread_mutex_lock(&lane->mutex);
    while (lane->head == NULL && !lane->stopping)
        pthread_cond_wait(&lane->changed, &lane->mutex);
    struct draftd_call *call = lane->head;
    if (call != NULL) {
        lane->head = call->next_waiting;
        if (lane->head == NULL)
            lane->tail = &lane->head;
        lane->waiting--;
    }
    pthread_mutex_unlock(&lane->mutex);
    return call;
}

static void *run(void *argument)
{
    struct lane *lane = argument;
    struct draftd_call *call;
    while ((call = pop(lane)) != NULL) {
        draftd_call_work_begin(call);
        draftd_call_work(call);
        /* Whatever comes after a call's first message is quick, whichever lane that one took. */
        if (draftd_call_work_done(call))
            draftd_lane_push(&call->rpc->lanes[DRAFTD_QUICK], call, false);
        else
            draftd_call_unref(call);
    }
    return NULL;
}

bool draftd_lane_push(struct lane *lane, struct draftd_call *call, bool limited)
{
    pthread_mutex_lock(&lane->mutex);
    bool room = !limited || lane->limit == 0 || lane->waiting < lane->limit;
    if (room) {
        call->next_waiting = NULL;
        *lane->tail = call;
        lane->tail = &call->next_waiting;
        lane->waiting++;
        pthread_cond_signal(&lane->changed);
    }
    pthread_mutex_unlock(&lane->mutex);
    return room;
}

bool draftd_lane_start(struct lane *lane, const char *name, int threads, int limit)
{
    *lane = (struct lane){.limit = limit};
    lane->tail = &lane->head;
    pthread_mutex_init(&lane->mutex, NULL);
    pthread_cond_init(&lane->changed, NULL);
    lane->threads = calloc((size_t)threads, sizeof *lane->threads);
    while (lane->threads != NULL && lane->count < threads) {
        if (pthread_create(&lane->threads[lane->count], NULL, run, lane) != 0)
            break;
        pthread_setname_np(lane->threads[lane->count++], name);
    }
    if (lane->count == threads)
        return true;
    draftd_lane_stop(lane);
    return false;
}

void draftd_lane_stop(struct lane *lane)
{
    pthread_mutex_lock(&lane->mutex);
    lane->stopping = true;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->mutex);
    for (int i = 0; i < lane->count; i++)
        pthread_join(lane->threads[i], NULL);
    free(lane->threads);
    pthread_cond_destroy(&lane->changed);
    pthread_mutex_destroy(&lane->mutex);
}
