#include "tensor/ldm_names.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SD 2.x takes the hidden states before the last of CLIP-H's 24 layers. */
enum { OPEN_CLIP_LAYERS_USED = 23, MAX_TEXT_LAYERS = 512, MAX_LAYERS = 16 };

static const char *const PREFIX[] = {"model.diffusion_model.", "first_stage_model.", "cond_stage_model."};

static const char *const CALLED[] = {"UNet", "VAE", "text encoder"};

/* The members of a block, LDM's name and diffusers'. A name not in the list stays as it is, unless the list is closed.
 */
struct member {
    const char *ldm, *diffusers;
};

static const struct member UNET_RESNET[] = {{"in_layers.0", "norm1"},
                                            {"in_layers.2", "conv1"},
                                            {"emb_layers.1", "time_emb_proj"},
                                            {"out_layers.0", "norm2"},
                                            {"out_layers.3", "conv2"},
                                            {"skip_connection", "conv_shortcut"},
                                            {NULL, NULL}};
static const struct member VAE_RESNET[] = {{"nin_shortcut", "conv_shortcut"}, {NULL, NULL}};
static const struct member VAE_ATTENTION[] = {{"norm", "group_norm"},   {"q", "to_q"}, {"k", "to_k"}, {"v", "to_v"},
                                              {"proj_out", "to_out.0"}, {NULL, NULL}};
static const struct member OPEN_CLIP_LAYER[] = {
    {"ln_1", "layer_norm1"}, {"ln_2", "layer_norm2"},   {"attn.out_proj", "self_attn.out_proj"},
    {"mlp.c_fc", "mlp.fc1"}, {"mlp.c_proj", "mlp.fc2"}, {NULL, NULL}};
static const struct member SAME[] = {{NULL, NULL}};

struct block {
    char ldm[96], diffusers[96]; /* prefixes, up to a dot */
    const struct member *members;
};

struct draft_ldm_map {
    struct block *block;
    int count, capacity;
    bool failed;
};

/* --- Building ----------------------------------------------------------------------------------------------------- */

static void add(struct draft_ldm_map *map, const struct member *members, const char *ldm, const char *diffusers)
{
    if (map->count == map->capacity) {
        int capacity = map->capacity ? 2 * map->capacity : 64;
        struct block *more = realloc(map->block, (size_t)capacity * sizeof *more);
        if (more == NULL) {
            map->failed = true;
            return;
        }
        map->block = more;
        map->capacity = capacity;
    }
    struct block *block = &map->block[map->count++];
    block->members = members;
    snprintf(block->ldm, sizeof block->ldm, "%s", ldm);
    snprintf(block->diffusers, sizeof block->diffusers, "%s", diffusers);
}

/* "%d" in the names are filled from a, b (LDM) and c, d (diffusers). */
static void add_numbered(struct draft_ldm_map *map, const struct member *members, const char *part, const char *ldm,
                         int a, int b, const char *diffusers, int c, int d)
{
    char left[96], right[96], tail[48];
    snprintf(tail, sizeof tail, ldm, a, b);
    snprintf(right, sizeof right, diffusers, c, d);
    snprintf(left, sizeof left, "%s%s", part, tail);
    add(map, members, left, right);
}

static void map_unet(struct draft_ldm_map *map, const struct draft_ldm_shape *s)
{
    const char *p = PREFIX[DRAFT_LDM_UNET];
    add_numbered(map, SAME, p, "time_embed.%d.", 0, 0, "time_embedding.linear_%d.", 1, 0);
    add_numbered(map, SAME, p, "time_embed.%d.", 2, 0, "time_embedding.linear_%d.", 2, 0);
    add_numbered(map, SAME, p, "input_blocks.0.0.", 0, 0, "conv_in.", 0, 0);
    add_numbered(map, SAME, p, "out.0.", 0, 0, "conv_norm_out.", 0, 0);
    add_numbered(map, SAME, p, "out.2.", 0, 0, "conv_out.", 0, 0);
    for (int level = 0; level < s->levels; level++) {
        int first = 1 + level * (s->layers + 1);
        for (int i = 0; i < s->layers; i++) {
            add_numbered(map, UNET_RESNET, p, "input_blocks.%d.0.", first + i, 0, "down_blocks.%d.resnets.%d.", level,
                         i);
            add_numbered(map, SAME, p, "input_blocks.%d.1.", first + i, 0, "down_blocks.%d.attentions.%d.", level, i);
        }
        if (level + 1 < s->levels)
            add_numbered(map, SAME, p, "input_blocks.%d.0.op.", first + s->layers, 0,
                         "down_blocks.%d.downsamplers.0.conv.", level, 0);
    }
    for (int i = 0; i < 2; i++)
        add_numbered(map, UNET_RESNET, p, "middle_block.%d.", 2 * i, 0, "mid_block.resnets.%d.", i, 0);
    add_numbered(map, SAME, p, "middle_block.1.", 0, 0, "mid_block.attentions.0.", 0, 0);
    for (int level = 0; level < s->levels; level++) {
        int first = level * (s->layers + 1);
        for (int i = 0; i <= s->layers; i++) {
            add_numbered(map, UNET_RESNET, p, "output_blocks.%d.0.", first + i, 0, "up_blocks.%d.resnets.%d.", level,
                         i);
            if (s->up_attends[level])
                add_numbered(map, SAME, p, "output_blocks.%d.1.", first + i, 0, "up_blocks.%d.attentions.%d.", level,
                             i);
        }
        if (level + 1 < s->levels)
            add_numbered(map, SAME, p, "output_blocks.%d.%d.conv.", first + s->layers, s->up_attends[level] ? 2 : 1,
                         "up_blocks.%d.upsamplers.0.conv.", level, 0);
    }
}

static void map_vae(struct draft_ldm_map *map, const struct draft_ldm_shape *s)
{
    static const char *const coders[] = {"encoder", "decoder"};
    static const char *const same[] = {"conv_in.", "conv_out."};
    const char *p = PREFIX[DRAFT_LDM_VAE];
    add_numbered(map, SAME, p, "quant_conv.", 0, 0, "quant_conv.", 0, 0);
    add_numbered(map, SAME, p, "post_quant_conv.", 0, 0, "post_quant_conv.", 0, 0);
    for (int coder = 0; coder < 2; coder++) {
        char part[48], left[96], right[96];
        snprintf(part, sizeof part, "%s%s.", p, coders[coder]);
        for (int i = 0; i < 2; i++) {
            snprintf(left, sizeof left, "%s%s", part, same[i]);
            add(map, SAME, left, left + strlen(p));
            snprintf(left, sizeof left, "%smid.block_%d.", part, i + 1);
            snprintf(right, sizeof right, "%s.mid_block.resnets.%d.", coders[coder], i);
            add(map, VAE_RESNET, left, right);
        }
        snprintf(left, sizeof left, "%snorm_out.", part);
        snprintf(right, sizeof right, "%s.conv_norm_out.", coders[coder]);
        add(map, SAME, left, right);
        snprintf(left, sizeof left, "%smid.attn_1.", part);
        snprintf(right, sizeof right, "%s.mid_block.attentions.0.", coders[coder]);
        add(map, VAE_ATTENTION, left, right);
    }
    for (int level = 0; level < s->vae_levels; level++) {
        int up = s->vae_levels - 1 - level; /* LDM counts the decoder's blocks from the highest resolution */
        for (int i = 0; i < MAX_LAYERS; i++) {
            add_numbered(map, VAE_RESNET, p, "encoder.down.%d.block.%d.", level, i,
                         "encoder.down_blocks.%d.resnets.%d.", level, i);
            add_numbered(map, VAE_RESNET, p, "decoder.up.%d.block.%d.", level, i, "decoder.up_blocks.%d.resnets.%d.",
                         up, i);
        }
        add_numbered(map, SAME, p, "encoder.down.%d.downsample.conv.", level, 0,
                     "encoder.down_blocks.%d.downsamplers.0.conv.", level, 0);
        add_numbered(map, SAME, p, "decoder.up.%d.upsample.conv.", level, 0, "decoder.up_blocks.%d.upsamplers.0.conv.",
                     up, 0);
    }
}

static void map_text(struct draft_ldm_map *map, const struct draft_ldm_shape *s)
{
    if (!s->open_clip) {
        add(map, SAME, "cond_stage_model.transformer.text_model.", "text_model.");
        add(map, SAME, "cond_stage_model.transformer.", "text_model.");
        return;
    }
    const char *p = "cond_stage_model.model.";
    add_numbered(map, SAME, p, "token_embedding.", 0, 0, "text_model.embeddings.token_embedding.", 0, 0);
    add_numbered(map, SAME, p, "positional_embedding", 0, 0, "text_model.embeddings.position_embedding.weight", 0, 0);
    add_numbered(map, SAME, p, "ln_final.", 0, 0, "text_model.final_layer_norm.", 0, 0);
    for (int i = 0; i < s->text_layers; i++)
        add_numbered(map, OPEN_CLIP_LAYER, p, "transformer.resblocks.%d.", i, 0, "text_model.encoder.layers.%d.", i, 0);
}

struct draft_ldm_map *draft_ldm_map(enum draft_ldm_part part, const struct draft_ldm_shape *shape)
{
    struct draft_ldm_map *map = calloc(1, sizeof *map);
    if (map == NULL)
        return NULL;
    if (part == DRAFT_LDM_UNET)
        map_unet(map, shape);
    else if (part == DRAFT_LDM_VAE)
        map_vae(map, shape);
    else
        map_text(map, shape);
    if (!map->failed)
        return map;
    draft_ldm_map_free(map);
    return NULL;
}

void draft_ldm_map_free(struct draft_ldm_map *map)
{
    if (map != NULL)
        free(map->block);
    free(map);
}

/* --- Translating -------------------------------------------------------------------------------------------------- */

/* "conv1.weight" begins with the member "conv1", and "to_q" not with "to". */
static bool begins(const char *name, const char *member)
{
    size_t length = strlen(member);
    return strncmp(name, member, length) == 0 && (name[length] == '.' || name[length] == '\0');
}

static bool translate(const struct draft_ldm_map *map, const char *name, bool back, char *out)
{
    const struct block *best = NULL; /* of two original forms of one name the first is the one to write */
    size_t longest = 0;
    for (int i = 0; i < map->count; i++) {
        const char *from = back ? map->block[i].diffusers : map->block[i].ldm;
        size_t length = strlen(from);
        if (length > longest && strncmp(name, from, length) == 0) {
            best = &map->block[i];
            longest = length;
        }
    }
    if (best == NULL)
        return false;
    const char *tail = name + longest, *to = back ? best->ldm : best->diffusers;
    const char *replaced = "";
    for (const struct member *m = best->members; m->ldm != NULL; m++) {
        const char *from = back ? m->diffusers : m->ldm;
        if (begins(tail, from)) {
            replaced = back ? m->ldm : m->diffusers;
            tail += strlen(from);
            break;
        }
    }
    return snprintf(out, DRAFT_LDM_NAME, "%s%s%s", to, replaced, tail) < DRAFT_LDM_NAME;
}

bool draft_ldm_to_diffusers(const struct draft_ldm_map *map, const char *name, char out[DRAFT_LDM_NAME])
{
    return translate(map, name, false, out);
}

bool draft_ldm_from_diffusers(const struct draft_ldm_map *map, const char *name, char out[DRAFT_LDM_NAME])
{
    return translate(map, name, true, out);
}

/* --- What a file's names say -------------------------------------------------------------------------------------- */

static bool has(const struct draft_safetensors *file, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool has(const struct draft_safetensors *file, const char *format, ...)
{
    char name[DRAFT_LDM_NAME];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return draft_safetensors_find(file, name) != NULL;
}

bool draft_ldm_is(const struct draft_safetensors *file)
{
    for (int i = 0; i < draft_safetensors_count(file); i++)
        for (size_t k = 0; k < sizeof PREFIX / sizeof *PREFIX; k++)
            if (strncmp(draft_safetensors_at(file, i)->name, PREFIX[k], strlen(PREFIX[k])) == 0)
                return true;
    return false;
}

struct draft_ldm_shape draft_ldm_shape_of(const struct draft_safetensors *file)
{
    enum { MAX_BLOCKS = DRAFT_LDM_LEVELS * (MAX_LAYERS + 1) };
    static const char unet[] = "model.diffusion_model.";
    struct draft_ldm_shape s = {.levels = 1};
    int blocks = 1, downs = 0;
    for (; blocks < MAX_BLOCKS; blocks++) {
        bool down = has(file, "%sinput_blocks.%d.0.op.weight", unet, blocks);
        if (!down && !has(file, "%sinput_blocks.%d.0.in_layers.0.weight", unet, blocks))
            break;
        if (down && downs++ == 0)
            s.layers = blocks - 1;
    }
    if (downs == 0)
        s.layers = blocks - 1;
    s.levels = downs < DRAFT_LDM_LEVELS ? downs + 1 : DRAFT_LDM_LEVELS;
    for (int i = 0; i < s.levels; i++)
        s.up_attends[i] = has(file, "%soutput_blocks.%d.1.norm.weight", unet, i * (s.layers + 1));
    while (s.vae_levels < DRAFT_LDM_LEVELS &&
           has(file, "first_stage_model.decoder.up.%d.block.0.norm1.weight", s.vae_levels))
        s.vae_levels++;
    s.open_clip = has(file, "cond_stage_model.model.token_embedding.weight");
    while (s.text_layers < MAX_TEXT_LAYERS &&
           (s.open_clip
                ? has(file, "cond_stage_model.model.transformer.resblocks.%d.ln_1.weight", s.text_layers)
                : has(file, "cond_stage_model.transformer.text_model.encoder.layers.%d.layer_norm1.weight",
                      s.text_layers) ||
                      has(file, "cond_stage_model.transformer.encoder.layers.%d.layer_norm1.weight", s.text_layers)))
        s.text_layers++;
    if (s.open_clip && s.text_layers > OPEN_CLIP_LAYERS_USED)
        s.text_layers = OPEN_CLIP_LAYERS_USED;
    return s;
}

/* As diffusers' from_single_file decides, after what the file says of itself: modelspec, or the empty tensor "v_pred".
 */
const char *draft_ldm_prediction(const struct draft_safetensors *file)
{
    enum { BASE_STEPS = 875000 }; /* Stability's 512-base, the one SD 2.0 checkpoint that predicts epsilon */
    const char *told = draft_safetensors_metadata(file, "modelspec.prediction_type");
    if (told != NULL)
        return strcmp(told, "v") == 0 ? "v_prediction" : told;
    const struct draft_safetensors_entry *step = draft_safetensors_find(file, "global_step");
    float steps = 0;
    if (step != NULL && step->bytes == sizeof(int64_t) && step->dtype == DRAFT_I64) {
        int64_t whole;
        memcpy(&whole, step->data, sizeof whole);
        steps = (float)whole;
    } else if (step != NULL && step->bytes == sizeof steps && step->dtype == DRAFT_F32) {
        memcpy(&steps, step->data, sizeof steps);
    }
    bool v = has(file, "v_pred") || (draft_ldm_shape_of(file).open_clip && steps != BASE_STEPS);
    return v ? "v_prediction" : "epsilon";
}

bool draft_ldm_zero_snr(const struct draft_safetensors *file)
{
    return has(file, "ztsnr");
}

int draft_ldm_resolution(const struct draft_safetensors *file)
{
    int height = 0, width = 0, end = 0;
    const char *told = draft_safetensors_metadata(file, "modelspec.resolution");
    if (told != NULL && sscanf(told, "%5dx%5d%n", &width, &height, &end) == 2 && told[end] == '\0' && width > 0 &&
        width == height && width % 8 == 0)
        return width;
    return draft_ldm_shape_of(file).open_clip && strcmp(draft_ldm_prediction(file), "v_prediction") == 0 ? 768 : 512;
}

/* --- Entries ------------------------------------------------------------------------------------------------------ */

static bool unused(const char *name, const struct draft_ldm_shape *shape)
{
    static const char *const begin[] = {"first_stage_model.loss.", "first_stage_model.model_ema.",
                                        "cond_stage_model.model.visual.", NULL};
    static const char *const whole[] = {"cond_stage_model.logit_scale",
                                        "cond_stage_model.text_projection",
                                        "cond_stage_model.model.logit_scale",
                                        "cond_stage_model.model.text_projection",
                                        "cond_stage_model.model.attn_mask",
                                        "cond_stage_model.transformer.text_projection.weight",
                                        "cond_stage_model.transformer.text_model.embeddings.position_ids",
                                        "cond_stage_model.transformer.embeddings.position_ids",
                                        NULL};
    for (int i = 0; begin[i] != NULL; i++)
        if (strncmp(name, begin[i], strlen(begin[i])) == 0)
            return true;
    for (int i = 0; whole[i] != NULL; i++)
        if (strcmp(name, whole[i]) == 0)
            return true;
    int layer, end = 0;
    return shape->open_clip && sscanf(name, "cond_stage_model.model.transformer.resblocks.%d.%n", &layer, &end) == 1 &&
           end > 0 && layer == OPEN_CLIP_LAYERS_USED;
}

struct list {
    struct draft_safetensors_entry *entry;
    int count, capacity;
};

static bool append(struct list *list, const struct draft_safetensors_entry *entry, const char *name)
{
    char *copy = strdup(name);
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 256;
        struct draft_safetensors_entry *more = realloc(list->entry, (size_t)capacity * sizeof *more);
        if (more == NULL) {
            free(copy);
            return false;
        }
        list->entry = more;
        list->capacity = capacity;
    }
    if (copy == NULL)
        return false;
    list->entry[list->count] = *entry;
    list->entry[list->count++].name = copy;
    return true;
}

/* open_clip's attention keeps q, k and v in one [3 * width, width] (torch.nn.MultiheadAttention). 1: done; 0: no such
 * tensor; -1: no memory. */
static int append_fused(struct list *list, const struct draft_safetensors_entry *entry, const char *in_diffusers)
{
    static const char *const kinds[] = {"weight", "bias"}, *const names[] = {"q", "k", "v"};
    for (int kind = 0; kind < 2; kind++) {
        char ending[32], name[DRAFT_LDM_NAME];
        int tail = snprintf(ending, sizeof ending, "attn.in_proj_%s", kinds[kind]);
        size_t length = strlen(in_diffusers);
        if (length < (size_t)tail || strcmp(in_diffusers + length - (size_t)tail, ending) != 0)
            continue;
        if (entry->rank != 2 - kind || entry->dim[0] % 3 != 0)
            return 0;
        for (int i = 0; i < 3; i++) {
            struct draft_safetensors_entry slice = *entry;
            slice.dim[0] /= 3;
            slice.bytes /= 3;
            slice.offset += (uint64_t)i * slice.bytes;
            slice.data = (const char *)slice.data + (size_t)i * slice.bytes;
            snprintf(name, sizeof name, "%.*sself_attn.%s_proj.%s", (int)(length - (size_t)tail), in_diffusers,
                     names[i], kinds[kind]);
            if (!append(list, &slice, name))
                return -1;
        }
        return 1;
    }
    return 0;
}

static bool append_renamed(struct list *list, const struct draft_ldm_map *map, enum draft_ldm_part part,
                           const struct draft_safetensors_entry *entry)
{
    char name[DRAFT_LDM_NAME];
    if (!draft_ldm_to_diffusers(map, entry->name, name))
        return append(list, entry, entry->name);
    int fused = part == DRAFT_LDM_TEXT ? append_fused(list, entry, name) : 0;
    if (fused != 0)
        return fused > 0;
    struct draft_safetensors_entry shaped = *entry;
    if (part == DRAFT_LDM_VAE && strstr(name, "mid_block.attentions.0.to_") != NULL && entry->rank == 4 &&
        entry->dim[2] == 1 && entry->dim[3] == 1)
        shaped.rank = 2;
    return append(list, &shaped, name);
}

static int by_name(const void *a, const void *b)
{
    const struct draft_safetensors_entry *left = a, *right = b;
    return strcmp(left->name, right->name);
}

bool draft_ldm_entries(const struct draft_safetensors *file, enum draft_ldm_part part,
                       struct draft_safetensors_entry **entries, int *count, struct draft_error *err)
{
    struct draft_ldm_shape shape = draft_ldm_shape_of(file);
    struct draft_ldm_map *map = draft_ldm_map(part, &shape);
    struct list list = {0};
    bool ok = map != NULL;
    for (int i = 0; ok && i < draft_safetensors_count(file); i++) {
        const struct draft_safetensors_entry *entry = draft_safetensors_at(file, i);
        if (strncmp(entry->name, PREFIX[part], strlen(PREFIX[part])) == 0 && !unused(entry->name, &shape))
            ok = append_renamed(&list, map, part, entry);
    }
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", draft_safetensors_path(file));
    draft_ldm_map_free(map);
    if (list.count > 0)
        qsort(list.entry, (size_t)list.count, sizeof *list.entry, by_name);
    if (ok && list.count == 0)
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT,
                        "%s holds no %s (no tensor begins with %s); a checkpoint of the whole model is needed",
                        draft_safetensors_path(file), CALLED[part], PREFIX[part]);
    for (int i = 1; ok && i < list.count; i++)
        if (strcmp(list.entry[i - 1].name, list.entry[i].name) == 0)
            ok = draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s holds %s twice, under two names",
                            draft_safetensors_path(file), list.entry[i].name);
    if (!ok) {
        draft_ldm_entries_free(list.entry, list.count);
        return false;
    }
    *entries = list.entry;
    *count = list.count;
    return true;
}

void draft_ldm_entries_free(struct draft_safetensors_entry *entries, int count)
{
    for (int i = 0; i < count; i++)
        free((char *)(uintptr_t)entries[i].name);
    free(entries);
}
