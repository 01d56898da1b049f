#include "backend/open.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char PLUGIN[] = "libdraft_cuda.so";

/* --- Names ----------------------------------------------------------------------------------------------------------
 */

bool draft_device_parse(const char *text, struct draft_device_choice *choice, struct draft_error *err)
{
    *choice = (struct draft_device_choice){.automatic = text == NULL || !text[0] || strcmp(text, "auto") == 0};
    if (choice->automatic || strcmp(text, "cuda") == 0)
        return true;
    if (strcmp(text, "cpu") == 0)
        return choice->cpu = true;
    char *end;
    long number = strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9' ? strtol(text + 5, &end, 10) : -1;
    if (number < 0 || number > 1023 || *end)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "there is no device \"%.32s\"; give auto, cpu, or cuda:0, cuda:1 and so on", text);
    choice->number = (int)number;
    return true;
}

/* --- The library ----------------------------------------------------------------------------------------------------
 */

static bool fail_to_load(struct draft_error *err)
{
    return draft_fail(
        err, DRAFT_FAILED_PRECONDITION,
        "the CUDA backend cannot be loaded: %s; it needs NVIDIA's cuBLAS and cuDNN 9 for CUDA 13: install them, or "
        "name their folders with draftd --cuda-libraries or in DRAFT_CUDA_LIBRARIES, or use --device cpu",
        dlerror());
}

/* Finds `name` in the first of the folders (with colons between them) that has it, itself or where NVIDIA's wheels put
 * it: below a site-packages folder. */
static bool find_library(const char *folders, const char *name, char path[PATH_MAX])
{
    static const char *const BELOW[] = {"",          "lib/",      "lib64/", "nvidia/cu13/lib/", "nvidia/cudnn/lib/",
                                        "cu13/lib/", "cudnn/lib/"};
    for (;;) {
        int length = (int)strcspn(folders, ":");
        for (size_t i = 0; i < sizeof BELOW / sizeof *BELOW; i++) {
            snprintf(path, PATH_MAX, "%.*s/%s%s", length, folders, BELOW[i], name);
            if (access(path, R_OK) == 0)
                return true;
        }
        folders += length;
        if (*folders++ != ':')
            return false;
    }
}

static bool preload_one(const char *folders, const char *name, struct draft_error *err)
{
    char path[PATH_MAX];
    if (!find_library(folders, name, path))
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "there is no %s in %.600s, nor in nvidia/cu13/lib or nvidia/cudnn/lib below it; name the "
                          "folders of cuBLAS and cuDNN 9 for CUDA 13, with a colon between them, or a site-packages "
                          "folder with NVIDIA's wheels, by draftd --cuda-libraries or DRAFT_CUDA_LIBRARIES, or use "
                          "--device cpu",
                          name, folders);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL) != NULL || fail_to_load(err);
}

/* The libraries that the plugin needs, under the names it asks the loader for: what is loaded already is not looked for
 * again. NVRTC, by which cuDNN compiles attention's kernels, it finds beside itself as a rule: no matter if not here.
 */
static bool preload(const char *folders, struct draft_error *err)
{
    char path[PATH_MAX];
    if (folders == NULL || !folders[0])
        return true;
    if (find_library(folders, "libnvrtc.so.13", path))
        dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return preload_one(folders, "libcublasLt.so.13", err) && preload_one(folders, "libcudnn.so.9", err);
}

/* Beside the program, or in ../lib from there. */
static bool find_plugin(char *path, size_t size)
{
    static const char *const WHERE[] = {"", "../lib/", "../lib/x86_64-linux-gnu/", "../lib/aarch64-linux-gnu/"};
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0)
        return false;
    program[length] = '\0';
    const char *folder = dirname(program);
    for (size_t i = 0; i < sizeof WHERE / sizeof *WHERE; i++) {
        int n = snprintf(path, size, "%s/%s%s", folder, WHERE[i], PLUGIN);
        if (n > 0 && (size_t)n < size && access(path, R_OK) == 0)
            return true;
    }
    return false;
}

static const struct draft_plugin *loaded;

static const struct draft_plugin *load(const char *libraries, struct draft_error *err)
{
    if (loaded != NULL)
        return loaded;
    char beside[PATH_MAX];
    const char *path = getenv("DRAFT_CUDA_PLUGIN");
    if (path == NULL || !path[0])
        path = find_plugin(beside, sizeof beside) ? beside : PLUGIN;
    if (!preload(libraries, err))
        return NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL && path == PLUGIN) {
        draft_fail(err, DRAFT_FAILED_PRECONDITION,
                   "there is no CUDA backend here: %s is neither beside the program nor where the loader looks (%s); "
                   "build with -DDRAFT_CUDA=ON where CUDA's toolkit is, or use --device cpu",
                   PLUGIN, dlerror());
        return NULL;
    }
    if (library == NULL) {
        fail_to_load(err);
        return NULL;
    }
    draft_plugin_entry *entry;
    *(void **)&entry = dlsym(library, DRAFT_PLUGIN_ENTRY);
    const struct draft_plugin *plugin = entry != NULL ? entry(DRAFT_PLUGIN_VERSION) : NULL;
    if (plugin == NULL)
        draft_fail(
            err, DRAFT_FAILED_PRECONDITION,
            "%s was built from another version of draftd than this program (%s); build and install both together", path,
            DRAFT_PLUGIN_VERSION);
    return loaded = plugin;
}

/* A plugin named by the environment is a fake one, which needs no driver. */
static bool has_driver(void)
{
    const char *plugin = getenv("DRAFT_CUDA_PLUGIN");
    if (plugin != NULL && plugin[0])
        return true;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver != NULL)
        dlclose(driver);
    return driver != NULL;
}

int draft_devices(const char *libraries, struct draft_device *list, int room, struct draft_error *err)
{
    if (!has_driver()) {
        draft_fail(err, DRAFT_FAILED_PRECONDITION,
                   "no NVIDIA driver is installed; install version 580 or newer, or use --device cpu");
        return -1;
    }
    const struct draft_plugin *plugin = load(libraries, err);
    return plugin != NULL ? plugin->devices(list, room, err) : -1;
}

static bool is_filled(const void *memory, int n, float value)
{
    for (int i = 0; i < n; i++)
        if (memcmp((const char *)memory + (size_t)i * sizeof value, &value, sizeof value) != 0)
            return false;
    return true;
}

static bool try_device(struct draft_backend *backend, struct draft_error *err)
{
    enum { NUMBERS = 1 << 18 };
    bool ok = false;
    int32_t *numbers = malloc(2 * NUMBERS * sizeof *numbers), *back = numbers + NUMBERS;
    void *there = numbers != NULL ? draft_backend_alloc(backend, NUMBERS * sizeof *numbers, err) : NULL;
    if (there != NULL) {
        for (int32_t i = 0; i < NUMBERS; i++)
            numbers[i] = (int32_t)((uint32_t)i * UINT32_C(2654435761));
        ok = draft_backend_upload(backend, there, numbers, NUMBERS * sizeof *numbers, err) &&
             draft_backend_download(backend, back, there, NUMBERS * sizeof *numbers, err) &&
             (memcmp(numbers, back, NUMBERS * sizeof *numbers) == 0 ||
              draft_fail(err, DRAFT_DEVICE_LOST, "numbers came back changed from the GPU's memory")) &&
             draft_backend_fill(backend, there, NUMBERS, 1.5f, err) &&
             draft_backend_download(backend, back, there, NUMBERS * sizeof *numbers, err) &&
             (is_filled(back, NUMBERS, 1.5f) ||
              draft_fail(err, DRAFT_DEVICE_LOST, "a kernel wrote something else than it should"));
        draft_backend_free(backend, there);
    } else if (numbers == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to try a GPU with");
    }
    free(numbers);
    return ok;
}

bool draft_device_memory(struct draft_backend *backend, size_t *free_bytes, size_t *total, struct draft_error *err)
{
    return loaded->memory(backend, free_bytes, total, err);
}

void draft_device_usage(const struct draft_backend *backend, size_t *used, size_t *peak)
{
    loaded->usage(backend, used, peak);
}

struct draft_backend *draft_backend_open_dry(struct draft_backend *lender, const char *libraries,
                                             const struct draft_services *services, struct draft_error *err)
{
    const struct draft_plugin *plugin = load(libraries, err);
    return plugin != NULL ? plugin->create_dry(lender, services, err) : NULL;
}

bool draft_device_probe(const char *libraries, int number, const struct draft_services *services,
                        struct draft_device *device, struct draft_error *err)
{
    static struct draft_device list[1024];
    int count = draft_devices(libraries, list, sizeof list / sizeof *list, err);
    if (count < 0)
        return false;
    struct draft_backend *backend = loaded->create(number, services, err);
    if (backend == NULL)
        return false;
    *device = list[number];
    size_t total;
    bool ok = draft_device_memory(backend, &device->free, &total, err) && try_device(backend, err);
    draft_backend_destroy(backend);
    return ok;
}

/* --- The backend ----------------------------------------------------------------------------------------------------
 */

/* Why there is none is no matter to who leaves the choice to us. */
static bool has_gpu(const char *libraries)
{
    struct draft_error unseen = {0};
    return draft_devices(libraries, NULL, 0, &unseen) > 0;
}

struct draft_backend *draft_backend_open(const char *device, const char *libraries,
                                         const struct draft_backend_options *options,
                                         const struct draft_services *services, struct draft_error *err)
{
    struct draft_device_choice choice;
    if (!draft_device_parse(device, &choice, err))
        return NULL;
    if (choice.automatic)
        choice.cpu = !has_gpu(libraries);
    if (choice.cpu)
        return draft_backend_create_cpu(options, err);
    const struct draft_plugin *plugin = load(libraries, err);
    return plugin != NULL ? plugin->create(choice.number, services, err) : NULL;
}
