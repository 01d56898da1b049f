#include "shown_path.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "private_daemon.h"

char *draft_shown_path(const char *path, char *out, size_t size)
{
    char here[PATH_MAX];
    size_t length = getcwd(here, sizeof here) ? strlen(here) : 0;
    bool inside = length > 1 && !strncmp(path, here, length) && path[length] == '/' && path[length + 1];
    snprintf(out, size, "%s", inside ? path + length + 1 : path);
    return out;
}

/* The first that $PATH finds is the same file. */
static bool found_by_shell(const char *name, const char *ours)
{
    const char *path = getenv("PATH");
    struct stat mine, found;
    if (!path || stat(ours, &mine) != 0)
        return false;
    for (const char *at = path; *at;) {
        char candidate[PATH_MAX];
        int length = (int)strcspn(at, ":");
        int n = snprintf(candidate, sizeof candidate, "%.*s/%s", length, at, name);
        if (n < (int)sizeof candidate && access(candidate, X_OK) == 0)
            return stat(candidate, &found) == 0 && mine.st_dev == found.st_dev && mine.st_ino == found.st_ino;
        at += length + (at[length] == ':');
    }
    return false;
}

char *draft_shown_program(const char *name, char *out, size_t size)
{
    char ours[PATH_MAX];
    draft_program_beside(name, ours, sizeof ours);
    if (!*ours || found_by_shell(name, ours))
        snprintf(out, size, "%s", name);
    else if (!strchr(draft_shown_path(ours, out, size), '/'))
        snprintf(out, size, "./%s", name); /* a shell looks for a bare name in $PATH alone */
    return out;
}
