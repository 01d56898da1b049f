/*
 * golden_check: our numbers beside PyTorch's.
 *
 *   golden_check [options] PATH...                        a fixture's folder or file, or a folder of fixtures
 *   golden_check --draft-plus PIPELINE REWARD FILE        a run recorded by draft_plus.py, replayed
 *   golden_check --picture PIPELINE FILE                  pictures of diffusers' StableDiffusionPipeline
 *
 * Exit status: 0 all within their bounds, 1 something past its bound, 2 wrong use, 77 this processor lacks --isa.
 */
#include <dirent.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/backend.h"
#include "golden.h"

static const char USAGE[] =
    "usage: golden_check [options] PATH...\n"
    "       golden_check [options] --draft-plus PIPELINE REWARD FILE\n"
    "       golden_check [options] --picture PIPELINE FILE\n"
    "\n"
    "PATH: a folder or file made by tests/peers/make.py, draft_plus.py or pictures.py, or a folder of them.\n"
    "  --with FOLDER    the companion: a tokenizer folder, an LPIPS folder (default: the demo's)\n"
    "  --device NAME    cpu (default) or cuda, over the plugin of fakes in DRAFT_CUDA_PLUGIN\n"
    "  --isa NAME       x86-64, x86-64-v3, x86-64-v4 (default: the best here) or x86-64-v4-bf16 (bounds 3e-2 and "
    "2e-1)\n"
    "  --precision bf16 on a GPU what networks compute in, on the CPU its products (bounds as above)\n"
    "  --threads N      (default: all)\n"
    "  --micro-batch N  of recorded runs (default: the whole batch)\n"
    "  --recompute      recorded runs with gradient checkpointing\n"
    "  --full-size      models made by tests/peers/full_size.py: bounds 5e-5 and 5e-4, recomputed alone\n"
    "  --verbose        also results on the way (block/...), to find where a difference starts\n";

/* --- Kinds ---------------------------------------------------------------------------------------------------------
 */

enum kind {
    UNKNOWN,
    UNET,
    VAE,
    CLIP,
    CLIP_TEXT,
    RESIZE,
    JPEG_DCT,
    LPIPS,
    SAMPLERS,
    TORCH_RANDN,
    TOKENIZER,
    DRAFT_PLUS,
    PICTURES,
};

static bool exists(const char *folder, const char *member)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, member);
    return access(path, F_OK) == 0;
}

static bool ends_with(const char *text, const char *ending)
{
    size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

static enum kind kind_of_folder(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", folder);
    json_t *config = json_load_file(path, 0, NULL);
    const char *class_name = json_string_value(json_object_get(config, "_class_name"));
    enum kind kind = UNKNOWN;
    const char *model_type = json_string_value(json_object_get(config, "model_type"));
    if (json_object_get(config, "vision_config") != NULL)
        kind = CLIP;
    else if (model_type != NULL && strcmp(model_type, "clip_text_model") == 0)
        kind = CLIP_TEXT;
    else if (class_name != NULL && strcmp(class_name, "UNet2DConditionModel") == 0)
        kind = UNET;
    else if (class_name != NULL && strcmp(class_name, "AutoencoderKL") == 0)
        kind = VAE;
    json_decref(config);
    return kind;
}

static bool has(const struct draft_safetensors *file, const char *name)
{
    return draft_safetensors_find(file, name) != NULL;
}

/* A file of torch.randn's has names like 42/2x4x16x16 alone. */
static bool only_seeds(const struct draft_safetensors *file)
{
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const char *name = draft_safetensors_at(file, i)->name;
        size_t digits = strspn(name, "0123456789");
        if (digits == 0 || name[digits] != '/' || name[digits + 1] == '\0' ||
            name[digits + 1 + strspn(name + digits + 1, "0123456789x")] != '\0')
            return false;
    }
    return draft_safetensors_count(file) > 0;
}

static enum kind kind_of_tensors(const struct draft_safetensors *file)
{
    if (draft_safetensors_metadata(file, "log") != NULL && has(file, "step0/noise"))
        return DRAFT_PLUS;
    if (draft_safetensors_metadata(file, "guidance_scale") != NULL)
        return PICTURES;
    if (has(file, "lin0.model.1.weight") && has(file, "distance"))
        return LPIPS;
    if (has(file, "dct") && has(file, "ycbcr"))
        return JPEG_DCT;
    if (has(file, "0/d_input"))
        return RESIZE;
    if (has(file, "ddim/4/timesteps") || has(file, "euler_leading/7/timesteps"))
        return SAMPLERS;
    return only_seeds(file) ? TORCH_RANDN : UNKNOWN;
}

static enum kind kind_of_json(const char *path)
{
    json_t *root = json_load_file(path, 0, NULL);
    bool tokens = json_is_array(json_object_get(root, "rows")) && json_object_get(root, "model_max_length") != NULL;
    json_decref(root);
    return tokens ? TOKENIZER : UNKNOWN;
}

/* --- One fixture ---------------------------------------------------------------------------------------------------
 */

struct total {
    const struct golden_options *options;
    char *table; /* a line for each fixture */
    size_t length;
    FILE *lines;
    int fixtures, failures;
};

static void check_folder(struct golden *t, enum kind kind, const char *path)
{
    if (kind == UNET)
        golden_unet(t, path);
    else if (kind == VAE)
        golden_vae(t, path);
    else if (kind == CLIP)
        golden_clip(t, path);
    else
        golden_clip_text(t, path);
}

static void check_tensors(struct golden *t, enum kind kind, const struct draft_safetensors *file)
{
    switch (kind) {
    case RESIZE:
        golden_resize(t, file);
        break;
    case JPEG_DCT:
        golden_jpeg_dct(t, file);
        break;
    case LPIPS:
        golden_lpips(t, file);
        break;
    case SAMPLERS:
        golden_samplers(t, file);
        break;
    case TORCH_RANDN:
        golden_torch_randn(t, file);
        break;
    case DRAFT_PLUS:
        golden_draft_plus(t, file);
        break;
    default:
        golden_pictures(t, file);
    }
}

static void check_fixture(struct total *total, enum kind kind, const char *path, const struct draft_safetensors *file)
{
    struct golden t;
    printf("%s\n", path);
    if (golden_open(&t, total->options, path)) {
        if (file != NULL)
            check_tensors(&t, kind, file);
        else if (kind == TOKENIZER)
            golden_tokenizer(&t, path);
        else
            check_folder(&t, kind, path);
        if (t.rows == 0)
            golden_fail(&t, "nothing was compared");
    } else {
        golden_fail(&t, "%s", t.error.message);
    }
    fprintf(total->lines, "%-64s %5d rows  forward %8.1e  gradients %8.1e  %s\n", path, t.rows, t.worst_forward,
            t.worst_gradient, t.failures == 0 ? "ok" : "FAILED");
    total->fixtures++;
    total->failures += t.failures;
    golden_close(&t);
    fflush(stdout);
}

/* --- Paths ---------------------------------------------------------------------------------------------------------
 */

static void check_path(struct total *total, const char *path, bool must_be_known);

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void check_members(struct total *total, const char *folder)
{
    struct dirent **entry;
    int count = scandir(folder, &entry, NULL, by_name);
    for (int i = 0; i < count; i++) {
        char path[4096];
        if (entry[i]->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entry[i]->d_name);
            check_path(total, path, false);
        }
        free(entry[i]);
    }
    if (count >= 0)
        free(entry);
}

static void check_file(struct total *total, const char *path, bool must_be_known)
{
    struct draft_error error = {0};
    struct draft_safetensors *file = NULL;
    enum kind kind = UNKNOWN;
    if (ends_with(path, ".safetensors")) {
        file = draft_safetensors_open(path, &error);
        kind = file != NULL ? kind_of_tensors(file) : UNKNOWN;
    } else if (ends_with(path, ".json")) {
        kind = kind_of_json(path);
    }
    if (kind != UNKNOWN) {
        check_fixture(total, kind, path, file);
    } else if (must_be_known || error.code != DRAFT_OK) {
        printf("%s\n  FAILED: %s\n", path, error.code != DRAFT_OK ? error.message : "not a fixture of a known kind");
        total->failures++;
    }
    draft_safetensors_close(file);
}

static void check_path(struct total *total, const char *path, bool must_be_known)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        printf("%s\n  FAILED: not there\n", path);
        total->failures++;
    } else if (!S_ISDIR(status.st_mode)) {
        check_file(total, path, must_be_known);
    } else if (!exists(path, "config.json")) {
        check_members(total, path);
    } else {
        enum kind kind = kind_of_folder(path);
        if (kind != UNKNOWN && exists(path, "case.safetensors")) {
            check_fixture(total, kind, path, NULL);
        } else if (must_be_known) {
            printf("%s\n  FAILED: not a fixture of a known kind\n", path);
            total->failures++;
        }
    }
}

/* --- Command line --------------------------------------------------------------------------------------------------
 */

enum {
    OPTION_WITH = 256,
    OPTION_ISA,
    OPTION_THREADS,
    OPTION_VERBOSE,
    OPTION_MICRO_BATCH,
    OPTION_RECOMPUTE,
    OPTION_FULL_SIZE,
    OPTION_DRAFT_PLUS,
    OPTION_DEVICE,
    OPTION_PRECISION,
    OPTION_PICTURE
};

static bool parse(int count, char **argument, struct golden_options *options, int *wanted)
{
    static const struct option LONG[] = {
        {"with", required_argument, NULL, OPTION_WITH},
        {"isa", required_argument, NULL, OPTION_ISA},
        {"device", required_argument, NULL, OPTION_DEVICE},
        {"precision", required_argument, NULL, OPTION_PRECISION},
        {"threads", required_argument, NULL, OPTION_THREADS},
        {"verbose", no_argument, NULL, OPTION_VERBOSE},
        {"draft-plus", no_argument, NULL, OPTION_DRAFT_PLUS},
        {"picture", no_argument, NULL, OPTION_PICTURE},
        {"micro-batch", required_argument, NULL, OPTION_MICRO_BATCH},
        {"recompute", no_argument, NULL, OPTION_RECOMPUTE},
        {"full-size", no_argument, NULL, OPTION_FULL_SIZE},
        {NULL, 0, NULL, 0},
    };
    int option;
    *wanted = 0; /* operands: any number */
    while ((option = getopt_long(count, argument, "", LONG, NULL)) != -1) {
        if (option == OPTION_WITH)
            options->with = optarg;
        else if (option == OPTION_ISA)
            options->isa = optarg;
        else if (option == OPTION_DEVICE)
            options->device = optarg;
        else if (option == OPTION_PRECISION && (strcmp(optarg, "fp32") == 0 || strcmp(optarg, "bf16") == 0))
            options->bf16 = optarg[0] == 'b';
        else if (option == OPTION_THREADS)
            options->threads = atoi(optarg);
        else if (option == OPTION_VERBOSE)
            options->verbose = true;
        else if (option == OPTION_MICRO_BATCH)
            options->micro_batch = atoi(optarg);
        else if (option == OPTION_RECOMPUTE)
            options->recompute = true;
        else if (option == OPTION_FULL_SIZE)
            options->full_size = true;
        else if (option == OPTION_DRAFT_PLUS)
            *wanted = 3;
        else if (option == OPTION_PICTURE)
            *wanted = 2;
        else
            return false;
    }
    int operands = count - optind;
    if (*wanted == 0 ? operands < 1 : operands != *wanted)
        return false;
    if (*wanted != 0)
        options->pipeline = argument[optind];
    if (*wanted == 3)
        options->reward = argument[optind + 1];
    return true;
}

int main(int count, char **argument)
{
    struct golden_options options = {0};
    int wanted;
    if (!parse(count, argument, &options, &wanted)) {
        fputs(USAGE, stderr);
        return 2;
    }
    struct draft_error error = {0};
    struct draft_backend_options how = {.threads = 1, .isa = options.isa};
    struct draft_backend *backend = draft_backend_create_cpu(&how, &error);
    if (backend == NULL) {
        fprintf(stderr, "golden_check: %s\n", error.message);
        return error.code == DRAFT_FAILED_PRECONDITION ? 77 : 2; /* ctest: skipped */
    }
    draft_backend_destroy(backend);
    struct total total = {.options = &options};
    total.lines = open_memstream(&total.table, &total.length);
    if (total.lines == NULL)
        return 2;
    for (int i = wanted == 0 ? optind : count - 1; i < count; i++)
        check_path(&total, argument[i], true);
    fclose(total.lines);
    printf("\n%s", total.table);
    free(total.table);
    if (total.fixtures == 0 && total.failures == 0) {
        printf("no fixture was found\n");
        return 2;
    }
    printf("%s\n", total.failures == 0 ? "all within their bounds" : "PAST THE BOUNDS");
    return total.failures == 0 ? 0 : 1;
}
