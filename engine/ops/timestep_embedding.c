/*
 * timestep_embedding (diffusers' Timesteps): y [n, dim], every row the same,
 *   f_i = exp(-ln(10000) i / (half - shift)), i < half = dim / 2;  y = (sin(t f), cos(t f)), or (cos, sin) when
 * flipped; an odd dim gets a zero at the end.
 *
 * Rounded where diffusers rounds: it computes the angle t f in float32 whatever the model's type, and at t near 1000 an
 * angle is good to 6e-5 only, more than the whole network's error.
 * No gradient: t is a number of the sampler.
 */
#include "ops/op.h"

#include <assert.h>
#include <math.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g;
    const struct draft_timestep_embedding_args *args = call->args;
    const float t = *draft_f32(call->in[0]);
    int64_t dim = call->out->dim[1], half = dim / 2;
    float *y = draft_f32(call->out);
    float *sine = args->flip ? y + half : y, *cosine = args->flip ? y : y + half;
    for (int64_t i = 0; i < half; i++) {
        float exponent = (float)-log(10000.0) * (float)i / ((float)half - args->freq_shift);
        float angle = t * (float)exp((double)exponent);
        sine[i] = (float)sin((double)angle);
        cosine[i] = (float)cos((double)angle);
    }
    if (dim % 2 != 0)
        y[dim - 1] = 0;
    for (int64_t n = 1; n < call->out->dim[0]; n++)
        memcpy(y + n * dim, y, (size_t)dim * sizeof *y);
    return true;
}

const struct draft_op draft_op_timestep_embedding = {.name = "timestep_embedding",
                                                     .id = DRAFT_OP_timestep_embedding,
                                                     .forward = forward,
                                                     DRAFT_NO_GRADIENT("a timestep is a number of the sampler")};

struct draft_tensor *draft_timestep_embedding(struct draft_graph *g, struct draft_tensor *t, int64_t n, int64_t dim,
                                              bool flip_sin_to_cos, double freq_shift)
{
    if (!draft_graph_ok(g))
        return NULL;
    if (!draft_is_vector(t, 1))
        return DRAFT_REFUSE(g, "timestep_embedding", "one number", t);
    if (n < 1 || dim < 2 || freq_shift >= (double)(dim / 2)) {
        draft_fail(&g->error, DRAFT_INVALID_ARGUMENT,
                   "timestep_embedding: a width of %lld with a frequency shift of %g is not possible", (long long)dim,
                   freq_shift);
        return NULL;
    }
    struct draft_timestep_embedding_args args = {(float)freq_shift, flip_sin_to_cos};
    struct draft_call call = {.op = &draft_op_timestep_embedding, .in = {t}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, DRAFT_F32, 2, (int64_t[]){n, dim});
    return draft_graph_run(g, &call);
}
