#include "train/merged_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"

enum { PATH = 4096 };

bool draft_copy_file(const char *from, const char *to, struct draft_error *err)
{
    char piece[1 << 16];
    int fd = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return draft_fail_errno(err, "cannot open %s", from);
    struct draft_atomic_file *file = draft_atomic_begin(to, err);
    bool ok = file != NULL;
    for (ssize_t got; ok && (got = read(fd, piece, sizeof piece)) != 0;) {
        if (got > 0)
            draft_atomic_write(file, piece, (size_t)got);
        else if (errno != EINTR)
            ok = draft_fail_errno(err, "cannot read %s", from);
    }
    close(fd);
    if (!ok) {
        draft_atomic_abort(file);
        return false;
    }
    return draft_atomic_commit(file, err);
}

static bool join(char out[PATH], const char *folder, const char *name, struct draft_error *err)
{
    return snprintf(out, PATH, "%s/%s", folder, name) < PATH ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.200s/%s is too long", folder, name);
}

static bool copy_folder(const char *from, const char *to, const char *part,
                        bool (*keep)(void *context, const char *part, const char *name), void *context,
                        struct draft_error *err)
{
    DIR *dir = opendir(from);
    if (dir == NULL)
        return draft_fail_errno(err, "cannot read the folder %s", from);
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir)) != NULL;) {
        char source[PATH], target[PATH];
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        ok = join(source, from, entry->d_name, err) && join(target, to, entry->d_name, err);
        if (!ok || stat(source, &st) != 0)
            continue;
        if (S_ISREG(st.st_mode) && keep(context, part, entry->d_name))
            ok = draft_copy_file(source, target, err);
        else if (S_ISDIR(st.st_mode) && part[0] == '\0')
            ok = (mkdir(target, 0777) == 0 || draft_fail_errno(err, "cannot make the folder %s", target)) &&
                 copy_folder(source, target, entry->d_name, keep, context, err);
    }
    closedir(dir);
    return ok;
}

bool draft_copy_parts(const char *from, const char *to, bool (*keep)(void *context, const char *part, const char *name),
                      void *context, struct draft_error *err)
{
    return copy_folder(from, to, "", keep, context, err);
}

static void remove_folder(const char *folder, int depth)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[PATH];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            !join(path, folder, entry->d_name, NULL))
            continue;
        if (unlink(path) != 0 && depth > 0)
            remove_folder(path, depth - 1);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(folder);
}

void draft_remove_parts(const char *folder)
{
    remove_folder(folder, 1);
}
