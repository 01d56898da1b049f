#include "worker/frames.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Reads exactly `size` bytes; returns how many came before the end of the stream, or -1. */
static ssize_t read_fully(int fd, uint8_t *out, size_t size)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = read(fd, out + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) /* a peer that went with bytes of ours unread is a reset */
            break;
        if (n < 0)
            return -1;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

enum draftd_frame_result draftd_frame_read(int fd, uint8_t **data, size_t *size, struct draft_error *err)
{
    *data = NULL;
    *size = 0;
    uint8_t head[4];
    ssize_t got = read_fully(fd, head, sizeof head);
    if (got == 0)
        return DRAFTD_FRAME_END;
    if (got < 0) {
        draft_fail_errno(err, "reading a frame failed");
        return DRAFTD_FRAME_FAILED;
    }
    if (got < (ssize_t)sizeof head) {
        draft_fail(err, DRAFT_IO, "a frame ends inside its length");
        return DRAFTD_FRAME_FAILED;
    }
    size_t length = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    if (length > DRAFTD_FRAME_MAX) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "a frame says it has %zu bytes; at most %d are allowed", length,
                   DRAFTD_FRAME_MAX);
        return DRAFTD_FRAME_FAILED;
    }
    uint8_t *bytes = malloc(length ? length : 1);
    if (!bytes) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a frame of %zu bytes", length);
        return DRAFTD_FRAME_FAILED;
    }
    got = read_fully(fd, bytes, length);
    if (got != (ssize_t)length) {
        if (got < 0)
            draft_fail_errno(err, "reading a frame failed");
        else
            draft_fail(err, DRAFT_IO, "a frame ends after %zd of its %zu bytes", got, length);
        free(bytes);
        return DRAFTD_FRAME_FAILED;
    }
    *data = bytes;
    *size = length;
    return DRAFTD_FRAME_OK;
}

bool draftd_frame_write(int fd, const uint8_t *data, size_t size, struct draft_error *err)
{
    if (size > DRAFTD_FRAME_MAX)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a frame of %zu bytes is larger than the allowed %d", size,
                          DRAFTD_FRAME_MAX);
    uint8_t head[4] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};
    struct iovec part[2] = {{head, sizeof head}, {(void *)(uintptr_t)data, size}};
    struct msghdr message = {.msg_iov = part, .msg_iovlen = 2};
    while (message.msg_iovlen > 0) {
        ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return draft_fail_errno(err, "writing a frame failed");
        while (message.msg_iovlen > 0 && (size_t)n >= message.msg_iov->iov_len) {
            n -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (uint8_t *)message.msg_iov->iov_base + n;
            message.msg_iov->iov_len -= (size_t)n;
        }
    }
    return true;
}
