#include "base/checksum.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static void to_hex(XXH128_hash_t hash, char hex[DRAFT_CHECKSUM_SIZE])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    for (size_t i = 0; i < sizeof canonical.digest; i++)
        snprintf(hex + 2 * i, 3, "%02x", canonical.digest[i]);
}

void draft_checksum_buffer(const void *data, size_t bytes, char hex[DRAFT_CHECKSUM_SIZE])
{
    to_hex(XXH3_128bits(data, bytes), hex);
}

struct draft_checksum *draft_checksum_start(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state != NULL)
        XXH3_128bits_reset(state);
    return (struct draft_checksum *)state;
}

void draft_checksum_add(struct draft_checksum *sum, const void *data, size_t bytes)
{
    XXH3_128bits_update((XXH3_state_t *)sum, data, bytes);
}

void draft_checksum_finish(struct draft_checksum *sum, char *hex)
{
    if (hex != NULL)
        to_hex(XXH3_128bits_digest((XXH3_state_t *)sum), hex);
    XXH3_freeState((XXH3_state_t *)sum);
}

static bool read_all(int descriptor, const char *path, struct draft_checksum *sum, uint64_t *total,
                     struct draft_error *err)
{
    enum { PIECE = 1 << 17 }; /* within the second cache, and still few calls */
    unsigned char *piece = malloc(PIECE);
    if (piece == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
    ssize_t got;
    while ((got = read(descriptor, piece, PIECE)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(piece);
            return draft_fail_errno(err, "cannot read %s", path);
        }
        draft_checksum_add(sum, piece, (size_t)got);
        *total += (uint64_t)got;
    }
    free(piece);
    return true;
}

bool draft_checksum_file(const char *path, char hex[DRAFT_CHECKSUM_SIZE], uint64_t *bytes, struct draft_error *err)
{
    /* O_NONBLOCK: a FIFO in place of a file must not hang us. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return draft_fail_errno(err, "cannot open %s", path);
    struct stat status;
    if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(descriptor);
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a regular file", path);
    }
    struct draft_checksum *sum = draft_checksum_start();
    if (sum == NULL) {
        close(descriptor);
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
    }
    uint64_t total = 0;
    bool ok = read_all(descriptor, path, sum, &total, err);
    close(descriptor);
    draft_checksum_finish(sum, ok ? hex : NULL);
    if (ok && bytes != NULL)
        *bytes = total;
    return ok;
}
