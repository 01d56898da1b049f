#include "rewards/weights_file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tensor/pickle.h"

static bool there(const char *folder, const char *stem, const char *const *endings, char *path, size_t size)
{
    for (; *endings != NULL; endings++)
        if ((size_t)snprintf(path, size, "%s/%s%s", folder, stem, *endings) < size && access(path, F_OK) == 0)
            return true;
    return false;
}

const char *draft_reward_weights_stem(const char *kind, const char *folder, const char *const *stems,
                                      struct draft_error *err)
{
    static const char *const ours[] = {".safetensors", ".safetensors.index.json", ".fp16.safetensors",
                                       ".safetensors.index.fp16.json", NULL},
                             *const pickles[] = {".pt", ".pth", ".bin", ".ckpt", NULL};
    char path[4096], names[256] = "";
    for (int i = 0; stems[i] != NULL; i++)
        if (there(folder, stems[i], ours, path, sizeof path))
            return stems[i];
    for (int i = 0; stems[i] != NULL; i++) {
        if (there(folder, stems[i], pickles, path, sizeof path)) {
            draft_refuse_pickle(path, err);
            return NULL;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s.safetensors", i > 0 ? " or " : "", stems[i]);
    }
    draft_fail(err, DRAFT_NOT_FOUND, "%s: the folder %s has no %s", kind, folder, names);
    return NULL;
}
