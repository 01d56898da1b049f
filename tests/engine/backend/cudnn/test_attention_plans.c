/*
 * Every attention of the models has a fused plan on every described GPU, or stands among the exceptions. Engines follow
 * from the heads' width and the GPU, and each plan is compiled (some 0.4 s): one shape of each width is asked for, or
 * all of them with DRAFT_TEST_ALL_PLANS set.
 */
#include "engine/backend/cudnn/described_gpus.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cuda/attention_graph.h"
#include "engine/backend/cudnn/model_shapes.h"

/* Of heads, that backward has a plan for. */
static int64_t widest(const char *gpu)
{
    return strcmp(gpu, "h200") == 0 ? 256 : 128;
}

static size_t scores_bytes(const struct draft_attention_shape *s)
{
    return (size_t)(s->n * s->heads * s->s * s->t) * 2;
}

static void check(struct draft_cudnn *cudnn, const char *gpu, const struct noted_attention *a, bool backward)
{
    enum { SMALL = 4096, ROUNDED_UP = 22 << 20 };
    const struct draft_attention_shape *s = &a->shape;
    struct draft_cudnn_request request;
    /* the text encoders' mask, once a prompt, and the VAE's one head of 512 numbers, once a picture: unfused */
    bool asked = draft_attention_request(s, backward, SIZE_MAX, &request);
    assert_true(asked == (!s->causal && s->d <= 256));
    if (!asked)
        return;
    const struct draft_cudnn_plan *plan = plan_for(cudnn, &request);
    bool expected = !backward || s->d <= widest(gpu);
    if (plan->supported != expected || plan->workspace > (backward ? scores_bytes(s) + ROUNDED_UP : SMALL))
        fail_msg("%s on %s: %d heads of %d, %d queries, %d keys, %s: %s, %zu bytes of workspace", a->model, gpu,
                 (int)s->heads, (int)s->d, (int)s->s, (int)s->t, backward ? "backward" : "forward",
                 plan->supported ? "a plan" : plan->reason, plan->workspace);
}

/* With a LoRA's room behind the rows of the result. */
static void check_with_room(struct draft_cudnn *cudnn, const char *gpu, const struct noted_attention *a)
{
    struct noted_attention roomy = *a;
    roomy.shape.out_row = a->shape.heads * a->shape.d + 32;
    check(cudnn, gpu, &roomy, false);
}

static bool is_first_of_its_width(const struct model_shapes *shapes, int i)
{
    for (int k = 0; k < i; k++)
        if (shapes->attention[k].shape.d == shapes->attention[i].shape.d &&
            shapes->attention[k].shape.causal == shapes->attention[i].shape.causal)
            return false;
    return true;
}

static void test_attention_plans__every_attention_has_one_or_a_reason(void **state)
{
    (void)state;
    static struct model_shapes shapes;
    const bool all = getenv("DRAFT_TEST_ALL_PLANS") != NULL;
    note_model_shapes(&shapes, 1);
    assert_true(shapes.attentions > 20);
    for (int gpu = 0; gpu < DESCRIBED_GPU_COUNT; gpu++) {
        struct draft_cudnn *cudnn = cudnn_for(DESCRIBED_GPUS[gpu], NULL);
        for (int i = 0; i < shapes.attentions; i++)
            if (all || is_first_of_its_width(&shapes, i)) {
                check(cudnn, DESCRIBED_GPUS[gpu], &shapes.attention[i], false);
                check_with_room(cudnn, DESCRIBED_GPUS[gpu], &shapes.attention[i]);
                check(cudnn, DESCRIBED_GPUS[gpu], &shapes.attention[i], true);
            }
        draft_cudnn_destroy(cudnn);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_plans__every_attention_has_one_or_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
