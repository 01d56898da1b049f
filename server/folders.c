#include "folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "message.h"

bool draftd_make_folder(const char *path, struct draft_error *err)
{
    if (mkdir(path, 0700) == 0)
        return true;
    struct stat st;
    if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    return draft_fail_errno(err, "cannot make the folder %s", path);
}

bool draftd_sync_folder(const char *path, struct draft_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (!ok)
        draft_fail_errno(err, "cannot write the folder %s", path);
    if (fd >= 0)
        close(fd);
    return ok;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st, (void)kind, (void)walk;
    if (remove(path) != 0 && errno != ENOENT)
        draftd_log(DRAFTD_WARNING, NULL, "cannot remove %s: %s", path, strerror(errno));
    return 0;
}

void draftd_remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void draftd_empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *inside = draftd_format("%s/%s", path, entry->d_name);
        draftd_remove_tree(inside);
        free(inside);
    }
    closedir(dir);
}

char *draftd_job_folder(const char *state_dir, int64_t job)
{
    return draftd_format("%s/jobs/job-%lld", state_dir, (long long)job);
}

char *draftd_checkpoint_path(const char *state_dir, int64_t job, const char *file)
{
    return draftd_format("%s/jobs/job-%lld/checkpoints/%s", state_dir, (long long)job, file);
}

char *draftd_preview_folder(const char *state_dir, int64_t job, int64_t preview)
{
    return draftd_format("%s/jobs/job-%lld/previews/preview-%lld", state_dir, (long long)job, (long long)preview);
}

char *draftd_picture_file(const char *state_dir, int64_t job, int64_t preview, int index)
{
    return draftd_format("%s/jobs/job-%lld/previews/preview-%lld/%d.png", state_dir, (long long)job, (long long)preview,
                         index);
}
