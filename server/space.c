#include "space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log.h"
#include "message.h"
#include "spec.h"

enum { RESERVE_RETRY_MS = 10000 };

/* What a user without privileges may still write; negative: unknown. */
static double free_bytes(const struct draftd *d)
{
    struct statvfs disk;
    return statvfs(d->state_dir, &disk) == 0 ? (double)disk.f_bavail * (double)disk.f_frsize : -1;
}

bool draftd_space_check(const struct draftd *d, const Draftd__V1__JobSpec *spec, uint64_t trained_parameters,
                        size_t there, struct draft_error *err)
{
    const double mib = 1 << 20;
    size_t keep = draftd_spec_checkpoints_kept(spec);
    size_t more = there < keep ? keep + 1 - there : 1; /* the newest is written before the oldest goes */
    double one = draftd_spec_checkpoint_bytes(spec, trained_parameters);
    double needed = one * (double)more + DRAFTD_SPACE_MARGIN, room = free_bytes(d);
    if (room < 0 || room >= needed)
        return true;
    return draft_fail(
        err, DRAFT_DISK_FULL,
        "not enough room on the disk of %s: %.1f MiB are needed (%zu checkpoints of %.1f MiB, and some for "
        "metrics and pictures), %.1f MiB are free; free some space or keep fewer checkpoints",
        d->state_dir, needed / mib, more, one / mib, room / mib);
}

/* Of an earlier daemon. */
static bool allocated_already(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (double)st.st_blocks * 512 >= DRAFTD_RESERVE_BYTES;
}

static bool allocate(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    int rc = posix_fallocate(fd, 0, DRAFTD_RESERVE_BYTES);
    close(fd);
    if (rc != 0)
        unlink(path); /* a part of it is of no use */
    errno = rc;
    return rc == 0;
}

void draftd_reserve_keep(struct draftd *d, int64_t now_ms, int64_t *next_ms)
{
    if (d->reserve)
        return;
    if (now_ms >= d->reserve_ms) {
        d->reserve_ms = now_ms + RESERVE_RETRY_MS;
        char *path = draftd_format("%s/reserve", d->state_dir);
        d->reserve = allocated_already(path);
        if (!d->reserve && free_bytes(d) >= 4.0 * DRAFTD_RESERVE_BYTES) {
            d->reserve = allocate(path);
            if (!d->reserve)
                draftd_log(DRAFTD_WARNING, NULL, "cannot allocate %s: %s", path, strerror(errno));
        }
        free(path);
    }
    if (!d->reserve && d->reserve_ms < *next_ms)
        *next_ms = d->reserve_ms;
}

bool draftd_reserve_give(struct draftd *d, const struct draft_error *why)
{
    if (why->code != DRAFT_DISK_FULL || !d->reserve)
        return false;
    char *path = draftd_format("%s/reserve", d->state_dir);
    d->reserve = false;
    d->reserve_ms = draftd_now_ms() + RESERVE_RETRY_MS;
    bool gone = unlink(path) == 0;
    free(path);
    draftd_log(DRAFTD_WARNING, NULL, "the disk is full: the reserve of %d MiB is given up", DRAFTD_RESERVE_BYTES >> 20);
    draftd_kick(d);
    return gone;
}
