/* One daemon a state folder: flock on draftd.lock, which holds the owner's pid for the sentence of the refusal. The
 * kernel releases it with the process, however that ends. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "message.h"
#include "store/sql.h"

static const unsigned MAGIC_CIFS = 0xFF534D42u, MAGIC_SMB2 = 0xFE534D42u, MAGIC_FUSE = 0x65735546u;

/* SQLite's write-ahead log needs memory shared between processes, which network file systems do not give. */
static bool check_local(const char *folder, struct draft_error *err)
{
    struct statfs fs;
    if (statfs(folder, &fs) < 0)
        return draft_fail_errno(err, "cannot look at the state folder %s", folder);
    unsigned type = (unsigned)fs.f_type;
    if (type != NFS_SUPER_MAGIC && type != MAGIC_CIFS && type != MAGIC_SMB2 && type != MAGIC_FUSE &&
        type != SMB_SUPER_MAGIC)
        return true;
    return draft_fail(
        err, DRAFT_FAILED_PRECONDITION,
        "the state folder %s lies on a network or FUSE file system, where the database is not safe; choose "
        "a folder on a local disk",
        folder);
}

int draftd_store_lock(const char *folder, struct draft_error *err)
{
    if (!check_local(folder, err))
        return -1;
    char *path = draftd_format("%s/draftd.lock", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        draft_fail_errno(err, "cannot open the lock %s", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int number = errno;
        char pid[24] = "";
        ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
        errno = number;
        if (number == EWOULDBLOCK)
            draft_fail(err, DRAFT_ALREADY_EXISTS,
                       "another draftd (pid %s) uses the state folder %s; stop it or choose another folder",
                       pid[0] ? pid : "unknown", folder);
        else
            draft_fail_errno(err, "cannot lock %s", path);
        close(fd);
        fd = -1;
    } else if (ftruncate(fd, 0) < 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0) {
        draft_fail_errno(err, "cannot write the lock %s", path);
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}
