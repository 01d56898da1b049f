#include "export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/checksum.h"

/* The daemon's suggestion as a plain file name: no folders, nothing hidden. */
static const char *plain_name(const char *name)
{
    const char *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    return *name && *name != '.' ? name : "lora.safetensors";
}

static bool ends_in_slash(const char *path)
{
    return *path && path[strlen(path) - 1] == '/';
}

/* "kept/" is a folder, made when it is not there; "kept" is one when it is. */
static void choose_path(const char *path, const char *suggested, char *out, size_t size)
{
    struct stat info;
    if (!path || !*path)
        snprintf(out, size, "%s", plain_name(suggested));
    else if ((stat(path, &info) == 0 && S_ISDIR(info.st_mode)) || (ends_in_slash(path) && mkdir(path, 0777) == 0))
        snprintf(out, size, "%s%s%s", path, ends_in_slash(path) ? "" : "/", plain_name(suggested));
    else
        snprintf(out, size, "%s", path);
}

/* What a message of any file stream says. The pointers are the message's or the reader's. */
struct piece {
    ProtobufCBinaryData data;
    uint64_t total;
    const char *name;     /* of the first message: to save it under */
    const char *checksum; /* of the first message; NULL: this kind of file has none */
};
typedef struct piece (*read_piece)(void *context, const ProtobufCMessage *message);

struct saving {
    struct draft_atomic_file *file; /* NULL before the first message */
    struct draft_checksum *sum;
    uint64_t expected, bytes;
    char checksum[DRAFT_CHECKSUM_SIZE]; /* what it should be */
    bool checked;
};

static bool begin(struct saving *s, const struct piece *first, const char *path, char *saved, size_t size,
                  struct draft_error *err)
{
    s->expected = first->total;
    s->checked = first->checksum != NULL;
    snprintf(s->checksum, sizeof s->checksum, "%s", s->checked ? first->checksum : "");
    choose_path(path, first->name, saved, size);
    s->sum = draft_checksum_start();
    if (!s->sum)
        return draft_fail(err, DRAFT_RESOURCE_EXHAUSTED, "out of memory");
    s->file = draft_atomic_begin(saved, err);
    return s->file != NULL;
}

static void check(struct saving *s, struct draft_status *st)
{
    char hex[DRAFT_CHECKSUM_SIZE] = "";
    if (s->sum)
        draft_checksum_finish(s->sum, hex);
    if (st->code != DRAFT_STATUS_OK)
        return;
    if (!s->file || s->bytes != s->expected)
        draft_status_fail(st, DRAFT_STATUS_DATA_LOSS, "the file ended after %llu of %llu bytes; try again",
                          (unsigned long long)s->bytes, (unsigned long long)s->expected);
    else if (s->checked && strcmp(hex, s->checksum) != 0)
        draft_status_fail(st, DRAFT_STATUS_DATA_LOSS,
                          "the file came with the checksum %s instead of \"%s\"; nothing was saved, try again", hex,
                          s->checksum);
}

/* Takes the stream over. */
static bool save_stream(struct draft_stream *stream, read_piece read, void *context, const char *path, char *saved,
                        size_t size, uint64_t *bytes, struct draft_status *st)
{
    struct saving s = {0};
    struct draft_error err = {0};
    ProtobufCMessage *message;
    bool good = true;
    for (enum draft_stream_event event;
         good && (event = draft_stream_next(stream, 1000, &message, st)) != DRAFT_STREAM_END;) {
        if (event == DRAFT_STREAM_WAITING)
            continue;
        struct piece piece = read(context, message);
        good = s.file || begin(&s, &piece, path, saved, size, &err);
        if (good) {
            draft_atomic_write(s.file, piece.data.data, piece.data.len);
            draft_checksum_add(s.sum, piece.data.data, piece.data.len);
            s.bytes += piece.data.len;
        }
        draft_free_message(message);
    }
    draft_stream_close(stream);
    *bytes = s.bytes;
    if (!good)
        draft_status_take(st, &err);
    check(&s, st);
    if (st->code != DRAFT_STATUS_OK) {
        draft_atomic_abort(s.file);
        return false;
    }
    return draft_atomic_commit(s.file, &err) || draft_status_take(st, &err);
}

static struct piece export_piece(void *context, const ProtobufCMessage *message)
{
    (void)context;
    const Draftd__V1__ExportLoraResponse *in = (const Draftd__V1__ExportLoraResponse *)message;
    return (struct piece){in->data, in->total_bytes, in->file_name, NULL};
}

bool draft_export_file(struct draft_rpc *rpc, const Draftd__V1__ExportLoraRequest *request, const char *path,
                       char *saved, size_t size, uint64_t *bytes, struct draft_status *st)
{
    return save_stream(draft_rpc_export_lora(rpc, request), export_piece, NULL, path, saved, size, bytes, st);
}

struct checkpoint_name {
    const char *job_id;
    char text[160];
};

static struct piece checkpoint_piece(void *context, const ProtobufCMessage *message)
{
    struct checkpoint_name *name = context;
    const Draftd__V1__ReadCheckpointResponse *in = (const Draftd__V1__ReadCheckpointResponse *)message;
    snprintf(name->text, sizeof name->text, "%.100s-step-%lld.safetensors", name->job_id,
             (long long)(in->checkpoint ? in->checkpoint->step : 0));
    return (struct piece){in->data, in->total_bytes, name->text, in->checkpoint ? in->checkpoint->checksum : ""};
}

bool draft_checkpoint_file(struct draft_rpc *rpc, const Draftd__V1__ReadCheckpointRequest *request, const char *path,
                           char *saved, size_t size, uint64_t *bytes, struct draft_status *st)
{
    struct checkpoint_name name = {.job_id = request->job_id};
    return save_stream(draft_rpc_read_checkpoint(rpc, request), checkpoint_piece, &name, path, saved, size, bytes, st);
}

/* The parent's real path, then the last part. */
static bool new_path(const char *path, char *out, size_t size, struct draft_status *st)
{
    char parent[4096], *real;
    size_t length = path ? strlen(path) : 0;
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || length >= sizeof parent)
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                 "--output is missing: the folder or file to make for the merged model");
    snprintf(parent, sizeof parent, "%.*s", (int)length, path);
    char *slash = strrchr(parent, '/'), *name = slash ? slash + 1 : parent;
    char last[256];
    if (!*name || strlen(name) >= sizeof last || !strcmp(name, ".") || !strcmp(name, ".."))
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "%s is nothing that could be made", path);
    snprintf(last, sizeof last, "%s", name);
    *name = 0;
    if (!(real = realpath(*parent ? parent : ".", NULL)))
        return draft_status_fail(st, DRAFT_STATUS_NOT_FOUND, "%s: %s", *parent ? parent : ".", strerror(errno));
    int n = snprintf(out, size, "%s/%s", strcmp(real, "/") ? real : "", last);
    free(real);
    return (n > 0 && (size_t)n < size) ||
           draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "%s: the path is too long", path);
}

bool draft_export_model(struct draft_rpc *rpc, Draftd__V1__ExportLoraRequest *request, const char *path, char *saved,
                        size_t size, struct draft_status *st)
{
    if (!new_path(path, saved, size, st))
        return false;
    request->path = saved;
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
