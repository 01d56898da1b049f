#include "ops/cost.h"

#include <inttypes.h>
#include <stdio.h>

#include "ops/op.h"

/* --- Operations -----------------------------------------------------------------------------------------------------
 */

static bool wants(const struct draft_tensor *x)
{
    return x != NULL && x->needs_grad;
}

/* y = x W^T + s (x A^T) B^T; backward dx, dW and, of the adapter, dB, s dy B, dA and its part of dx. */
static double linear_flops(const struct draft_call *call, bool backward)
{
    const struct draft_linear_args *a = call->args;
    double whole = 2.0 * (double)a->m * (double)a->k * (double)a->o;
    double in = 2.0 * (double)a->m * (double)a->k * (double)a->r,
           out = 2.0 * (double)a->m * (double)a->o * (double)a->r;
    if (!backward)
        return whole + in + out;
    bool dx = wants(call->in[0]), down = wants(call->in[3]), up = wants(call->in[4]);
    return whole * (dx + wants(call->in[1])) + out * up + (dx || down ? out : 0) + in * (down + dx);
}

static double linears_flops(const struct draft_call *call)
{
    const struct draft_linears_args *a = call->args;
    const struct draft_linear_args *e = &a->each;
    return 2.0 * a->count * (double)e->m * ((double)e->k * (double)e->o + (double)e->r * (double)(e->k + e->o));
}

static double row_linears_flops(const struct draft_call *call)
{
    const struct draft_row_linears_args *a = call->args;
    double flops = 0;
    for (int i = 0; i < a->count; i++)
        flops += 2.0 * (double)draft_tensor_count(a->layer[i].weight);
    return flops;
}

static double conv2d_flops(const struct draft_call *call, bool backward)
{
    const struct draft_conv_shape *s = call->args;
    double whole = 2.0 * (double)draft_tensor_count(call->out) * (double)(s->kh * s->kw * s->c);
    return backward ? whole * (wants(call->in[0]) + wants(call->in[1])) : whole;
}

/* Two products; backward five, P being computed again (Dao 2023). */
static double attention_flops(const struct draft_call *call, bool backward)
{
    const struct draft_attention_shape *s = call->args;
    double product = 2.0 * (double)s->n * (double)s->heads * (double)s->s * (double)s->t * (double)s->d;
    return product * (backward ? 5 : 2);
}

/* Of an elementwise op, about: operations for each number of its output. Bytes decide there, not these. */
static double each_flops(const struct draft_call *call, bool backward)
{
    double each;
    switch (call->op->id) {
    case DRAFT_OP_group_norm:
    case DRAFT_OP_layer_norm:
        each = backward ? 16 : 8;
        break;
    case DRAFT_OP_geglu:
    case DRAFT_OP_activate:
        each = backward ? 12 : 8;
        break;
    case DRAFT_OP_resize_bicubic:
        each = 16;
        break;
    case DRAFT_OP_jpeg_size:
        each = 0; /* its output is one number a picture; its time is its bytes' */
        break;
    default:
        each = 2;
    }
    return each * (double)draft_tensor_count(call->out);
}

/* --- Bytes ----------------------------------------------------------------------------------------------------------
 */

/* A weight is read in the type of the activations beside it, whatever its file has. */
static double bytes_of(const struct draft_tensor *x, const struct draft_tensor *beside)
{
    bool weight = x->name != NULL && !x->needs_grad;
    return (double)draft_tensor_count(x) * (double)draft_dtype_size(weight ? beside->dtype : x->dtype);
}

/* Of what is read beside the inputs: linears' weights and adapters, row_linears' weights and biases. */
static double matrices_bytes(const struct draft_call *call)
{
    double bytes = 0;
    if (call->op->id == DRAFT_OP_row_linears) {
        const struct draft_row_linears_args *rows = call->args;
        for (int i = 0; i < rows->count; i++)
            bytes += bytes_of(rows->layer[i].weight, call->out) + bytes_of(rows->layer[i].bias, call->out) +
                     bytes_of(rows->layer[i].more, call->out);
    }
    if (call->op->id != DRAFT_OP_linears)
        return bytes;
    const struct draft_linears_args *a = call->args;
    for (int i = 0; i < a->count; i++) {
        bytes += bytes_of(a->w[i], call->out);
        if (a->each.r > 0)
            bytes += bytes_of(a->down[i], call->out) + bytes_of(a->up[i], call->out);
    }
    return bytes;
}

/* Forward: inputs read, output written. Backward: the output's gradient and what the op reads beside it, the wanted
 * gradients written. */
static double moved(const struct draft_call *call, bool backward)
{
    const unsigned read = !backward         ? DRAFT_READS_ALL & ~DRAFT_READS_OUT
                          : call->op->reads ? call->op->reads(call)
                                            : DRAFT_READS_ALL;
    const double out = bytes_of(call->out, call->out);
    double bytes = read & DRAFT_READS_OUT ? 2 * out : out;
    if (call->op->id == DRAFT_OP_embedding) /* a few rows of the table */
        return 2 * out;
    bytes += matrices_bytes(call);
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (call->in[i] != NULL)
            bytes += bytes_of(call->in[i], call->out) * ((read >> i & 1) + (backward && wants(call->in[i])));
    return bytes;
}

/* --- Both -----------------------------------------------------------------------------------------------------------
 */

struct draft_cost draft_op_cost(const struct draft_call *call, bool backward)
{
    if (call->op->anywhere) /* a view */
        return (struct draft_cost){0};
    struct draft_cost cost = {.bytes = moved(call, backward)};
    switch (call->op->id) {
    case DRAFT_OP_linear:
        cost.flops = linear_flops(call, backward);
        break;
    case DRAFT_OP_linears:
        cost.flops = linears_flops(call);
        break;
    case DRAFT_OP_row_linears:
        cost.flops = row_linears_flops(call);
        break;
    case DRAFT_OP_conv2d:
        cost.flops = conv2d_flops(call, backward);
        break;
    case DRAFT_OP_attention:
        cost.flops = attention_flops(call, backward);
        break;
    default:
        cost.flops = each_flops(call, backward);
    }
    return cost;
}

void draft_op_describe(const struct draft_call *call, char *text, size_t size)
{
    const char *name = call->op->name;
    if (call->op->id == DRAFT_OP_linear || call->op->id == DRAFT_OP_linears) {
        const struct draft_linears_args *of_all = call->args;
        const struct draft_linear_args *a = call->op->id == DRAFT_OP_linear ? call->args : &of_all->each;
        int n = snprintf(text, size, "%s %" PRId64 " x %" PRId64 ">%" PRId64, name, a->m, a->k, a->o);
        if (a->r > 0 && n > 0 && (size_t)n < size)
            snprintf(text + n, size - (size_t)n, " + LoRA %" PRId64, a->r);
    } else if (call->op->id == DRAFT_OP_conv2d) {
        const struct draft_conv_shape *s = call->args;
        snprintf(text, size, "%s %" PRId64 "x%" PRId64 "%s %" PRId64 ">%" PRId64 " at %" PRId64 "x%" PRId64 "x%" PRId64,
                 name, s->kh, s->kw, s->stride > 1 ? " strided" : "", s->c, s->o, s->n, s->h, s->w);
    } else if (call->op->id == DRAFT_OP_attention) {
        const struct draft_attention_shape *s = call->args;
        snprintf(text, size, "%s %" PRId64 " x %" PRId64 " heads of %" PRId64 ", %" PRId64 ">%" PRId64, name, s->n,
                 s->heads, s->d, s->s, s->t);
    } else {
        char shape[80];
        snprintf(text, size, "%s %s", name, draft_shape_text(call->out->rank, call->out->dim, shape, sizeof shape));
    }
}
