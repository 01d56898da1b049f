/* diffusers' unet_2d_condition.py: UNet2DConditionModel. */
#include "models/unet.h"

#include <stdio.h>
#include <stdlib.h>

#include "models/part.h"
#include "models/unet_parts.h"
#include "tensor/weight_source.h"

static void load(struct draft_loader *loader, struct draft_unet *unet)
{
    const struct unet_config *c = &unet->config;
    draft_load_conv(loader, &unet->conv_in, c->in_channels, c->channels[0], c->conv_in_kernel, 1, c->conv_in_kernel / 2,
                    "conv_in");
    draft_load_linear(loader, &unet->time_linear_1, c->channels[0], c->time_width, true, "time_embedding.linear_1");
    draft_load_linear(loader, &unet->time_linear_2, c->time_width, c->time_width, true, "time_embedding.linear_2");
    draft_unet_load_blocks(loader, unet);
    draft_load_group_norm(loader, &unet->conv_norm_out, c->channels[0], c->groups, c->eps, "conv_norm_out");
    draft_load_conv(loader, &unet->conv_out, c->channels[0], c->out_channels, c->conv_out_kernel, 1,
                    c->conv_out_kernel / 2, "conv_out");
    unet->weights = loader->first;
}

static bool read_config(void *config, const char *path, struct draft_error *err)
{
    return draft_unet_config_read(config, path, err);
}

static bool parse_config(void *config, const char *text, const char *shown, struct draft_error *err)
{
    return draft_unet_config_parse(config, text, shown, err);
}

static const struct draft_part PART = {.part = DRAFT_LDM_UNET,
                                       .stem = "diffusion_pytorch_model",
                                       .title = "the UNet",
                                       .read = read_config,
                                       .parse = parse_config};

struct draft_unet *draft_unet_open(const char *path, struct draft_arena *arena, struct draft_adapter *adapter,
                                   struct draft_error *err)
{
    static const char *const INERT[] = {NULL};
    struct unet_config config;
    struct draft_weights *weights = draft_part_open(path, &PART, &config, arena, err);
    if (weights == NULL)
        return NULL;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, adapter);
    loader.every_step = true;
    struct draft_unet *unet = draft_load_alloc(&loader, sizeof *unet);
    if (unet != NULL) {
        unet->config = config;
        load(&loader, unet);
    }
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, INERT, &loader.error);
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK) {
        draft_fail(err, loader.error.code, "%s", loader.error.message);
        return NULL;
    }
    return unet;
}

struct draft_unet_info draft_unet_info(const struct draft_unet *unet)
{
    const struct unet_config *c = &unet->config;
    return (struct draft_unet_info){c->in_channels,   c->out_channels, c->context_width,
                                    c->sample_height, c->sample_width, 1 << (c->levels - 1)};
}

void draft_unet_set_recompute(struct draft_unet *unet, bool on)
{
    unet->recompute = on;
}

bool draft_unet_train_weights(struct draft_unet *unet, bool on, struct draft_error *err)
{
    for (struct draft_weight_link *link = unet->weights; link != NULL; link = link->next) {
        if (on && !draft_weight_materialize(link->weight, err))
            return false;
        link->weight->needs_grad = on;
    }
    return true;
}

void draft_unet_each_weight(struct draft_unet *unet, void (*visit)(void *context, struct draft_tensor *weight),
                            void *context)
{
    for (struct draft_weight_link *link = unet->weights; link != NULL; link = link->next)
        visit(context, link->weight);
}

struct draft_unet_context *draft_unet_precompute(struct draft_graph *g, const struct draft_unet *unet,
                                                 struct draft_tensor *context)
{
    size_t count = (size_t)unet->cross_attentions;
    size_t bytes = sizeof(struct draft_unet_context) + 2 * count * sizeof(struct draft_tensor *);
    if (!draft_graph_ok(g))
        return NULL;
    struct draft_unet_context *cached = draft_note(g, bytes);
    if (cached == NULL)
        return NULL;
    cached->count = unet->cross_attentions;
    cached->key = (struct draft_tensor **)(cached + 1);
    cached->value = cached->key + count;
    context = enter(g, context);
    const int levels = unet->config.levels;
    for (int b = 0; b < 2 * levels + 1; b++) {
        const struct unet_block *block = b < levels    ? &unet->down[b]
                                         : b == levels ? &unet->middle
                                                       : &unet->up[b - levels - 1];
        for (int i = 0; i < block->attentions; i++)
            draft_transformer_2d_precompute(g, &block->attention[i], context, cached);
    }
    return draft_graph_ok(g) ? cached : NULL;
}

static void observe(const struct unet_pass *pass, const char *block, const struct draft_tensor *result)
{
    if (pass->call->observe != NULL && result != NULL)
        pass->call->observe(pass->call->observer, block, result);
}

static bool check_input(struct draft_graph *g, const struct unet_config *c, const struct draft_tensor *x,
                        const struct draft_tensor *context)
{
    char a[96], b[96];
    if (!draft_graph_ok(g))
        return false;
    if (x->rank != 4 || x->dim[3] != c->in_channels || context->rank != 3 || context->dim[2] != c->context_width ||
        (context->dim[0] != x->dim[0] && context->dim[0] != 2 * x->dim[0]))
        return draft_fail(&g->error, DRAFT_INVALID_ARGUMENT,
                          "the UNet takes latents [n, h, w, %d] and a text context [n, s, %d], not %s and %s: do the "
                          "folder's parts belong together?",
                          (int)c->in_channels, (int)c->context_width, draft_shape_text(x->rank, x->dim, a, sizeof a),
                          draft_shape_text(context->rank, context->dim, b, sizeof b));
    return true;
}

/* [1, time], through SiLU */
static struct draft_tensor *time_embedding(struct unet_pass *pass, int64_t n)
{
    const struct draft_unet *unet = pass->unet;
    const struct unet_config *c = &unet->config;
    struct draft_graph *g = pass->g;
    struct draft_tensor *t;
    t = draft_timestep_embedding(g, pass->call->t, n, c->channels[0], c->flip_sin_to_cos, c->freq_shift);
    t = linear(g, enter(g, t), &unet->time_linear_1);                      /* [n, time] */
    t = linear(g, draft_activate(g, t, DRAFT_SILU), &unet->time_linear_2); /* [n, time] */
    observe(pass, "time_embedding", t);
    t = draft_slice_batch(g, t, 0, 1);       /* [1, time]: its rows are equal */
    return draft_activate(g, t, DRAFT_SILU); /* every resnet begins with it */
}

static int add_time_layers(const struct unet_block *block, struct draft_row_layer *layer)
{
    for (int i = 0; i < block->layers; i++)
        layer[i] = draft_resnet_time_layer(&block->resnet[i]);
    return block->layers;
}

/* Of every ResNet block, in the order in which they run. */
static void biases_in_time(struct unet_pass *pass, struct draft_tensor *temb)
{
    const struct draft_unet *unet = pass->unet;
    struct draft_row_layer layer[UNET_MAX_RESNETS];
    int count = 0;
    for (int i = 0; i < unet->config.levels; i++)
        count += add_time_layers(&unet->down[i], layer + count);
    if (unet->config.has_middle)
        count += add_time_layers(&unet->middle, layer + count);
    for (int i = 0; i < unet->config.levels; i++)
        count += add_time_layers(&unet->up[i], layer + count);
    draft_row_linears(pass->g, temb, layer, count, pass->bias);
}

static struct draft_tensor *forward(struct unet_pass *pass, struct draft_tensor *x)
{
    const struct draft_unet *unet = pass->unet;
    const int levels = unet->config.levels;
    struct draft_graph *g = pass->g;
    if (x == NULL)
        return NULL;

    biases_in_time(pass, time_embedding(pass, x->dim[0]));
    x = conv(g, x, &unet->conv_in); /* [n, h, w, c0] */
    observe(pass, "conv_in", x);
    pass->skip[pass->skips++] = x;
    for (int i = 0; i < levels; i++) {
        x = draft_unet_down(pass, &unet->down[i], x);
        observe(pass, unet->down[i].name, x);
    }
    if (unet->config.has_middle) {
        x = draft_unet_middle(pass, &unet->middle, x);
        observe(pass, unet->middle.name, x);
    }
    for (int i = 0; i < levels; i++) {
        x = draft_unet_up(pass, &unet->up[i], x);
        observe(pass, unet->up[i].name, x);
    }
    x = group_norm_silu(g, x, &unet->conv_norm_out); /* [n, h, w, c0] */
    x = conv(g, x, &unet->conv_out);                 /* [n, h, w, out] */
    return draft_both_halves(g, x, pass->call->context->dim[0]);
}

struct draft_tensor *draft_unet_forward(struct draft_graph *g, const struct draft_unet *unet, struct draft_tensor *x,
                                        const struct draft_unet_call *call)
{
    if (!draft_graph_ok(g) || !check_input(g, &unet->config, x, call->context))
        return NULL;
    struct draft_unet_call inside = *call;
    struct unet_pass pass = {.g = g, .unet = unet, .call = &inside};
    struct draft_mark mark = draft_scope_begin(g);
    if (call->cached == NULL)
        inside.context = enter(g, call->context);
    return draft_scope_end(g, mark, leave(g, forward(&pass, enter(g, x))));
}
