#include "op_cases.h"

#include <string.h>

#define X(...)                                                                                                         \
    {                                                                                                                  \
        .kind = OP_ACTIVATION, .rank = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .dim = { __VA_ARGS__ }              \
    }
#define W(size, ...)                                                                                                   \
    {                                                                                                                  \
        .kind = OP_WEIGHT, .rank = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .dim = {__VA_ARGS__}, .scale = (size)   \
    }
#define A(size, ...)                                                                                                   \
    {                                                                                                                  \
        .kind = OP_ADAPTER, .rank = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .dim = {__VA_ARGS__}, .scale = (size)  \
    }
#define GAIN(c)                                                                                                        \
    {                                                                                                                  \
        .kind = OP_WEIGHT, .rank = 1, .dim = {c}, .scale = 0.25f, .shift = 1                                           \
    }
#define FROZEN(c)                                                                                                      \
    {                                                                                                                  \
        .kind = OP_FROZEN, .rank = 1, .dim = {c}, .scale = 0.25f, .shift = 1                                           \
    }
#define GIVEN(...)                                                                                                     \
    {                                                                                                                  \
        .kind = OP_GIVEN, .rank = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .dim = { __VA_ARGS__ }                   \
    }
#define NONE                                                                                                           \
    {                                                                                                                  \
        .kind = OP_ABSENT                                                                                              \
    }

typedef struct draft_tensor tensor;
#define RUN(name) static tensor *run_##name(struct draft_graph *g, tensor *const *in, const void *context)

/* --- How each op is called ------------------------------------------------------------------------------------------
 */

RUN(linear)
{
    static const float scale = 0.75f;
    static const bool on = true;
    struct draft_lora lora = {in[3], in[4], &scale, &on};
    (void)context;
    return draft_linear(g, in[0], in[1], in[2], in[3] ? &lora : NULL);
}

/* Without gradient, of rows with room behind them for the adapter (draft_new_rows). */
static tensor *taken_along(struct draft_graph *g, tensor *(*rows)(struct draft_graph *g, tensor *x), tensor *const *in)
{
    static const float scale = 0.75f;
    static const bool on = true;
    const struct draft_lora lora = {in[2], in[3], &scale, &on};
    bool was = draft_no_grad(g);
    in[1]->up = in[3];
    g->room = in[2]->dim[0];
    tensor *y = draft_linear(g, rows(g, in[0]), in[1], NULL, &lora);
    g->room = 0;
    g->recording = was;
    return y;
}

static tensor *gated(struct draft_graph *g, tensor *x)
{
    return draft_geglu(g, x);
}

static tensor *attended(struct draft_graph *g, tensor *x)
{
    return draft_attention(g, x, x, x, 5, false);
}

RUN(linear_behind_geglu)
{
    (void)context;
    return taken_along(g, gated, in);
}

RUN(linear_behind_attention)
{
    (void)context;
    return taken_along(g, attended, in);
}

RUN(linears)
{
    static struct draft_siblings together;
    const struct draft_projection layer[] = {{in[1], NULL}, {in[2], NULL}, {in[3], NULL}};
    tensor *y[3];
    together = (struct draft_siblings){3, {in[1], in[2], in[3]}};
    for (int i = 1; i <= 3; i++)
        in[i]->siblings = &together;
    bool was = draft_no_grad(g);
    (void)context;
    draft_linears(g, in[0], layer, 3, y);
    y[0] = draft_add(g, draft_add(g, y[0], y[1]), y[2]);
    g->recording = was;
    return y[0];
}

RUN(row_linears)
{
    const struct draft_row_layer layer[] = {{in[1], in[2], in[2]}, {in[3], in[4], in[4]}};
    tensor *y[2];
    bool was = draft_no_grad(g);
    (void)context;
    draft_row_linears(g, in[0], layer, 2, y);
    g->recording = was;
    return y[1];
}

RUN(conv2d)
{
    return draft_conv2d(g, in[0], in[1], in[2], context);
}

struct group_args {
    int groups;
    bool silu;
};
RUN(group_norm)
{
    const struct group_args *a = context;
    return draft_group_norm(g, in[0], in[1], in[2], a->groups, 1e-5f, a->silu);
}

RUN(layer_norm)
{
    (void)context;
    return draft_layer_norm(g, in[0], in[1], in[2], 1e-5f);
}

RUN(activate)
{
    return draft_activate(g, in[0], *(const enum draft_activation *)context);
}

RUN(geglu)
{
    (void)context;
    return draft_geglu(g, in[0]);
}

struct attention_args {
    int heads;
    bool causal;
};
RUN(attention)
{
    const struct attention_args *a = context;
    return draft_attention(g, in[0], in[1], in[2], a->heads, a->causal);
}

/* The last key of each sample is padding. */
RUN(attention_padded)
{
    const struct attention_args *a = context;
    const int64_t n = in[0]->dim[0];
    struct draft_tensor *lengths = draft_new(g, DRAFT_F32, 1, &n);
    float *values = lengths ? draft_write(g, lengths) : NULL;
    for (int64_t i = 0; values && i < n; i++)
        values[i] = (float)(in[1]->dim[1] - 1);
    return values && draft_written(g, lengths, values)
               ? draft_attention_padded(g, in[0], in[1], in[2], lengths, a->heads)
               : NULL;
}

RUN(add)
{
    (void)context;
    return draft_add(g, in[0], in[1]);
}

RUN(add_positions)
{
    (void)context;
    return draft_add_positions(g, in[0], in[1]);
}

RUN(axpby)
{
    (void)context;
    return draft_axpby(g, 1.5f, in[0], -0.25f, in[1]);
}

RUN(combine)
{
    (void)context;
    return draft_combine(g, in[2], 1, in[0], 3, in[1]);
}

RUN(convert)
{
    (void)context;
    return draft_convert(g, draft_convert(g, in[0], DRAFT_BF16), DRAFT_F32);
}

RUN(scale_clamp)
{
    (void)context;
    return draft_scale_clamp(g, in[0], 0.9f, 0.4f, 0, 1);
}

RUN(normalize_channels)
{
    static const float mean[] = {0.48f, 0.46f, 0.41f}, deviation[] = {0.27f, 0.26f, 0.28f};
    (void)context;
    return draft_normalize_channels(g, in[0], mean, deviation);
}

RUN(concat_channels)
{
    (void)context;
    return draft_concat_channels(g, in[0], in[1]);
}

RUN(concat_batch)
{
    (void)context;
    return draft_concat_batch(g, in[0], in[1]);
}

RUN(slice_batch)
{
    (void)context;
    return draft_slice_batch(g, in[0], 1, 2);
}

RUN(slice_channels)
{
    (void)context;
    return draft_slice_channels(g, in[0], 3, 6);
}

/* Through another op: a view moves nothing by itself. */
RUN(reshape)
{
    (void)context;
    return draft_axpby(g, 2, draft_reshape(g, in[0], 1, &(int64_t){draft_tensor_count(in[0])}), 0, NULL);
}

RUN(prepend_token)
{
    (void)context;
    return draft_prepend_token(g, in[1], in[0]);
}

RUN(select_token)
{
    (void)context;
    return draft_select_token(g, in[0], (const int32_t[]){4, 0, 6});
}

RUN(embedding)
{
    static const int32_t values[] = {3, 0, 3, 6, 6, 6, 1, 0};
    tensor *ids = draft_new(g, DRAFT_I32, 2, (int64_t[]){2, 4});
    (void)context;
    if (ids)
        memcpy(ids->data, values, sizeof values);
    return draft_embedding(g, in[0], ids);
}

static const int64_t twice[] = {10, 14}, wide[] = {64, 64}, clip_side[] = {224, 224}, odd_side[] = {7, 9};
RUN(upsample_nearest)
{
    const int64_t *side = context;
    return draft_upsample_nearest(g, in[0], side[0], side[1]);
}

RUN(resize_bicubic)
{
    const int64_t *side = context;
    return draft_resize_bicubic(g, in[0], side[0], side[1]);
}

RUN(crop)
{
    (void)context;
    return draft_crop(g, in[0], 2, 1, 4, 5);
}

RUN(pad)
{
    (void)context;
    return draft_pad(g, in[0], 1, 2, 9, 12);
}

RUN(max_pool)
{
    (void)context;
    return draft_max_pool(g, in[0], 3, 2);
}

RUN(cosine)
{
    (void)context;
    return draft_cosine(g, in[0], in[1]);
}

RUN(mean)
{
    (void)context;
    return draft_mean(g, in[0]);
}

RUN(mean_square_difference)
{
    (void)context;
    return draft_mean_square_difference(g, in[0], in[1]);
}

RUN(timestep_embedding)
{
    (void)in, (void)context;
    return draft_timestep_embedding(g, draft_scalar(g, 501), 2, 320, true, 0);
}

RUN(jpeg_size)
{
    (void)context;
    return draft_jpeg_size(g, in[0], 75);
}

RUN(lpips_stage)
{
    (void)context;
    return draft_lpips_stage(g, in[0], in[1]);
}

RUN(pair_distances)
{
    (void)context;
    return draft_pair_distances(g, in[0]);
}

/* --- What they are called with --------------------------------------------------------------------------------------
 */

static const struct draft_conv2d_args same = {1, 1, 1, 1, 1}, halve = {2, 1, 1, 1, 1}, encoder = {2, 0, 0, 1, 1};
static const struct draft_conv2d_args patches = {.stride = 14}, uneven = {3, 2, 1, 0, 4};
static const struct group_args groups_of_32 = {32, true}, plain_groups = {4, false}, odd_groups = {5, true};
static const enum draft_activation silu = DRAFT_SILU, gelu = DRAFT_GELU, quick_gelu = DRAFT_QUICK_GELU,
                                   relu = DRAFT_RELU;
static const struct attention_args heads_3 = {3, false}, causal_2 = {2, true}, heads_8 = {8, false},
                                   heads_1 = {1, false}, heads_16 = {16, false};

const struct op_call op_calls[] = {
    {"linear", "15 rows, 7 > 3", .in = {X(5, 3, 7), W(0.4f, 3, 7), NONE}, .run = run_linear},
    {"linear", "33 rows, 40 > 24, bias", .in = {X(33, 40), W(0.2f, 24, 40), W(1, 24)}, .run = run_linear},
    {"linear", "70 rows, 65 > 130, bias, LoRA of 4",
     .in = {X(70, 65), W(0.15f, 130, 65), W(1, 130), A(0.2f, 4, 65), A(0.5f, 130, 4)}, .run = run_linear},
    {"linear", "18 rows, 40 > 24, LoRA of 8 behind GEGLU's rows",
     .in = {X(2, 9, 80), W(0.2f, 24, 40), A(0.2f, 8, 40), A(0.5f, 24, 8)}, .run = run_linear_behind_geglu},
    {"linear", "18 rows, 40 > 24, LoRA of 8 behind attention's rows",
     .in = {X(2, 9, 40), W(0.2f, 24, 40), A(0.2f, 8, 40), A(0.5f, 24, 8)}, .run = run_linear_behind_attention},
    {"linears", "15 rows, 40 > 24", .in = {X(5, 3, 40), W(0.2f, 24, 40), W(0.2f, 24, 40), W(0.2f, 24, 40)},
     .run = run_linears},
    {"row_linears", "40 > 24 and 33", .in = {X(1, 40), W(0.2f, 24, 40), W(1, 24), W(0.2f, 33, 40), W(1, 33)},
     .run = run_row_linears},
    {"linear", "1x1 convolution", .in = {X(1, 3, 2, 5), W(0.5f, 9, 1, 1, 5), W(1, 9)}, .run = run_linear},
    {"conv2d", "3x3, 2x5x7, 3 > 5", .in = {X(2, 5, 7, 3), W(0.2f, 5, 3, 3, 3), W(1, 5)}, .run = run_conv2d, &same},
    {"conv2d", "3x3, 2x16x12, 24 > 40", .in = {X(2, 16, 12, 24), W(0.07f, 40, 3, 3, 24), W(1, 40)}, .run = run_conv2d,
     &same},
    {"conv2d", "3x3 stride 2", .in = {X(2, 8, 10, 16), W(0.1f, 24, 3, 3, 16), W(1, 24)}, .run = run_conv2d, &halve},
    {"conv2d", "3x3 stride 2, VAE's padding", .in = {X(1, 6, 8, 4), W(0.2f, 3, 3, 3, 4), NONE}, .run = run_conv2d,
     &encoder},
    {"conv2d", "patches 14x14", .in = {X(2, 28, 42, 3), W(0.05f, 17, 14, 14, 3), NONE}, .run = run_conv2d, &patches},
    {"conv2d", "5x4, uneven padding", .in = {X(1, 9, 6, 2), W(0.2f, 3, 5, 4, 2), W(1, 3)}, .run = run_conv2d, &uneven},
    {"group_norm", "32 groups of 2, SiLU", .in = {X(2, 9, 7, 64), GAIN(64), W(0.5f, 64)}, .run = run_group_norm,
     &groups_of_32},
    {"group_norm", "4 groups of 5", .in = {X(2, 31, 20), GAIN(20), W(0.5f, 20)}, .run = run_group_norm, &plain_groups},
    {"group_norm", "5 groups of 3, far mean", .in = {{OP_ACTIVATION, 4, {1, 6, 5, 15}, 0.5f, 8}, GAIN(15), W(0.5f, 15)},
     .run = run_group_norm, &odd_groups, .bound = 1e-4, .fp32_only = true},
    {"layer_norm", "6 rows of 40", .in = {X(2, 3, 40), GAIN(40), W(0.5f, 40)}, .run = run_layer_norm},
    {"layer_norm", "7 rows of 33", .in = {X(7, 33), GAIN(33), W(0.5f, 33)}, .run = run_layer_norm},
    {"activate", "SiLU", .in = {{OP_ACTIVATION, 2, {5, 67}, 6, 0}}, .run = run_activate, &silu},
    {"activate", "GELU", .in = {{OP_ACTIVATION, 2, {5, 67}, 6, 0}}, .run = run_activate, &gelu},
    {"activate", "quick GELU", .in = {{OP_ACTIVATION, 2, {5, 67}, 6, 0}}, .run = run_activate, &quick_gelu},
    {"activate", "ReLU", .in = {{OP_ACTIVATION, 2, {5, 67}, 6, 0}}, .run = run_activate, &relu},
    {"geglu", "9 rows of 2 x 20", .in = {{OP_ACTIVATION, 2, {9, 40}, 4, 0}}, .run = run_geglu},
    {"attention", "3 heads of 5, 7 > 4", .in = {X(2, 7, 15), X(2, 4, 15), X(2, 4, 15)}, .run = run_attention, &heads_3},
    {"attention", "2 heads of 8, causal", .in = {X(2, 9, 16), X(2, 9, 16), X(2, 9, 16)}, .run = run_attention,
     &causal_2},
    {"attention", "3 heads of 5, 7 > 4, padded", .in = {X(2, 7, 15), X(2, 4, 15), X(2, 4, 15)},
     .run = run_attention_padded, &heads_3},
    {"attention", "8 heads of 40, 70 > 77", .in = {X(1, 70, 320), X(1, 77, 320), X(1, 77, 320)}, .run = run_attention,
     &heads_8},
    {"add", "", .in = {X(3, 7, 5), X(3, 7, 5)}, .run = run_add},
    {"add_positions", "", .in = {X(2, 5, 6), W(1, 9, 6)}, .run = run_add_positions},
    {"axpby", "two terms", .in = {X(3, 11), X(3, 11)}, .run = run_axpby},
    {"axpby", "one term", .in = {X(3, 11)}, .run = run_axpby},
    {"combine", "", .in = {X(3, 11), X(3, 11), GIVEN(5)}, .run = run_combine, .fp32_only = true},
    {"convert", "to BF16 and back", .in = {X(3, 11)}, .run = run_convert},
    {"scale_clamp", "", .in = {X(2, 5, 5, 3)}, .run = run_scale_clamp},
    {"normalize_channels", "", .in = {X(2, 4, 5, 3)}, .run = run_normalize_channels},
    {"concat_channels", "", .in = {X(2, 3, 4, 5), X(2, 3, 4, 8)}, .run = run_concat_channels},
    {"concat_batch", "", .in = {X(2, 3, 5), X(1, 3, 5)}, .run = run_concat_batch},
    {"slice_batch", "", .in = {X(4, 3, 5)}, .run = run_slice_batch},
    {"slice_channels", "", .in = {X(2, 3, 11)}, .run = run_slice_channels},
    {"reshape", "", .in = {X(2, 3, 5)}, .run = run_reshape},
    {"prepend_token", "", .in = {X(2, 5, 8), W(1, 8)}, .run = run_prepend_token},
    {"select_token", "", .in = {X(3, 7, 6)}, .run = run_select_token},
    {"embedding", "", .in = {W(1, 7, 5)}, .run = run_embedding},
    {"upsample_nearest", "twice", .in = {X(2, 5, 7, 6)}, .run = run_upsample_nearest, twice},
    {"resize_bicubic", "smaller", .in = {X(2, 19, 17, 3)}, .run = run_resize_bicubic, odd_side},
    {"resize_bicubic", "larger", .in = {X(1, 5, 6, 3)}, .run = run_resize_bicubic, twice},
    {"crop", "", .in = {X(2, 7, 8, 3)}, .run = run_crop},
    {"pad", "", .in = {X(2, 7, 8, 3)}, .run = run_pad},
    {"max_pool", "", .in = {GIVEN(2, 9, 7, 5)}, .run = run_max_pool},
    {"cosine", "", .in = {X(5, 33), X(5, 33)}, .run = run_cosine},
    {"mean", "", .in = {X(7, 13)}, .run = run_mean, .bound = 1e-4}, /* of numbers that cancel */
    {"mean_square_difference", "", .in = {X(7, 13), X(7, 13)}, .run = run_mean_square_difference},
    {"timestep_embedding", "", .in = {NONE}, .run = run_timestep_embedding},
    {"jpeg_size", "", .in = {{OP_ACTIVATION, 4, {2, 21, 18, 3}, 0.4f, 0.5f}}, .run = run_jpeg_size, .bound = 1e-4,
     .fp32_only = true},
    {"lpips_stage", "", .in = {GIVEN(3, 5, 4, 33), FROZEN(33)}, .run = run_lpips_stage},
    {"pair_distances", "", .in = {GIVEN(4, 131)}, .run = run_pair_distances, .fp32_only = true},

    {"linear", "SD 1.5, 8192 rows, 320 > 2560, LoRA of 32", true,
     .in = {X(2, 4096, 320), W(0.1f, 2560, 320), W(1, 2560), A(0.1f, 32, 320), A(0.3f, 2560, 32)}, .run = run_linear},
    {"linear", "SD 1.5, 128 rows, 1280 > 1280, LoRA of 32", true,
     .in = {X(2, 64, 1280), W(0.05f, 1280, 1280), W(1, 1280), A(0.05f, 32, 1280), A(0.3f, 1280, 32)},
     .run = run_linear},
    {"linear", "CLIP-H, 257 rows, 1280 > 5120", true, .in = {X(1, 257, 1280), W(0.05f, 5120, 1280), W(1, 5120)},
     .run = run_linear},
    {"conv2d", "SD 1.5, 2x64x64, 4 > 320", true, .in = {X(2, 64, 64, 4), W(0.2f, 320, 3, 3, 4), W(1, 320)},
     .run = run_conv2d, &same},
    {"conv2d", "SD 1.5, 2x64x64, 320 > 320", true, .in = {X(2, 64, 64, 320), W(0.03f, 320, 3, 3, 320), W(1, 320)},
     .run = run_conv2d, &same},
    {"conv2d", "SD 1.5, 2x64x64, 320 > 320, stride 2", true,
     .in = {X(2, 64, 64, 320), W(0.03f, 320, 3, 3, 320), W(1, 320)}, .run = run_conv2d, &halve},
    {"conv2d", "SD 1.5, 2x8x8, 2560 > 1280", true, .in = {X(2, 8, 8, 2560), W(0.01f, 1280, 3, 3, 2560), W(1, 1280)},
     .run = run_conv2d, &same},
    {"conv2d", "SD 1.5, 2x64x64, 320 > 4", true, .in = {X(2, 64, 64, 320), W(0.03f, 4, 3, 3, 320), W(1, 4)},
     .run = run_conv2d, &same},
    {"conv2d", "VAE, 256x256, 128 > 3", true, .in = {X(1, 256, 256, 128), W(0.05f, 3, 3, 3, 128), W(1, 3)},
     .run = run_conv2d, &same},
    {"conv2d", "CLIP-H, 224x224, patches 14x14 > 1280", true, .in = {X(1, 224, 224, 3), W(0.05f, 1280, 14, 14, 3)},
     .run = run_conv2d, &patches},
    {"group_norm", "SD 1.5, 2x64x64x320, SiLU", true, .in = {X(2, 64, 64, 320), GAIN(320), W(0.5f, 320)},
     .run = run_group_norm, &groups_of_32},
    {"group_norm", "VAE, 256x256x128, SiLU", true, .in = {X(1, 256, 256, 128), GAIN(128), W(0.5f, 128)},
     .run = run_group_norm, &groups_of_32},
    {"layer_norm", "SD 1.5, 8192 rows of 320", true, .in = {X(2, 4096, 320), GAIN(320), W(0.5f, 320)},
     .run = run_layer_norm},
    {"geglu", "SD 1.5, 8192 rows of 2 x 1280", true, .in = {X(2, 4096, 2560)}, .run = run_geglu},
    {"attention", "SD 1.5, 8 heads of 40, 4096", true, .in = {X(1, 4096, 320), X(1, 4096, 320), X(1, 4096, 320)},
     .run = run_attention, &heads_8},
    {"attention", "SD 1.5, 8 heads of 40, 4096 > 77", true, .in = {X(2, 4096, 320), X(2, 77, 320), X(2, 77, 320)},
     .run = run_attention, &heads_8},
    {"attention", "SD 1.5, 8 heads of 80, 1024", true, .in = {X(2, 1024, 640), X(2, 1024, 640), X(2, 1024, 640)},
     .run = run_attention, &heads_8},
    {"attention", "SD 1.5, 8 heads of 160, 256", true, .in = {X(2, 256, 1280), X(2, 256, 1280), X(2, 256, 1280)},
     .run = run_attention, &heads_8},
    {"attention", "VAE, 1 head of 512, 4096", true, .in = {X(1, 4096, 512), X(1, 4096, 512), X(1, 4096, 512)},
     .run = run_attention, &heads_1},
    {"attention", "CLIP-H, 16 heads of 80, 257", true, .in = {X(1, 257, 1280), X(1, 257, 1280), X(1, 257, 1280)},
     .run = run_attention, &heads_16},
    {"upsample_nearest", "SD 1.5, 2x32x32x640", true, .in = {X(2, 32, 32, 640)}, .run = run_upsample_nearest, wide},
    {"resize_bicubic", "512x512 > 224x224", true, .in = {X(1, 512, 512, 3)}, .run = run_resize_bicubic, clip_side},
};
const int op_call_count = sizeof op_calls / sizeof *op_calls;
