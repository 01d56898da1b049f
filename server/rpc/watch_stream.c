/* What WatchJobs and WatchPreview share: a daemon's watcher is woken, the transport asks it when it can send. */
#include "rpc/services.h"

static void wake(void *context)
{
    draftd_call_wake(context);
}

bool draftd_rpc_watch(struct draftd_call *call, const char *job_id, const char *preview_id, int64_t start_revision,
                      struct draft_error *err)
{
    struct draftd_watcher *watcher =
        draftd_watch(draftd_call_context(call), job_id, preview_id, start_revision, wake, call, err);
    draftd_call_set_user(call, watcher);
    return watcher != NULL;
}

DRAFTD_NEXT(draftd_rpc_watch_next)
{
    return draftd_watch_next(draftd_call_user(call), message, end, err);
}

DRAFTD_CLOSE(draftd_rpc_watch_close)
{
    draftd_unwatch(draftd_call_user(call));
}
