#include "previews.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "request_id.h"

enum { PICTURE_LIMIT = 256 << 20, PATIENCE_SECONDS = 120 };

bool draft_preview_create(struct draft_rpc *rpc, const char *job_id, const Draftd__V1__PreviewSpec *spec, char id[80],
                          struct draft_status *st)
{
    char request_id[DRAFT_REQUEST_ID_BYTES];
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    draft_request_id(request_id);
    request.job_id = (char *)(uintptr_t)job_id;
    request.spec = (Draftd__V1__PreviewSpec *)(uintptr_t)spec;
    request.request_id = request_id;
    Draftd__V1__CreatePreviewResponse *reply = draft_rpc_create_preview(rpc, &request, st);
    if (!reply)
        return false;
    snprintf(id, 80, "%s", reply->preview ? reply->preview->id : "");
    draft_free_message(reply);
    return true;
}

static bool watch_once(struct draft_rpc *rpc, const char *id, draft_preview_progress progress, void *context,
                       bool *done, bool *heard, struct draft_status *st)
{
    Draftd__V1__WatchPreviewRequest request = DRAFTD__V1__WATCH_PREVIEW_REQUEST__INIT;
    request.preview_id = (char *)(uintptr_t)id;
    struct draft_stream *stream = draft_rpc_watch_preview(rpc, &request);
    ProtobufCMessage *message;
    enum draft_stream_event event;
    while ((event = draft_stream_next(stream, 1000, &message, st)) != DRAFT_STREAM_END) {
        if (event == DRAFT_STREAM_WAITING)
            continue;
        const Draftd__V1__WatchPreviewResponse *news = (const Draftd__V1__WatchPreviewResponse *)message;
        *heard = true;
        if (news->preview && news->preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED)
            *done = true;
        if (news->preview && news->preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_FAILED)
            draft_status_fail(st, DRAFT_STATUS_INTERNAL, "%s failed: %s", id, news->preview->reason);
        if (news->preview && progress)
            progress(context, news->preview, news->phase_done, news->phase_total);
        draft_free_message(message);
    }
    draft_stream_close(stream);
    return st->code == DRAFT_STATUS_OK;
}

bool draft_preview_wait(struct draft_rpc *rpc, const char *id, draft_preview_progress progress, void *context,
                        struct draft_status *st)
{
    bool done = false;
    time_t heard_at = time(NULL);
    while (!done) {
        struct draft_status now = {0};
        bool heard = false;
        watch_once(rpc, id, progress, context, &done, &heard, &now);
        if (heard)
            heard_at = time(NULL);
        /* A daemon that restarts comes back with the preview still asked for. */
        if (now.code != DRAFT_STATUS_OK &&
            (now.code != DRAFT_STATUS_UNAVAILABLE || time(NULL) - heard_at > PATIENCE_SECONDS)) {
            *st = now;
            return false;
        }
        if (!done)
            usleep(500000);
    }
    return true;
}

static bool read_picture(struct draft_rpc *rpc, const char *id, int index, struct draft_picture *out,
                         struct draft_status *st)
{
    Draftd__V1__ReadPictureRequest request = DRAFTD__V1__READ_PICTURE_REQUEST__INIT;
    request.preview_id = (char *)(uintptr_t)id;
    request.index = index;
    struct draft_stream *stream = draft_rpc_read_picture(rpc, &request);
    ProtobufCMessage *message;
    enum draft_stream_event event;
    uint64_t expected = 0;
    while ((event = draft_stream_next(stream, 1000, &message, st)) != DRAFT_STREAM_END) {
        if (event == DRAFT_STREAM_WAITING)
            continue;
        const Draftd__V1__ReadPictureResponse *piece = (const Draftd__V1__ReadPictureResponse *)message;
        if (piece->total_bytes)
            expected = piece->total_bytes;
        if (piece->data.len > 0 && piece->data.len <= PICTURE_LIMIT - out->bytes) {
            uint8_t *grown = realloc(out->png, out->bytes + piece->data.len);
            if (!grown)
                abort();
            memcpy(grown + out->bytes, piece->data.data, piece->data.len);
            out->png = grown;
            out->bytes += piece->data.len;
        }
        draft_free_message(message);
    }
    draft_stream_close(stream);
    if (st->code == DRAFT_STATUS_OK && (out->bytes == 0 || out->bytes != expected))
        draft_status_fail(st, DRAFT_STATUS_DATA_LOSS, "picture %d of %s: %zu of %llu bytes came", index, id, out->bytes,
                          (unsigned long long)expected);
    return st->code == DRAFT_STATUS_OK;
}

bool draft_preview_fetch(struct draft_rpc *rpc, const char *id, struct draft_pictures *out, struct draft_status *st)
{
    Draftd__V1__GetPreviewRequest request = DRAFTD__V1__GET_PREVIEW_REQUEST__INIT;
    *out = (struct draft_pictures){.count = 0};
    request.preview_id = (char *)(uintptr_t)id;
    Draftd__V1__GetPreviewResponse *reply = draft_rpc_get_preview(rpc, &request, st);
    if (!reply)
        return false;
    out->preview = reply->preview;
    reply->preview = NULL;
    draft_free_message(reply);
    if (!out->preview)
        return draft_status_fail(st, DRAFT_STATUS_INTERNAL, "the daemon's answer holds no preview");
    out->count = (int)out->preview->n_pictures;
    out->items = calloc((size_t)out->count + 1, sizeof *out->items);
    if (!out->items)
        abort();
    for (int i = 0; i < out->count; i++) {
        const Draftd__V1__Picture *picture = out->preview->pictures[i];
        out->items[i] = (struct draft_picture){
            .prompt = picture->prompt, .seed = picture->seed, .reward = picture->reward, .index = picture->index};
        if (!read_picture(rpc, id, picture->index, &out->items[i], st)) {
            draft_pictures_clear(out);
            return false;
        }
    }
    return true;
}

bool draft_preview_run(struct draft_rpc *rpc, const char *job_id, const Draftd__V1__PreviewSpec *spec,
                       draft_preview_progress progress, void *context, struct draft_pictures *out,
                       struct draft_status *st)
{
    char id[80];
    *out = (struct draft_pictures){.count = 0};
    return draft_preview_create(rpc, job_id, spec, id, st) && draft_preview_wait(rpc, id, progress, context, st) &&
           draft_preview_fetch(rpc, id, out, st);
}

void draft_pictures_clear(struct draft_pictures *pictures)
{
    for (int i = 0; i < pictures->count; i++)
        free(pictures->items[i].png);
    free(pictures->items);
    draft_free_message(pictures->preview);
    *pictures = (struct draft_pictures){.count = 0};
}
