#include "rpc/file_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "message.h"

struct draftd_file_stream {
    int fd;
    uint64_t total, sent; /* bytes */
    char *path;
};

struct draftd_file_stream *draftd_file_stream_open(const char *path, struct draft_error *err)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* a pipe must not hold the thread */
    if (fd < 0) {
        draft_fail_errno(err, "cannot open %s", path);
        return NULL;
    }
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        draft_fail(err, DRAFT_DATA_LOSS, "%s is no regular file any more", path);
        close(fd);
        return NULL;
    }
    struct draftd_file_stream *stream = draftd_new(sizeof *stream);
    stream->fd = fd;
    stream->total = (uint64_t)status.st_size;
    stream->path = draftd_strdup(path);
    return stream;
}

void draftd_file_stream_close(struct draftd_file_stream *stream)
{
    close(stream->fd);
    free(stream->path);
    free(stream);
}

uint64_t draftd_file_stream_total(const struct draftd_file_stream *stream)
{
    return stream->total;
}

bool draftd_file_stream_next(struct draftd_file_stream *stream, ProtobufCBinaryData *piece, bool *end,
                             struct draft_error *err)
{
    uint64_t left = stream->total - stream->sent;
    size_t size = left < DRAFTD_PIECE ? (size_t)left : DRAFTD_PIECE;
    *piece = (ProtobufCBinaryData){0};
    if (size > 0) {
        piece->data = draftd_new(size);
        while (piece->len < size) {
            ssize_t got =
                pread(stream->fd, piece->data + piece->len, size - piece->len, (off_t)(stream->sent + piece->len));
            if (got < 0 && errno == EINTR)
                continue;
            if (got < 0)
                return draft_fail_errno(err, "cannot read %s", stream->path);
            if (got == 0)
                return draft_fail(err, DRAFT_DATA_LOSS, "%s became shorter while it was read: ask again", stream->path);
            piece->len += (size_t)got;
        }
    }
    stream->sent += size;
    *end = stream->sent == stream->total;
    return true;
}
