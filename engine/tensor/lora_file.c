#include "tensor/lora_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/pickle.h"

enum kind { DOWN, UP, ALPHA };

/* One tensor of the file, its name understood. */
struct piece {
    bool text;
    char module[DRAFT_LORA_MODULE];
    enum kind kind;
    const struct draft_safetensors_entry *entry;
};

struct draft_lora_file {
    struct draft_safetensors *file;
    struct draft_lora_pair *pair;
    int count;
    double alpha[2]; /* of pairs without their own: UNet, text encoder; NaN: the rank */
};

/* --- Names -------------------------------------------------------------------------------------------------------- */

void draft_lora_mangle(char out[DRAFT_LORA_MODULE], const char *path, int length)
{
    snprintf(out, DRAFT_LORA_MODULE, "%.*s", length, path);
    for (char *c = out; *c; c++)
        if (*c == '.')
            *c = '_';
}

static bool ends_with(const char *name, size_t length, const char *ending)
{
    size_t tail = strlen(ending);
    return length > tail && strncmp(name + length - tail, ending, tail) == 0;
}

/* The file's name without its prefix; NULL when it has none that is known. */
static const char *without_prefix(const char *name, bool *text)
{
    static const struct {
        const char *prefix, *kept; /* the part of it that belongs to the path */
        bool text;
    } prefixes[] = {
        {"lora_unet_", "", false},   {"lora_te_", "", true},          {"unet.", "", false},
        {"text_encoder.", "", true}, {"down_blocks.", "d", false},    {"mid_block.", "m", false},
        {"up_blocks.", "u", false},  {"text_model.", "t", true},      {"conv_in.", "c", false},
        {"conv_out.", "c", false},   {"time_embedding.", "t", false},
    };
    if (strncmp(name, "base_model.model.", 17) == 0)
        name += 17;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t length = strlen(prefixes[i].prefix);
        if (strncmp(name, prefixes[i].prefix, length) == 0) {
            *text = prefixes[i].text;
            return prefixes[i].kept[0] ? name : name + length;
        }
    }
    return NULL;
}

/* Fills a piece's module and kind from the name after its prefix. */
static bool understand(const char *name, struct piece *piece)
{
    static const struct {
        const char *ending;
        enum kind kind;
    } endings[] = {
        {".lora_down.weight", DOWN},
        {".lora_up.weight", UP},
        {".lora.down.weight", DOWN},
        {".lora.up.weight", UP},
        {".lora_A.weight", DOWN},
        {".lora_B.weight", UP},
        {".lora_A.default.weight", DOWN},
        {".lora_B.default.weight", UP},
        {".lora_linear_layer.down.weight", DOWN},
        {".lora_linear_layer.up.weight", UP},
        {"_lora.down.weight", DOWN},
        {"_lora.up.weight", UP},
        {".alpha", ALPHA},
    };
    size_t length = strlen(name);
    if (length >= DRAFT_LORA_MODULE)
        return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        if (!ends_with(name, length, endings[i].ending))
            continue;
        int stem = (int)(length - strlen(endings[i].ending));
        char path[DRAFT_LORA_MODULE];
        snprintf(path, sizeof path, "%.*s", stem, name);
        piece->kind = endings[i].kind;
        if (endings[i].ending[0] == '_') { /* the attention processors of diffusers before 0.17 */
            char *processor = strstr(path, ".processor.");
            if (processor == NULL)
                return false;
            memmove(processor, processor + 10, strlen(processor + 10) + 1);
            if (ends_with(path, strlen(path), ".to_out"))
                strncat(path, ".0", sizeof path - strlen(path) - 1);
        }
        draft_lora_mangle(piece->module, path, (int)strlen(path));
        return true;
    }
    return false;
}

static bool refuse_name(const struct draft_safetensors_entry *entry, struct draft_error *err)
{
    static const char *const others[] = {".hada_", ".lokr_", ".dora_scale",    ".lora_mid.",
                                         ".oft_",  ".diff",  ".lora_magnitude"};
    const char *path = draft_safetensors_path(entry->file);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strstr(entry->name, others[i]) != NULL)
            return draft_fail(
                err, DRAFT_INVALID_ARGUMENT,
                "%s: %.200s is of LoHa, LoKr, DoRA, OFT or another method that is no plain LoRA of a down "
                "and an up matrix; only those can be merged",
                path, entry->name);
    if (strncmp(entry->name, "lora_te1_", 9) == 0 || strncmp(entry->name, "lora_te2_", 9) == 0 ||
        strncmp(entry->name, "text_encoder_2.", 15) == 0)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is a LoRA for SDXL (%.200s)", path, entry->name);
    return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                      "%s: %.200s is no name of a LoRA as kohya, diffusers or PEFT write it", path, entry->name);
}

/* --- Alphas that are not in tensors ------------------------------------------------------------------------------- */

/* PEFT's configuration; keys begin with `prefix` ("unet."). */
static bool peft_alpha(struct draft_json *json, const char *prefix, double *alpha, struct draft_error *err)
{
    static const char *const off[][2] = {{"peft_type", "\"LORA\""},
                                         {"alpha_pattern", "{}"},
                                         {"rank_pattern", "{}"},
                                         {"use_rslora", "false"},
                                         {"use_dora", "false"}};
    char key[64];
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        snprintf(key, sizeof key, "%s%s", prefix, off[i][0]);
        if (!draft_json_require(json, key, off[i][1], err))
            return false;
    }
    snprintf(key, sizeof key, "%slora_alpha", prefix);
    return !draft_json_has(json, key) || draft_json_double(json, key, 0, alpha, err);
}

static bool read_alphas(struct draft_lora_file *file, const char *path, struct draft_error *err)
{
    static const char *const prefix[] = {"unet.", "text_encoder."};
    file->alpha[0] = file->alpha[1] = NAN;
    const char *text = draft_safetensors_metadata(file->file, "lora_adapter_metadata");
    if (text != NULL) { /* diffusers since 0.34 */
        struct draft_json *json = draft_json_parse(text, strlen(text), path, err);
        bool ok = json != NULL && peft_alpha(json, prefix[0], &file->alpha[0], err) &&
                  peft_alpha(json, prefix[1], &file->alpha[1], err);
        draft_json_close(json);
        return ok;
    }
    const char *slash = strrchr(path, '/');
    if (strcmp(slash != NULL ? slash + 1 : path, "adapter_model.safetensors") != 0)
        return true;
    char config[4096];
    snprintf(config, sizeof config, "%.*sadapter_config.json", slash != NULL ? (int)(slash - path + 1) : 0, path);
    struct draft_json *json = draft_json_open(config, err);
    bool ok = json != NULL && peft_alpha(json, "", &file->alpha[0], err);
    file->alpha[1] = file->alpha[0];
    draft_json_close(json);
    return ok;
}

/* --- Pairs -------------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const struct piece *left = a, *right = b;
    if (left->text != right->text)
        return left->text ? 1 : -1;
    int order = strcmp(left->module, right->module);
    return order != 0 ? order : (int)left->kind - (int)right->kind;
}

static bool check_pair(const struct draft_lora_pair *p, struct draft_error *err)
{
    const struct draft_safetensors_entry *down = p->down, *up = p->up;
    char a[160], b[160];
    bool ok = (down->rank == 2 || down->rank == 4) && (up->rank == 2 || up->rank == 4) &&
              (up->rank == 2 || (up->dim[2] == 1 && up->dim[3] == 1)) && down->dim[0] == up->dim[1] &&
              down->dim[0] >= 1 && down->dim[0] <= DRAFT_LORA_MAX_RANK && down->dim[1] >= 1 && up->dim[0] >= 1;
    return ok ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %.200s %s and %.200s %s are no down and up matrix of one rank",
                      draft_safetensors_path(down->file), down->name,
                      draft_shape_text(down->rank, down->dim, a, sizeof a), up->name,
                      draft_shape_text(up->rank, up->dim, b, sizeof b));
}

static bool read_alpha(const struct draft_safetensors_entry *entry, double *alpha, struct draft_error *err)
{
    float value = 0;
    if (entry->rank > 1 || (entry->rank == 1 && entry->dim[0] != 1))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %.200s is no single number",
                          draft_safetensors_path(entry->file), entry->name);
    if (entry->dtype == DRAFT_I64) {
        int64_t whole;
        memcpy(&whole, entry->data, sizeof whole);
        value = (float)whole;
    } else if (!draft_safetensors_to_f32(entry, &value, err)) {
        return false;
    }
    *alpha = value;
    return isfinite(value) || draft_fail(err, DRAFT_NON_FINITE, "%s: %.200s is not a finite number",
                                         draft_safetensors_path(entry->file), entry->name);
}

/* Pieces of one layer, sorted: down, up, alpha. Returns how many; 0 after a failure. */
static int take_pair(struct draft_lora_file *file, const struct piece *piece, int left, struct draft_error *err)
{
    const struct draft_safetensors_entry *found[3] = {NULL};
    int n = 0;
    for (; n < left && piece[n].text == piece->text && strcmp(piece[n].module, piece->module) == 0; n++) {
        if (found[piece[n].kind] != NULL) {
            draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %.200s and %.200s are of the same layer",
                       draft_safetensors_path(file->file), found[piece[n].kind]->name, piece[n].entry->name);
            return 0;
        }
        found[piece[n].kind] = piece[n].entry;
    }
    if (found[DOWN] == NULL || found[UP] == NULL) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %.200s has no %s matrix", draft_safetensors_path(file->file),
                   piece->entry->name, found[DOWN] == NULL ? "down" : "up");
        return 0;
    }
    struct draft_lora_pair *pair = &file->pair[file->count];
    *pair = (struct draft_lora_pair){.text = piece->text, .down = found[DOWN], .up = found[UP]};
    snprintf(pair->module, sizeof pair->module, "%s", piece->module);
    if (!check_pair(pair, err))
        return 0;
    pair->rank = pair->down->dim[0];
    double alpha = isnan(file->alpha[piece->text]) ? (double)pair->rank : file->alpha[piece->text];
    if (found[ALPHA] != NULL && !read_alpha(found[ALPHA], &alpha, err))
        return 0;
    if (alpha == 0) {
        draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "%s: the alpha of %.200s is 0: some tools take that for no effect, others for the rank (%lld); write "
            "the number that is meant",
            draft_safetensors_path(file->file), pair->down->name, (long long)pair->rank);
        return 0;
    }
    pair->scale = alpha / (double)pair->rank;
    file->count++;
    return n;
}

static bool load(struct draft_lora_file *file, struct piece *piece, struct draft_error *err)
{
    int count = draft_safetensors_count(file->file);
    for (int i = 0; i < count; i++) {
        const struct draft_safetensors_entry *entry = draft_safetensors_at(file->file, i);
        const char *rest = without_prefix(entry->name, &piece[i].text);
        piece[i].entry = entry;
        if (rest == NULL || !understand(rest, &piece[i]))
            return refuse_name(entry, err);
    }
    qsort(piece, (size_t)count, sizeof *piece, by_place);
    for (int i = 0, n; i < count; i += n)
        if ((n = take_pair(file, piece + i, count - i, err)) == 0)
            return false;
    return file->count > 0 ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s holds no tensor", draft_safetensors_path(file->file));
}

struct draft_lora_file *draft_lora_file_open(const char *path, struct draft_error *err)
{
    if (draft_is_pickle(path)) {
        draft_refuse_pickle(path, err);
        return NULL;
    }
    struct draft_lora_file *file = calloc(1, sizeof *file);
    if (file == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to read %s", path);
        return NULL;
    }
    struct piece *piece = NULL;
    bool ok = (file->file = draft_safetensors_open(path, err)) != NULL;
    if (ok) {
        size_t count = (size_t)draft_safetensors_count(file->file) + 1;
        piece = calloc(count, sizeof *piece);
        file->pair = calloc(count, sizeof *file->pair);
        ok =
            (piece != NULL && file->pair != NULL) || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to read %s", path);
    }
    ok = ok && read_alphas(file, path, err) && load(file, piece, err);
    free(piece);
    if (ok)
        return file;
    draft_lora_file_close(file);
    return NULL;
}

void draft_lora_file_close(struct draft_lora_file *file)
{
    if (file == NULL)
        return;
    draft_safetensors_close(file->file);
    free(file->pair);
    free(file);
}

int draft_lora_file_count(const struct draft_lora_file *file)
{
    return file->count;
}

const struct draft_lora_pair *draft_lora_file_at(const struct draft_lora_file *file, int index)
{
    return &file->pair[index];
}

const char *draft_lora_file_path(const struct draft_lora_file *file)
{
    return draft_safetensors_path(file->file);
}

static float *read_finite(const struct draft_safetensors_entry *entry, struct draft_error *err)
{
    size_t n = 1;
    for (int i = 0; i < entry->rank; i++)
        n *= (size_t)entry->dim[i];
    float *values = malloc(n * sizeof *values);
    if (values == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %.200s", entry->name);
        return NULL;
    }
    bool ok = draft_safetensors_to_f32(entry, values, err);
    for (size_t i = 0; ok && i < n; i++)
        if (!isfinite(values[i]))
            ok = draft_fail(err, DRAFT_NON_FINITE, "%s: %.200s holds a value that is not finite",
                            draft_safetensors_path(entry->file), entry->name);
    if (ok)
        return values;
    free(values);
    return NULL;
}

bool draft_lora_pair_read(const struct draft_lora_pair *pair, float **down, float **up, struct draft_error *err)
{
    *down = read_finite(pair->down, err);
    *up = *down != NULL ? read_finite(pair->up, err) : NULL;
    if (*up != NULL)
        return true;
    free(*down);
    *down = NULL;
    return false;
}
