/* grpc.health.v1.Health: what grpc_health_probe and orchestrators ask. */
#include "grpc/health/v1/health.pb-c.h"
#include "message.h"
#include "rpc/services.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define UNKNOWN     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct health_watcher {
    struct draftd_call *call;
    struct health_watcher *next, **previous; /* guarded by the mutex */
    bool known;
    int told; /* the status sent last; -1: none */
};

struct draftd_health {
    const struct draftd_service *services;
    size_t count;
    pthread_mutex_t mutex;
    bool stopped;
    struct health_watcher *watchers;
};

struct draftd_health *draftd_health_create(const struct draftd_service *services, size_t count)
{
    struct draftd_health *health = draftd_new(sizeof *health);
    health->services = services;
    health->count = count;
    pthread_mutex_init(&health->mutex, NULL);
    return health;
}

void draftd_health_stop(struct draftd_health *health)
{
    pthread_mutex_lock(&health->mutex);
    health->stopped = true;
    for (struct health_watcher *watcher = health->watchers; watcher != NULL; watcher = watcher->next)
        draftd_call_wake(watcher->call);
    pthread_mutex_unlock(&health->mutex);
}

void draftd_health_destroy(struct draftd_health *health)
{
    pthread_mutex_destroy(&health->mutex);
    free(health);
}

static bool is_known(const struct draftd_health *health, const char *service)
{
    bool known = service[0] == '\0';
    for (size_t i = 0; i < health->count && !known; i++)
        known = strcmp(service, health->services[i].name) == 0;
    return known;
}

static int status_now(struct draftd_health *health)
{
    pthread_mutex_lock(&health->mutex);
    bool stopped = health->stopped;
    pthread_mutex_unlock(&health->mutex);
    return stopped ? NOT_SERVING : SERVING;
}

static ProtobufCMessage *response(int status)
{
    Grpc__Health__V1__HealthCheckResponse *out =
        draftd_message_new(&grpc__health__v1__health_check_response__descriptor);
    out->status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    return &out->base;
}

DRAFTD_CALL(draftd_rpc_health_check)
{
    const Grpc__Health__V1__HealthCheckRequest *in = (const void *)request;
    struct draftd_health *health = draftd_call_context(call);
    if (!is_known(health, in->service))
        return draft_fail_field(err, DRAFT_NOT_FOUND, "service", "draftd has no service %.100s", in->service);
    *reply = response(status_now(health));
    return true;
}

DRAFTD_OPEN(draftd_rpc_health_watch)
{
    (void)err;
    const Grpc__Health__V1__HealthCheckRequest *in = (const void *)request;
    struct draftd_health *health = draftd_call_context(call);
    struct health_watcher *watcher = draftd_new(sizeof *watcher);
    *watcher = (struct health_watcher){.call = call, .known = is_known(health, in->service), .told = -1};
    draftd_call_set_user(call, watcher);
    pthread_mutex_lock(&health->mutex);
    watcher->next = health->watchers;
    watcher->previous = &health->watchers;
    if (watcher->next != NULL)
        watcher->next->previous = &watcher->next;
    health->watchers = watcher;
    pthread_mutex_unlock(&health->mutex);
    return true;
}

DRAFTD_NEXT(draftd_rpc_health_next)
{
    (void)end;
    (void)err;
    struct health_watcher *watcher = draftd_call_user(call);
    int status = watcher->known ? status_now(draftd_call_context(call)) : UNKNOWN;
    if (status != watcher->told)
        *message = response(status);
    watcher->told = status;
    return true;
}

DRAFTD_CLOSE(draftd_rpc_health_close)
{
    struct draftd_health *health = draftd_call_context(call);
    struct health_watcher *watcher = draftd_call_user(call);
    pthread_mutex_lock(&health->mutex);
    *watcher->previous = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
    pthread_mutex_unlock(&health->mutex);
    free(watcher);
}
