#include "tensor/pickle.h"

#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

bool draft_is_pickle(const char *path)
{
    static const char *const endings[] = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return true;
    unsigned char head[4] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (file < 0)
        return false;
    ssize_t got = read(file, head, sizeof head);
    close(file);
    /* torch.save's zip archive; a bare pickle of protocol 2 to 5. As a safetensors file's header length both would be
     * beyond what is read, so nothing sound is lost. */
    bool zip = got == 4 && memcmp(head, "PK\3\4", 4) == 0;
    bool bare = got == 4 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 && head[2] != 0 && head[3] != 0;
    return zip || bare;
}

bool draft_refuse_pickle(const char *path, struct draft_error *err)
{
    const char *name = strrchr(path, '/');
    name = name != NULL ? name + 1 : path;
    const char *dot = strrchr(name, '.');
    int stem = dot != NULL && dot != name ? (int)(dot - name) : (int)strlen(name);
    return draft_fail(
        err, DRAFT_INVALID_ARGUMENT,
        "%.300s is a pickle, which is not read because it can run code; convert it to safetensors where you "
        "trust it: python3 -c \"import torch, safetensors.torch as s; d = torch.load('%.100s', "
        "weights_only=True); s.save_file({k: v.clone().contiguous() for k, v in d.get('state_dict', "
        "d).items() if torch.is_tensor(v)}, '%.*s.safetensors')\"",
        path, name, stem < 100 ? stem : 100, name);
}

bool draft_refuse_pickle_in(const char *folder, const char *stem, const char *name, struct draft_error *err)
{
    return draft_fail(
        err, DRAFT_NOT_FOUND,
        "%.300s has no %s.safetensors; %s is a pickle, which is not read because it can run code; convert "
        "the model where you trust it: python3 -c \"from diffusers import StableDiffusionPipeline as P; "
        "P.from_pretrained('MODEL').save_pretrained('MODEL-safetensors')\"",
        folder, stem, name);
}
