/* open_clip's model.py and transformer.py: CLIP with a VisionTransformer and a text transformer. */
#include "models/open_clip.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "models/clip_parts.h"

enum { MAX_LAYERS = 512, HEAD_WIDTH = 64, MAX_IMAGE_HEADS = 16 };

static const char TEXT_BLOCKS[] = "transformer.resblocks", IMAGE_BLOCKS[] = "visual.transformer.resblocks";

/* --- Shapes --------------------------------------------------------------------------------------------------------
 */

static void read_tower(struct draft_loader *loader, struct clip_tower_config *tower, const char *blocks)
{
    char key[96];
    int64_t fc[2] = {0};
    for (tower->layers = 0; tower->layers < MAX_LAYERS; tower->layers++) {
        snprintf(key, sizeof key, "%s.%d.ln_1.weight", blocks, tower->layers);
        if (!draft_weights_has(loader->weights, key))
            break;
    }
    snprintf(key, sizeof key, "%s.0.mlp.c_fc.weight", blocks);
    draft_load_shape(loader, key, 2, "[mlp width, width]", fc);
    tower->wide = fc[0];
    tower->eps = 1e-5f;
    tower->activation = DRAFT_GELU;
}

static void read_shapes(struct draft_loader *loader, struct clip_config *config)
{
    int64_t conv1[4] = {0}, positions[2] = {0}, proj[2] = {0}, tokens[2] = {0}, text_positions[2] = {0}, side = 1;
    draft_load_shape(loader, "visual.conv1.weight", 4, "[width, 3, patch, patch]", conv1);
    draft_load_shape(loader, "visual.positional_embedding", 2, "[1 + patches, width]", positions);
    draft_load_shape(loader, "visual.proj", 2, "[width, projection]", proj);
    draft_load_shape(loader, "token_embedding.weight", 2, "[vocabulary, width]", tokens);
    draft_load_shape(loader, "positional_embedding", 2, "[positions, width]", text_positions);
    read_tower(loader, &config->vision.tower, IMAGE_BLOCKS);
    read_tower(loader, &config->text.tower, TEXT_BLOCKS);
    if (loader->error.code != DRAFT_OK)
        return;
    while (side * side < positions[0] - 1)
        side++;
    if (side * side != positions[0] - 1 || conv1[2] > 1024 || side > 1024)
        draft_fail(
            &loader->error, DRAFT_INVALID_ARGUMENT,
            "visual.positional_embedding has %lld rows for patches of %lld, expected 1 and those of a square picture",
            (long long)positions[0], (long long)conv1[2]);
    config->vision.channels = 3;
    config->vision.patch = conv1[2];
    config->vision.size = side * conv1[2];
    config->vision.tower.width = conv1[0];
    config->text.vocabulary = tokens[0];
    config->text.positions = text_positions[0];
    config->text.tower.width = tokens[1];
    config->text.end_token = 2; /* transformers' legacy rule: pooled at the largest id, as open_clip does */
    config->projection = proj[1];
    int64_t heads = conv1[0] / HEAD_WIDTH;
    config->vision.tower.heads = heads > MAX_IMAGE_HEADS ? MAX_IMAGE_HEADS : (int)heads;
    config->text.tower.heads = (int)(tokens[1] / HEAD_WIDTH);
}

/* --- open_clip_config.json -----------------------------------------------------------------------------------------
 */

/* A number that the tensors have told already. */
static bool agrees(struct draft_json *json, const char *key, int64_t told, struct draft_error *err)
{
    int64_t value;
    if (!draft_json_int(json, key, 1, INT32_MAX, told, &value, err))
        return false;
    return value == told || draft_fail(err, DRAFT_INVALID_ARGUMENT, "\"%s\" is %lld, the tensors' is %lld", key,
                                       (long long)value, (long long)told);
}

static bool read_vision(struct draft_json *json, struct clip_vision_config *c, struct draft_error *err)
{
    int64_t head = c->tower.heads > 0 ? c->tower.width / c->tower.heads : HEAD_WIDTH;
    if (draft_json_has(json, "width")) /* then an absent head_width is the class's default */
        head = HEAD_WIDTH;
    draft_json_ignore(json, (const char *const[]){"mlp_ratio", "patch_dropout", NULL});
    if (!agrees(json, "image_size", c->size, err) || !agrees(json, "layers", c->tower.layers, err) ||
        !agrees(json, "width", c->tower.width, err) || !agrees(json, "patch_size", c->patch, err) ||
        !draft_json_int(json, "head_width", 1, c->tower.width, head, &head, err))
        return false;
    c->tower.heads = c->tower.width % head == 0 ? (int)(c->tower.width / head) : 0;
    return draft_json_finish(json, err);
}

static bool read_text(struct draft_json *json, struct clip_text_config *c, struct draft_error *err)
{
    int64_t heads = c->tower.heads;
    draft_json_ignore(json, (const char *const[]){"mlp_ratio", NULL});
    if (!agrees(json, "context_length", c->positions, err) || !agrees(json, "vocab_size", c->vocabulary, err) ||
        !agrees(json, "width", c->tower.width, err) || !agrees(json, "layers", c->tower.layers, err) ||
        !draft_json_int(json, "heads", 1, c->tower.width, heads < 1 ? 1 : heads, &heads, err))
        return false;
    c->tower.heads = (int)heads;
    return draft_json_finish(json, err);
}

static bool read_model(struct draft_json *model, struct clip_config *config, struct draft_error *err)
{
    bool quick;
    struct draft_json *vision = draft_json_child(model, "vision_cfg", err), *text = NULL;
    if (vision != NULL)
        text = draft_json_child(model, "text_cfg", err);
    if (text == NULL)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "no \"vision_cfg\" and \"text_cfg\" in model_cfg");
    if (!agrees(model, "embed_dim", config->projection, err) ||
        !draft_json_bool(model, "quick_gelu", false, &quick, err) || !read_vision(vision, &config->vision, err) ||
        !read_text(text, &config->text, err))
        return false;
    config->vision.tower.activation = config->text.tower.activation = quick ? DRAFT_QUICK_GELU : DRAFT_GELU;
    return draft_json_finish(model, err);
}

/* How pictures are prepared (preprocess_cfg) is the reward's business. */
static bool read_config(const char *folder, struct clip_config *config, struct draft_error *err)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/open_clip_config.json", folder) >= (int)sizeof path)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the folder has too long a name");
    if (access(path, F_OK) != 0)
        return true;
    struct draft_error error = {0};
    struct draft_json *json = draft_json_open(path, err);
    if (json == NULL)
        return false;
    draft_json_ignore(json, (const char *const[]){"preprocess_cfg", NULL});
    struct draft_json *model = draft_json_child(json, "model_cfg", &error);
    if (model == NULL)
        draft_fail(&error, DRAFT_INVALID_ARGUMENT, "no \"model_cfg\"");
    bool ok = model != NULL && read_model(model, config, &error) && draft_json_finish(json, &error);
    draft_json_close(json);
    return ok || (strncmp(error.message, path, strlen(path)) == 0
                      ? draft_fail(err, error.code, "%s", error.message)
                      : draft_fail(err, error.code, "%s: %s", path, error.message));
}

static bool check_heads(const struct clip_tower_config *tower, const char *name, struct draft_error *err)
{
    return (tower->heads >= 1 && tower->width % tower->heads == 0) ||
           draft_fail(
               err, DRAFT_INVALID_ARGUMENT,
               "the %s tower's width %lld does not divide into heads; open_clip_config.json says how many there are",
               name, (long long)tower->width);
}

/* --- Weights -------------------------------------------------------------------------------------------------------
 */

static void load_fused(struct draft_loader *loader, struct clip_layer *l, int64_t width, const char *block)
{
    char weight[128], bias[128];
    snprintf(weight, sizeof weight, "%s.attn.in_proj_weight", block);
    snprintf(bias, sizeof bias, "%s.attn.in_proj_bias", block);
    draft_load_fused_linear(loader, (struct draft_linear_layer *[]){&l->q_proj, &l->k_proj, &l->v_proj}, 3, width,
                            width, weight, bias);
}

static void load_blocks(struct draft_loader *loader, struct clip_encoder *encoder,
                        const struct clip_tower_config *config, const char *blocks)
{
    const int64_t width = config->width;
    char name[96];
    encoder->config = *config;
    encoder->layer = draft_load_alloc(loader, (size_t)config->layers * sizeof *encoder->layer);
    for (int i = 0; i < config->layers && encoder->layer != NULL; i++) {
        struct clip_layer *l = &encoder->layer[i];
        snprintf(name, sizeof name, "%s.%d", blocks, i);
        draft_load_layer_norm(loader, &l->layer_norm1, width, config->eps, "%s.ln_1", name);
        load_fused(loader, l, width, name);
        draft_load_linear(loader, &l->out_proj, width, width, true, "%s.attn.out_proj", name);
        draft_load_layer_norm(loader, &l->layer_norm2, width, config->eps, "%s.ln_2", name);
        draft_load_linear(loader, &l->fc1, width, config->wide, true, "%s.mlp.c_fc", name);
        draft_load_linear(loader, &l->fc2, config->wide, width, true, "%s.mlp.c_proj", name);
    }
}

/* x @ P in open_clip, P [in, out]; a linear layer holds its transpose. */
static struct draft_linear_layer load_projection(struct draft_loader *loader, const char *key, int64_t in, int64_t out)
{
    struct draft_linear_layer layer = {0};
    const struct draft_tensor *p = draft_load_tensor(loader, key, 2, (int64_t[]){in, out});
    float *data = p != NULL ? draft_load_alloc(loader, (size_t)(in * out) * sizeof *data) : NULL;
    struct draft_tensor *weight = data != NULL ? draft_load_alloc(loader, sizeof *weight) : NULL;
    if (weight == NULL)
        return layer;
    *weight = (struct draft_tensor){.dtype = DRAFT_F32, .rank = 2, .dim = {out, in}, .data = data, .name = p->name};
    for (int64_t i = 0; i < in; i++)
        for (int64_t o = 0; o < out; o++)
            data[o * in + i] = draft_f32(p)[i * out + o];
    layer.weight = weight;
    return layer;
}

static void load_text(struct draft_loader *loader, struct draft_clip *clip, const struct clip_config *config)
{
    const struct clip_text_config *c = &config->text;
    const int64_t width = c->tower.width;
    clip->text.config = *c;
    clip->text.token_embedding = draft_load_table(loader, "token_embedding.weight", c->vocabulary, width);
    clip->text.position_embedding =
        draft_load_tensor(loader, "positional_embedding", 2, (int64_t[]){c->positions, width});
    load_blocks(loader, &clip->text.encoder, &c->tower, TEXT_BLOCKS);
    draft_load_layer_norm(loader, &clip->text.final_layer_norm, width, c->tower.eps, "ln_final");
    clip->text_projection = load_projection(loader, "text_projection", width, config->projection);
}

static void load_vision(struct draft_loader *loader, struct draft_clip *clip, const struct clip_config *config)
{
    const struct clip_vision_config *c = &config->vision;
    const int64_t width = c->tower.width, side = c->size / c->patch;
    struct clip_vision *v = &clip->vision;
    v->config = *c;
    v->class_embedding = draft_load_tensor(loader, "visual.class_embedding", 1, &width);
    v->position_embedding =
        draft_load_tensor(loader, "visual.positional_embedding", 2, (int64_t[]){1 + side * side, width});
    draft_load_patches(loader, &v->patch_embedding, c->channels, width, (int)c->patch, "visual.conv1");
    draft_load_layer_norm(loader, &v->pre_layernorm, width, c->tower.eps, "visual.ln_pre");
    load_blocks(loader, &v->encoder, &c->tower, IMAGE_BLOCKS);
    draft_load_layer_norm(loader, &v->post_layernorm, width, c->tower.eps, "visual.ln_post");
    clip->visual_projection = load_projection(loader, "visual.proj", width, config->projection);
}

struct draft_clip *draft_open_clip_open(const char *folder, const char *stem, struct draft_arena *arena,
                                        struct draft_error *err)
{
    struct draft_weights *weights = draft_weights_open(folder, stem, arena, err);
    if (weights == NULL)
        return NULL;
    struct clip_config config = {0};
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, NULL);
    read_shapes(&loader, &config);
    if (loader.error.code != DRAFT_OK)
        draft_error_prefix(&loader.error, "%s/%s.safetensors: ", folder, stem);
    struct draft_clip *clip = draft_load_alloc(&loader, sizeof *clip);
    if (clip != NULL && read_config(folder, &config, &loader.error) &&
        check_heads(&config.vision.tower, "image", &loader.error) &&
        check_heads(&config.text.tower, "text", &loader.error)) {
        load_text(&loader, clip, &config);
        load_vision(&loader, clip, &config);
        draft_clip_load_scale(&loader, clip);
    }
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, (const char *const[]){"attn_mask", NULL}, &loader.error);
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK) {
        draft_fail(err, loader.error.code, "%s", loader.error.message);
        return NULL;
    }
    return clip;
}
