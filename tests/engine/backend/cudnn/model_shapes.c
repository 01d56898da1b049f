#include "engine/backend/cudnn/model_shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "models/clip.h"
#include "models/unet.h"
#include "models/vae.h"
#include "ops/op.h"

/* --- Weights of any shape that is asked for, without values (-Wl,--wrap)
 * ----------------------------------------------
 */

static struct draft_arena *weights_arena;

struct draft_weights *__wrap_draft_weights_open(const char *folder, const char *stem, struct draft_arena *arena,
                                                struct draft_error *err);
struct draft_weights *__wrap_draft_weights_open(const char *folder, const char *stem, struct draft_arena *arena,
                                                struct draft_error *err)
{
    (void)folder, (void)stem, (void)err;
    weights_arena = arena;
    return draft_arena_alloc(arena, 1);
}

static struct draft_tensor *take(int rank, const int64_t *dim)
{
    static float no_values;
    struct draft_tensor *t = draft_arena_alloc(weights_arena, sizeof *t);
    *t = (struct draft_tensor){.dtype = DRAFT_F32, .rank = rank, .data = &no_values};
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    return t;
}

struct draft_tensor *__wrap_draft_weights_take(struct draft_weights *weights, const char *name, int rank,
                                               const int64_t *dim, struct draft_error *err);
struct draft_tensor *__wrap_draft_weights_take(struct draft_weights *weights, const char *name, int rank,
                                               const int64_t *dim, struct draft_error *err)
{
    (void)weights, (void)name, (void)err;
    return take(rank, dim);
}

struct draft_tensor *__wrap_draft_weights_take_lazy(struct draft_weights *weights, const char *name, int rank,
                                                    const int64_t *dim, struct draft_error *err);
struct draft_tensor *__wrap_draft_weights_take_lazy(struct draft_weights *weights, const char *name, int rank,
                                                    const int64_t *dim, struct draft_error *err)
{
    (void)weights, (void)name, (void)err;
    return take(rank, dim);
}

struct draft_tensor *__wrap_draft_weights_take_lazy_conv(struct draft_weights *weights, const char *name, int64_t o,
                                                         int64_t i, int64_t kh, int64_t kw, struct draft_error *err);
struct draft_tensor *__wrap_draft_weights_take_lazy_conv(struct draft_weights *weights, const char *name, int64_t o,
                                                         int64_t i, int64_t kh, int64_t kw, struct draft_error *err)
{
    (void)weights, (void)name, (void)err;
    return take(4, (const int64_t[]){o, kh, kw, i});
}

void __wrap_draft_weights_alias(struct draft_weights *weights, const char *ours, const char *theirs);
void __wrap_draft_weights_alias(struct draft_weights *weights, const char *ours, const char *theirs)
{
    (void)weights, (void)ours, (void)theirs;
}

void __wrap_draft_weights_leave(struct draft_weights *weights, const char *prefix);
void __wrap_draft_weights_leave(struct draft_weights *weights, const char *prefix)
{
    (void)weights, (void)prefix;
}

bool __wrap_draft_weights_finish(struct draft_weights *weights, const char *const *inert, struct draft_error *err);
bool __wrap_draft_weights_finish(struct draft_weights *weights, const char *const *inert, struct draft_error *err)
{
    (void)weights, (void)inert, (void)err;
    return true;
}

void __wrap_draft_weights_close(struct draft_weights *weights);
void __wrap_draft_weights_close(struct draft_weights *weights)
{
    (void)weights;
}

/* --- A backend that notes
 * ---------------------------------------------------------------------------------------------
 */

static struct model_shapes *noted;
static const char *running;

static bool pass(struct draft_graph *g, struct draft_call *call)
{
    (void)g, (void)call;
    return true;
}

static bool note_convolution(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    struct noted_convolution c = {.has_bias = call->in[2] != NULL};
    memcpy(&c.shape, call->args, sizeof c.shape);
    for (int i = 0; i < noted->convolutions; i++)
        if (memcmp(&noted->convolution[i], &c, sizeof c) == 0)
            return true;
    assert_true(noted->convolutions < (int)(sizeof noted->convolution / sizeof *noted->convolution));
    noted->convolution[noted->convolutions++] = c;
    return true;
}

static bool note_attention(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const struct draft_attention_shape *s = call->args;
    for (int i = 0; i < noted->attentions; i++) {
        const struct draft_attention_shape *o = &noted->attention[i].shape;
        if (o->n == s->n && o->s == s->s && o->t == s->t && o->heads == s->heads && o->d == s->d &&
            o->causal == s->causal)
            return true;
    }
    assert_true(noted->attentions < (int)(sizeof noted->attention / sizeof *noted->attention));
    noted->attention[noted->attentions++] = (struct noted_attention){*s, running};
    return true;
}

static const struct draft_op_column PASS = {pass, pass}, CONVOLUTION = {note_convolution, pass},
                                    ATTENTION = {note_attention, pass};
static const struct draft_op_column *columns[DRAFT_OPS];
static const struct draft_backend_kind NOTES = {.name = "notes", .ops = columns};

/* --- The models
 * -------------------------------------------------------------------------------------------------------
 */

enum { WORDS = 77 };

struct bench {
    struct draft_backend_head backend;
    struct draft_arena *models, *step;
    struct draft_graph g;
    struct draft_error err;
};

static void begin(struct bench *b, const char *model)
{
    for (int i = 0; i < DRAFT_OPS; i++)
        columns[i] = i == DRAFT_OP_conv2d ? &CONVOLUTION : i == DRAFT_OP_attention ? &ATTENTION : &PASS;
    running = model;
    *b = (struct bench){.backend = {.kind = &NOTES, .dry = true}};
    b->models = draft_arena_create("models", (size_t)1 << 30, &b->err);
    b->step = draft_arena_create("step", (size_t)1 << 42, &b->err); /* of addresses: nothing is written */
    assert_true(draft_graph_init(&b->g, (struct draft_backend *)&b->backend, b->step, &b->err));
}

static void end(struct bench *b, const void *done)
{
    if (done == NULL || !draft_graph_ok(&b->g))
        fail_msg("%s: %s%s", running, b->err.message, b->g.error.message);
    draft_graph_finish(&b->g);
    draft_arena_destroy(b->step);
    draft_arena_destroy(b->models);
}

static struct draft_tensor *empty(struct bench *b, int64_t n, int64_t h, int64_t w, int64_t c)
{
    return draft_new(&b->g, DRAFT_F32, 4, (const int64_t[]){n, h, w, c});
}

static void note_pipeline(const char *folder, int64_t images)
{
    struct bench b;
    char path[512];
    begin(&b, folder);
    snprintf(path, sizeof path, "%s/unet", folder);
    const struct draft_unet *unet = draft_unet_open(path, b.models, NULL, &b.err);
    snprintf(path, sizeof path, "%s/vae", folder);
    const struct draft_vae *vae = unet != NULL ? draft_vae_open(path, b.models, &b.err) : NULL;
    snprintf(path, sizeof path, "%s/text_encoder", folder);
    const struct draft_clip_text *text = vae != NULL ? draft_clip_text_open(path, b.models, &b.err) : NULL;
    const struct draft_tensor *picture = NULL;
    if (text != NULL) {
        const struct draft_unet_info info = draft_unet_info(unet);
        const int64_t words = draft_clip_text_max_positions(text) < WORDS ? draft_clip_text_max_positions(text) : WORDS;
        struct draft_tensor *ids = draft_new(&b.g, DRAFT_I32, 2, (const int64_t[]){images, words});
        draft_clip_text_forward(&b.g, text, ids);
        const struct draft_unet_call call = {
            .t = draft_scalar(&b.g, 500),
            .context = draft_new(&b.g, DRAFT_F32, 3, (const int64_t[]){2 * images, words, info.context_width})};
        draft_unet_forward(&b.g, unet, empty(&b, 2 * images, info.sample_height, info.sample_width, info.in_channels),
                           &call);
        picture = draft_vae_decode(
            &b.g, vae, empty(&b, images, info.sample_height, info.sample_width, draft_vae_info(vae).latent_channels));
    }
    end(&b, picture);
}

static void note_clip(const char *folder, int64_t images)
{
    struct bench b;
    begin(&b, folder);
    const struct draft_clip *clip = draft_clip_open(folder, b.models, &b.err);
    const struct draft_tensor *image = NULL;
    if (clip != NULL) {
        const int64_t words = draft_clip_text_max_positions(draft_clip_text_tower(clip));
        draft_clip_text_embed(&b.g, clip, draft_new(&b.g, DRAFT_I32, 2, (const int64_t[]){images, words}));
        const int64_t size = draft_clip_image_size(clip);
        image = draft_clip_image_embed(&b.g, clip, empty(&b, images, size, size, 3), NULL);
    }
    end(&b, image);
}

void note_model_shapes(struct model_shapes *shapes, int images)
{
    noted = shapes;
    note_pipeline(FIXTURES "/full_size/sd15", images);
    note_pipeline(FIXTURES "/full_size/sd21", images);
    note_pipeline(DEMO "/emoji-sd", images);
    note_clip(FIXTURES "/full_size/clip-l", images);
    note_clip(FIXTURES "/full_size/clip-h", images);
    note_clip(DEMO "/emoji-clip", images);
}
