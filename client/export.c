#include "export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/atomic_file.h"

/* The daemon's suggestion as a plain file name: no folders, nothing hidden. */
static const char *plain_name(const char *name)
{
    const char *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    return *name && *name != '.' ? name : "lora.safetensors";
}

static void choose_path(const char *path, const char *suggested, char *out, size_t size)
{
    struct stat info;
    if (!path || !*path)
        snprintf(out, size, "%s", plain_name(suggested));
    else if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        snprintf(out, size, "%s/%s", path, plain_name(suggested));
    else
        snprintf(out, size, "%s", path);
}

bool draft_export_file(struct draft_rpc *rpc, const Draftd__V1__ExportLoraRequest *request, const char *path,
                       char *saved, size_t size, uint64_t *bytes, struct draft_status *st)
{
    struct draft_stream *stream = draft_rpc_export_lora(rpc, request);
    struct draft_atomic_file *file = NULL;
    struct draft_error err = {0};
    ProtobufCMessage *message;
    uint64_t expected = 0;
    *bytes = 0;
    for (enum draft_stream_event event; (event = draft_stream_next(stream, 1000, &message, st)) != DRAFT_STREAM_END;) {
        if (event == DRAFT_STREAM_WAITING)
            continue;
        const Draftd__V1__ExportLoraResponse *piece = (const Draftd__V1__ExportLoraResponse *)message;
        if (!file) {
            expected = piece->total_bytes;
            choose_path(path, piece->file_name, saved, size);
            file = draft_atomic_begin(saved, &err);
        }
        if (file)
            draft_atomic_write(file, piece->data.data, piece->data.len);
        *bytes += piece->data.len;
        draft_free_message(message);
        if (!file)
            break;
    }
    draft_stream_close(stream);
    if (err.code != DRAFT_OK)
        draft_status_take(st, &err);
    else if (st->code == DRAFT_STATUS_OK && (!file || *bytes != expected))
        draft_status_fail(st, DRAFT_STATUS_DATA_LOSS, "the export ended after %llu of %llu bytes; try again",
                          (unsigned long long)*bytes, (unsigned long long)expected);
    if (st->code != DRAFT_STATUS_OK) {
        draft_atomic_abort(file);
        return false;
    }
    return draft_atomic_commit(file, &err) || draft_status_take(st, &err);
}

/* The parent's real path, then the last part. */
static bool new_folder(const char *path, char *out, size_t size, struct draft_status *st)
{
    char parent[4096], *real;
    size_t length = path ? strlen(path) : 0;
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || length >= sizeof parent)
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                 "--output is missing: the folder to make for the merged model");
    snprintf(parent, sizeof parent, "%.*s", (int)length, path);
    char *slash = strrchr(parent, '/'), *name = slash ? slash + 1 : parent;
    char last[256];
    if (!*name || strlen(name) >= sizeof last || !strcmp(name, ".") || !strcmp(name, ".."))
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "%s is no folder that could be made", path);
    snprintf(last, sizeof last, "%s", name);
    *name = 0;
    if (!(real = realpath(*parent ? parent : ".", NULL)))
        return draft_status_fail(st, DRAFT_STATUS_NOT_FOUND, "%s: %s", *parent ? parent : ".", strerror(errno));
    int n = snprintf(out, size, "%s/%s", strcmp(real, "/") ? real : "", last);
    free(real);
    return (n > 0 && (size_t)n < size) ||
           draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "%s: the path is too long", path);
}

bool draft_export_folder(struct draft_rpc *rpc, Draftd__V1__ExportLoraRequest *request, const char *path, char *saved,
                         size_t size, struct draft_status *st)
{
    if (!new_folder(path, saved, size, st))
        return false;
    request->folder = saved;
    struct draft_stream *stream = draft_rpc_export_lora(rpc, request);
    ProtobufCMessage *message;
    bool told = false;
    for (enum draft_stream_event event; (event = draft_stream_next(stream, 1000, &message, st)) != DRAFT_STREAM_END;) {
        if (event == DRAFT_STREAM_WAITING)
            continue;
        told = true;
        draft_free_message(message);
    }
    draft_stream_close(stream);
    return st->code == DRAFT_STATUS_OK &&
           (told || draft_status_fail(st, DRAFT_STATUS_DATA_LOSS, "the export ended without an answer; try again"));
}
