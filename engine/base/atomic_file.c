#include "base/atomic_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct draft_atomic_file {
    char *path, *temporary;
    int descriptor;
    unsigned char *buffer;
    size_t buffered;
    struct draft_error error; /* the first failed write */
};

enum { BUFFER = 1 << 18 };

static void free_file(struct draft_atomic_file *file)
{
    free(file->path);
    free(file->temporary);
    free(file->buffer);
    free(file);
}

/* A name nobody else uses: process and a counter; a left-over of a killed process with our id is stepped over. */
static int create_temporary(const char *path, char **name)
{
    static atomic_uint counter;
    for (int attempt = 0; attempt < 100; attempt++) {
        if (asprintf(name, "%s.tmp-%ld-%u", path, (long)getpid(), atomic_fetch_add(&counter, 1)) < 0) {
            *name = NULL;
            errno = ENOMEM;
            return -1;
        }
        int descriptor = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (descriptor >= 0 || errno != EEXIST)
            return descriptor;
        free(*name);
        *name = NULL;
    }
    return -1;
}

struct draft_atomic_file *draft_atomic_begin(const char *path, struct draft_error *err)
{
    assert(path != NULL);
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is a folder; name a file in it", path);
        return NULL;
    }
    struct draft_atomic_file *file = calloc(1, sizeof *file);
    if (file != NULL) {
        file->path = strdup(path);
        file->buffer = malloc(BUFFER);
    }
    if (file == NULL || file->path == NULL || file->buffer == NULL) {
        if (file != NULL)
            free_file(file);
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while opening %s", path);
        return NULL;
    }
    file->descriptor = create_temporary(path, &file->temporary);
    if (file->descriptor < 0) {
        draft_fail_errno(err, "cannot create a file beside %s", path);
        free_file(file);
        return NULL;
    }
    return file;
}

static void write_out(struct draft_atomic_file *file, const unsigned char *data, size_t bytes)
{
    while (bytes > 0 && file->error.code == DRAFT_OK) {
        ssize_t done = write(file->descriptor, data, bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            draft_fail_errno(&file->error, "cannot write %s", file->path);
            return;
        }
        data += done;
        bytes -= (size_t)done;
    }
}

void draft_atomic_write(struct draft_atomic_file *file, const void *data, size_t bytes)
{
    if (bytes > BUFFER - file->buffered) {
        write_out(file, file->buffer, file->buffered);
        file->buffered = 0;
    }
    if (bytes > BUFFER) {
        write_out(file, data, bytes);
    } else if (bytes > 0) {
        memcpy(file->buffer + file->buffered, data, bytes);
        file->buffered += bytes;
    }
}

static bool sync_folder(const char *path, struct draft_error *err)
{
    char *copy = strdup(path); /* dirname writes into its argument */
    if (copy == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while writing %s", path);
    int folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (folder < 0)
        return draft_fail_errno(err, "cannot open the folder of %s", path);
    bool ok = fsync(folder) == 0 || draft_fail_errno(err, "cannot sync the folder of %s", path);
    close(folder);
    return ok;
}

bool draft_atomic_commit(struct draft_atomic_file *file, struct draft_error *err)
{
    write_out(file, file->buffer, file->buffered);
    if (file->error.code == DRAFT_OK && fsync(file->descriptor) != 0)
        draft_fail_errno(&file->error, "cannot sync %s", file->path);
    if (close(file->descriptor) != 0)
        draft_fail_errno(&file->error, "cannot close %s", file->path);
    if (file->error.code == DRAFT_OK && rename(file->temporary, file->path) != 0)
        draft_fail_errno(&file->error, "cannot rename the finished file to %s", file->path);
    if (file->error.code != DRAFT_OK) {
        unlink(file->temporary);
        draft_fail(err, file->error.code, "%s", file->error.message);
        free_file(file);
        return false;
    }
    bool ok = sync_folder(file->path, err);
    free_file(file);
    return ok;
}

void draft_atomic_abort(struct draft_atomic_file *file)
{
    if (file == NULL)
        return;
    close(file->descriptor);
    unlink(file->temporary);
    free_file(file);
}

bool draft_atomic_possible(const char *path, struct draft_error *err)
{
    struct draft_atomic_file *file = draft_atomic_begin(path, err);
    draft_atomic_abort(file);
    return file != NULL;
}

bool draft_atomic_write_file(const char *path, const void *data, size_t bytes, struct draft_error *err)
{
    struct draft_atomic_file *file = draft_atomic_begin(path, err);
    if (file == NULL)
        return false;
    draft_atomic_write(file, data, bytes);
    return draft_atomic_commit(file, err);
}
