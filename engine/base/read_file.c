#include "base/read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *read_open_file(int descriptor, const char *path, size_t limit, size_t *length, struct draft_error *err)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0) {
        draft_fail_errno(err, "cannot read %s", path);
        return NULL;
    }
    if (!S_ISREG(status.st_mode)) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a regular file", path);
        return NULL;
    }
    size_t size = (size_t)status.st_size;
    if (size > limit) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is %zu bytes long, at most %zu are read", path, size, limit);
        return NULL;
    }
    char *text = malloc(size + 1);
    if (text == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
        return NULL;
    }
    size_t have = 0;
    while (have < size) {
        ssize_t got = read(descriptor, text + have, size - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            draft_fail_errno(err, "cannot read %s", path);
            free(text);
            return NULL;
        }
        if (got == 0)
            break;
        have += (size_t)got;
    }
    text[have] = '\0';
    *length = have;
    return text;
}

char *draft_read_file(const char *path, size_t limit, size_t *length, struct draft_error *err)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
        draft_fail_errno(err, "cannot open %s", path);
        return NULL;
    }
    char *text = read_open_file(descriptor, path, limit, length, err);
    close(descriptor);
    return text;
}
