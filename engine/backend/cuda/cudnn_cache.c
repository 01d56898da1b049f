#include "backend/cuda/cudnn_cache.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/read_file.h"

static bool make_folder(const char *folder)
{
    if (mkdir(folder, 0700) == 0)
        return true;
    char above[PATH_MAX];
    snprintf(above, sizeof above, "%s", folder);
    char *slash = strrchr(above, '/');
    if (errno != ENOENT || slash == NULL || slash == above)
        return errno == EEXIST;
    *slash = '\0';
    return make_folder(above) && (mkdir(folder, 0700) == 0 || errno == EEXIST);
}

static bool is_ours_alone(const char *folder)
{
    struct stat st;
    return lstat(folder, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

bool draft_cudnn_cache_folder(char *folder, size_t size)
{
    const char *given = getenv("DRAFT_CUDA_CACHE"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (given != NULL)
        n = snprintf(folder, size, "%s", given);
    else if (cache != NULL && cache[0] == '/')
        n = snprintf(folder, size, "%s/draftd", cache);
    else if (home != NULL && home[0] == '/')
        n = snprintf(folder, size, "%s/.cache/draftd", home);
    return n > 0 && (size_t)n < size && make_folder(folder) && is_ours_alone(folder);
}

/* --- Files: "draftd plan " and the fingerprint of what follows, on a line of its own; the key; the plan
 * ---------------
 */

static const char HEAD[] = "draftd plan ";
enum { HEAD_SIZE = sizeof HEAD - 1 + DRAFT_CHECKSUM_SIZE, MOST = 8 << 20 }; /* its newline in place of the NUL */

static bool path_of(char *path, size_t size, const char *folder, const char *key)
{
    char name[DRAFT_CHECKSUM_SIZE];
    draft_checksum_buffer(key, strlen(key), name);
    int n = snprintf(path, size, "%s/%s.plan", folder, name);
    return n > 0 && (size_t)n < size;
}

static bool is_whole(const char *text, size_t length, const char *key)
{
    char sum[DRAFT_CHECKSUM_SIZE];
    size_t key_length = strlen(key);
    if (length <= HEAD_SIZE + key_length || memchr(text, '\0', length) != NULL)
        return false;
    draft_checksum_buffer(text + HEAD_SIZE, length - HEAD_SIZE, sum);
    return memcmp(text, HEAD, sizeof HEAD - 1) == 0 &&
           memcmp(text + sizeof HEAD - 1, sum, DRAFT_CHECKSUM_SIZE - 1) == 0 && text[HEAD_SIZE - 1] == '\n' &&
           memcmp(text + HEAD_SIZE, key, key_length) == 0;
}

char *draft_cudnn_cache_read(const char *folder, const char *key)
{
    char path[PATH_MAX];
    struct draft_error unseen = {0};
    size_t length = 0;
    char *text = path_of(path, sizeof path, folder, key) ? draft_read_file(path, MOST, &length, &unseen) : NULL;
    if (text == NULL)
        return NULL;
    if (!is_whole(text, length, key)) {
        free(text);
        return NULL;
    }
    size_t front = HEAD_SIZE + strlen(key);
    memmove(text, text + front, length - front + 1);
    return text;
}

void draft_cudnn_cache_write(const char *folder, const char *key, const char *plan)
{
    char path[PATH_MAX], sum[DRAFT_CHECKSUM_SIZE];
    size_t key_length = strlen(key), plan_length = strlen(plan), size = HEAD_SIZE + key_length + plan_length;
    char *text = path_of(path, sizeof path, folder, key) ? malloc(size + 1) : NULL;
    if (text == NULL)
        return;
    memcpy(text + HEAD_SIZE, key, key_length);
    memcpy(text + HEAD_SIZE + key_length, plan, plan_length + 1);
    draft_checksum_buffer(text + HEAD_SIZE, key_length + plan_length, sum);
    memcpy(text, HEAD, sizeof HEAD - 1);
    memcpy(text + sizeof HEAD - 1, sum, DRAFT_CHECKSUM_SIZE - 1);
    text[HEAD_SIZE - 1] = '\n';
    struct draft_error unseen = {0};
    draft_atomic_write_file(path, text, size, &unseen);
    free(text);
}
