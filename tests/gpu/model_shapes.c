#include "model_shapes.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LAYERS = 2, PICTURE = 224 };

/* --- Layers ---------------------------------------------------------------------------------------------------------
 */

static void add(struct model_tensors *list, const char *layer, const char *kind, int rank, int64_t a, int64_t b,
                int64_t c, int64_t d)
{
    assert(list->count < MODEL_MAX_TENSORS);
    struct model_tensor *t = &list->tensor[list->count++];
    *t = (struct model_tensor){.rank = rank, .dim = {a, b, c, d}};
    snprintf(t->name, sizeof t->name, "%s%s%s", layer, *kind ? "." : "", kind);
}

/* "down_blocks.0.resnets.1" + ".norm1" */
struct layer {
    char name[96];
};
static struct layer inside(const char *format, ...) __attribute__((format(printf, 1, 2)));
static struct layer inside(const char *format, ...)
{
    struct layer layer;
    va_list list;
    va_start(list, format);
    vsnprintf(layer.name, sizeof layer.name, format, list);
    va_end(list);
    return layer;
}

static void norm(struct model_tensors *list, struct layer layer, int c)
{
    add(list, layer.name, "weight", 1, c, 0, 0, 0);
    add(list, layer.name, "bias", 1, c, 0, 0, 0);
}

static void linear(struct model_tensors *list, struct layer layer, int in, int out)
{
    add(list, layer.name, "weight", 2, out, in, 0, 0);
    add(list, layer.name, "bias", 1, out, 0, 0, 0);
}

static void plain_linear(struct model_tensors *list, struct layer layer, int in, int out)
{
    add(list, layer.name, "weight", 2, out, in, 0, 0);
}

static void conv(struct model_tensors *list, struct layer layer, int in, int out, int side)
{
    add(list, layer.name, "weight", 4, out, in, side, side);
    add(list, layer.name, "bias", 1, out, 0, 0, 0);
}

static void resnet(struct model_tensors *list, struct layer layer, int in, int out, int time)
{
    norm(list, inside("%s.norm1", layer.name), in);
    conv(list, inside("%s.conv1", layer.name), in, out, 3);
    if (time > 0)
        linear(list, inside("%s.time_emb_proj", layer.name), time, out);
    norm(list, inside("%s.norm2", layer.name), out);
    conv(list, inside("%s.conv2", layer.name), out, out, 3);
    if (in != out)
        conv(list, inside("%s.conv_shortcut", layer.name), in, out, 1);
}

static void attention(struct model_tensors *list, struct layer layer, int c, int context)
{
    plain_linear(list, inside("%s.to_q", layer.name), c, c);
    plain_linear(list, inside("%s.to_k", layer.name), context, c);
    plain_linear(list, inside("%s.to_v", layer.name), context, c);
    linear(list, inside("%s.to_out.0", layer.name), c, c);
}

static void transformer(struct model_tensors *list, struct layer layer, int c, int context)
{
    norm(list, inside("%s.norm", layer.name), c);
    conv(list, inside("%s.proj_in", layer.name), c, c, 1);
    conv(list, inside("%s.proj_out", layer.name), c, c, 1);
    struct layer block = inside("%s.transformer_blocks.0", layer.name);
    attention(list, inside("%s.attn1", block.name), c, c);
    attention(list, inside("%s.attn2", block.name), c, context);
    linear(list, inside("%s.ff.net.0.proj", block.name), c, 8 * c);
    linear(list, inside("%s.ff.net.2", block.name), 4 * c, c);
    for (int i = 1; i <= 3; i++)
        norm(list, inside("%s.norm%d", block.name, i), c);
}

/* --- Stable Diffusion 1.x -------------------------------------------------------------------------------------------
 */

enum { LAST = MODEL_LEVELS - 1 };

/* Returns how many skip connections it leaves, their channels in `skips`. */
static int down(struct model_tensors *list, const struct pipeline_size *size, int time, int *skips)
{
    const int *ch = size->channels;
    int left = 0;
    skips[left++] = ch[0];
    for (int b = 0; b < MODEL_LEVELS; b++) {
        for (int i = 0; i < LAYERS; i++) {
            resnet(list, inside("down_blocks.%d.resnets.%d", b, i), i == 0 && b > 0 ? ch[b - 1] : ch[b], ch[b], time);
            if (b < LAST)
                transformer(list, inside("down_blocks.%d.attentions.%d", b, i), ch[b], size->context);
            skips[left++] = ch[b];
        }
        if (b < LAST) {
            conv(list, inside("down_blocks.%d.downsamplers.0.conv", b), ch[b], ch[b], 3);
            skips[left++] = ch[b];
        }
    }
    return left;
}

static void up(struct model_tensors *list, const struct pipeline_size *size, int time, const int *skips, int left)
{
    int x = size->channels[LAST];
    for (int b = 0; b < MODEL_LEVELS; b++) {
        int c = size->channels[LAST - b];
        for (int i = 0; i <= LAYERS; i++) {
            resnet(list, inside("up_blocks.%d.resnets.%d", b, i), x + skips[--left], c, time);
            x = c;
            if (b > 0)
                transformer(list, inside("up_blocks.%d.attentions.%d", b, i), c, size->context);
        }
        if (b < LAST)
            conv(list, inside("up_blocks.%d.upsamplers.0.conv", b), c, c, 3);
    }
}

void model_unet(struct model_tensors *list, const struct pipeline_size *size)
{
    int skips[4 * MODEL_LEVELS], first = size->channels[0], middle = size->channels[LAST], time = 4 * first;
    conv(list, inside("conv_in"), 4, first, 3);
    linear(list, inside("time_embedding.linear_1"), first, time);
    linear(list, inside("time_embedding.linear_2"), time, time);
    int left = down(list, size, time, skips);
    resnet(list, inside("mid_block.resnets.0"), middle, middle, time);
    transformer(list, inside("mid_block.attentions.0"), middle, size->context);
    resnet(list, inside("mid_block.resnets.1"), middle, middle, time);
    up(list, size, time, skips, left);
    norm(list, inside("conv_norm_out"), first);
    conv(list, inside("conv_out"), first, 4, 3);
}

/* The encoder's or the decoder's half; the decoder's levels come in reverse and have one layer more. */
static void vae_half(struct model_tensors *list, const struct pipeline_size *size, bool decoder)
{
    const char *side = decoder ? "decoder" : "encoder", *blocks = decoder ? "up_blocks" : "down_blocks";
    int order[MODEL_LEVELS], middle = size->vae[LAST];
    for (int b = 0; b < MODEL_LEVELS; b++)
        order[b] = size->vae[decoder ? LAST - b : b];
    conv(list, inside("%s.conv_in", side), decoder ? 4 : 3, order[0], 3);
    for (int b = 0; b < MODEL_LEVELS; b++) {
        for (int i = 0; i < LAYERS + decoder; i++)
            resnet(list, inside("%s.%s.%d.resnets.%d", side, blocks, b, i), i == 0 && b > 0 ? order[b - 1] : order[b],
                   order[b], 0);
        if (b < LAST)
            conv(list, inside("%s.%s.%d.%s.0.conv", side, blocks, b, decoder ? "upsamplers" : "downsamplers"), order[b],
                 order[b], 3);
    }
    for (int i = 0; i < 2; i++)
        resnet(list, inside("%s.mid_block.resnets.%d", side, i), middle, middle, 0);
    norm(list, inside("%s.mid_block.attentions.0.group_norm", side), middle);
    static const char *const projections[] = {"to_q", "to_k", "to_v", "to_out.0"};
    for (int i = 0; i < 4; i++)
        linear(list, inside("%s.mid_block.attentions.0.%s", side, projections[i]), middle, middle);
    norm(list, inside("%s.conv_norm_out", side), order[LAST]);
    conv(list, inside("%s.conv_out", side), order[LAST], decoder ? 3 : 8, 3);
}

void model_vae(struct model_tensors *list, const struct pipeline_size *size)
{
    vae_half(list, size, false);
    vae_half(list, size, true);
    conv(list, inside("quant_conv"), 8, 8, 1);
    conv(list, inside("post_quant_conv"), 4, 4, 1);
}

/* --- CLIP -----------------------------------------------------------------------------------------------------------
 */

static void encoder(struct model_tensors *list, const char *tower, int width, int wide, int layers)
{
    static const char *const projections[] = {"q_proj", "k_proj", "v_proj", "out_proj"};
    for (int i = 0; i < layers; i++) {
        struct layer layer = inside("%s.encoder.layers.%d", tower, i);
        for (int k = 0; k < 4; k++)
            linear(list, inside("%s.self_attn.%s", layer.name, projections[k]), width, width);
        norm(list, inside("%s.layer_norm1", layer.name), width);
        linear(list, inside("%s.mlp.fc1", layer.name), width, wide);
        linear(list, inside("%s.mlp.fc2", layer.name), wide, width);
        norm(list, inside("%s.layer_norm2", layer.name), width);
    }
}

void model_text(struct model_tensors *list, const struct text_size *size)
{
    plain_linear(list, inside("text_model.embeddings.token_embedding"), size->width, size->vocabulary);
    plain_linear(list, inside("text_model.embeddings.position_embedding"), size->width, size->positions);
    encoder(list, "text_model", size->width, size->wide, size->layers);
    norm(list, inside("text_model.final_layer_norm"), size->width);
}

void model_clip(struct model_tensors *list, const struct clip_size *size)
{
    int patches = PICTURE / size->patch;
    model_text(list, &size->text);
    add(list, "vision_model.embeddings.class_embedding", "", 1, size->width, 0, 0, 0);
    add(list, "vision_model.embeddings.patch_embedding", "weight", 4, size->width, 3, size->patch, size->patch);
    add(list, "vision_model.embeddings.position_embedding", "weight", 2, patches * patches + 1, size->width, 0, 0);
    norm(list, inside("vision_model.pre_layrnorm"), size->width);
    encoder(list, "vision_model", size->width, size->wide, size->layers);
    norm(list, inside("vision_model.post_layernorm"), size->width);
    plain_linear(list, inside("visual_projection"), size->width, size->projection);
    plain_linear(list, inside("text_projection"), size->text.width, size->projection);
    add(list, "logit_scale", "", 0, 0, 0, 0, 0);
}
