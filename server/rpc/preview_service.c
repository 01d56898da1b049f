/* draftd.v1.PreviewService */
#include "message.h"
#include "rpc/file_stream.h"
#include "rpc/services.h"

#include <stdlib.h>

DRAFTD_CALL(draftd_rpc_create_preview)
{
    const Draftd__V1__CreatePreviewRequest *in = (const void *)request;
    Draftd__V1__Preview *preview;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_create_preview(draftd_call_context(call), in, &preview, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__create_preview_response__descriptor, &preview->base);
    return true;
}

DRAFTD_CALL(draftd_rpc_get_preview)
{
    const Draftd__V1__GetPreviewRequest *in = (const void *)request;
    Draftd__V1__Preview *preview;
    if (!draftd_require(in->preview_id, "preview_id", "preview-7", err) ||
        !draftd_get_preview(draftd_call_context(call), in->preview_id, &preview, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__get_preview_response__descriptor, &preview->base);
    return true;
}

DRAFTD_CALL(draftd_rpc_list_previews)
{
    const Draftd__V1__ListPreviewsRequest *in = (const void *)request;
    Draftd__V1__ListPreviewsResponse *out;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_list_previews(draftd_call_context(call), in, &out, err))
        return false;
    *reply = &out->base;
    return true;
}

DRAFTD_OPEN(draftd_rpc_watch_preview)
{
    const Draftd__V1__WatchPreviewRequest *in = (const void *)request;
    return draftd_require(in->preview_id, "preview_id", "preview-7", err) &&
           draftd_rpc_watch(call, NULL, in->preview_id, 0, err);
}

DRAFTD_OPEN(draftd_rpc_read_picture)
{
    const Draftd__V1__ReadPictureRequest *in = (const void *)request;
    char *path;
    if (!draftd_require(in->preview_id, "preview_id", "preview-7", err) ||
        !draftd_picture_path(draftd_call_context(call), in->preview_id, in->index, &path, err))
        return false;
    struct draftd_file_stream *stream = draftd_file_stream_open(path, err);
    draftd_call_set_user(call, stream);
    free(path);
    return stream != NULL;
}

DRAFTD_NEXT(draftd_rpc_picture_next)
{
    struct draftd_file_stream *stream = draftd_call_user(call);
    Draftd__V1__ReadPictureResponse *out = draftd_message_new(&draftd__v1__read_picture_response__descriptor);
    out->total_bytes = draftd_file_stream_total(stream);
    bool ok = draftd_file_stream_next(stream, &out->data, end, err);
    *message = &out->base;
    return ok;
}

DRAFTD_CLOSE(draftd_rpc_picture_close)
{
    draftd_file_stream_close(draftd_call_user(call));
}
