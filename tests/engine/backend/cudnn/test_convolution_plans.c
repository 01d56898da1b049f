/* What cuDNN offers for the convolutions of every model on every GPU described: a plan that is not compiled at run
 * time, in the workspace the backend has, without a hidden copy of a tensor. */
#include "engine/backend/cudnn/described_gpus.h"

#include <string.h>

#include "backend/cuda/convolution.h"
#include "backend/cuda/convolution_graph.h"
#include "backend/cuda/state.h"
#include "engine/backend/cudnn/model_shapes.h"

static const struct {
    const char *name;
    enum draft_cudnn_direction direction;
    enum draft_convolution_also also;
} WAYS[] = {{"y", DRAFT_CUDNN_FORWARD, DRAFT_CONVOLUTION_ALONE},
            {"y + bias", DRAFT_CUDNN_FORWARD, DRAFT_CONVOLUTION_BIASED},
            {"residual + y + bias", DRAFT_CUDNN_FORWARD, DRAFT_CONVOLUTION_BIASED | DRAFT_CONVOLUTION_ADDED},
            {"dx", DRAFT_CUDNN_BACKWARD_DATA, DRAFT_CONVOLUTION_ALONE},
            {"dx + dx", DRAFT_CUDNN_BACKWARD_DATA, DRAFT_CONVOLUTION_ADDED},
            {"dw", DRAFT_CUDNN_BACKWARD_FILTER, DRAFT_CONVOLUTION_ALONE}};

static struct draft_conv_shape padded(const struct draft_conv_shape *s)
{
    struct draft_conv_shape p = *s;
    p.c = draft_cuda_padded_channels(s->c);
    p.o = draft_cuda_padded_channels(s->o);
    return p;
}

/* Layers of few pixels are split along their sums, which takes room for the parts. Where pixels are many, room as large
 * as a tensor is a copy of it. dw is split everywhere, and runs once a sample. */
static bool is_a_copy(const struct draft_conv_shape *s, enum draft_cudnn_direction direction, size_t workspace)
{
    enum { MANY = 256 * 256, BF16 = 2 };
    const int64_t least = s->c < s->o ? s->c : s->o;
    return direction != DRAFT_CUDNN_BACKWARD_FILTER && s->h * s->w >= MANY &&
           workspace >= (size_t)(s->n * s->h * s->w / (s->stride * s->stride) * least * BF16);
}

static void check_convolution(const char *gpu, struct draft_cudnn *cudnn, const struct draft_conv_shape *shape)
{
    const struct draft_conv_shape s = padded(shape);
    for (size_t i = 0; i < sizeof WAYS / sizeof *WAYS; i++) {
        const struct draft_cudnn_request request =
            draft_convolution_request(WAYS[i].direction, &s, WAYS[i].also, DRAFT_CUDA_WORKSPACE);
        const struct draft_cudnn_plan *plan = plan_for(cudnn, &request);
        if (!plan->supported || plan->compiled || is_a_copy(&s, WAYS[i].direction, plan->workspace))
            fail_msg("%s, %s of [%lld, %lld, %lld, %lld] to %lld channels, %lldx%lld stride %lld: workspace %zu; %s",
                     gpu, WAYS[i].name, (long long)s.n, (long long)s.h, (long long)s.w, (long long)s.c, (long long)s.o,
                     (long long)s.kh, (long long)s.kw, (long long)s.stride, plan->workspace, plan->reason);
    }
}

static void test_convolution_plans__every_model_on_every_gpu(void **state)
{
    (void)state;
    static struct model_shapes shapes[2];
    note_model_shapes(&shapes[0], 1);
    note_model_shapes(&shapes[1], 8);
    for (int gpu = 0; gpu < DESCRIBED_GPU_COUNT; gpu++) {
        struct draft_cudnn *cudnn = cudnn_for(DESCRIBED_GPUS[gpu], NULL);
        int checked = 0;
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < shapes[k].convolutions; i++)
                if (!draft_cuda_is_product(&shapes[k].convolution[i].shape)) {
                    check_convolution(DESCRIBED_GPUS[gpu], cudnn, &shapes[k].convolution[i].shape);
                    checked++;
                }
        assert_in_range(checked, 100, 400); /* the models were run, and not each layer of them counted */
        draft_cudnn_destroy(cudnn);
    }
}

/* Why channels are padded, and that the test above can tell. */
static void test_convolution_plans__few_channels_would_cost_a_copy(void **state)
{
    (void)state;
    struct draft_cudnn *cudnn = cudnn_for("h200", NULL);
    const struct draft_conv_shape rgb = {1, 512, 512, 128, 3, 3, 3, 1, 1, 1, 1, 1}, even = padded(&rgb);
    const struct draft_cudnn_request odd = draft_convolution_request(DRAFT_CUDNN_FORWARD, &rgb,
                                                                     DRAFT_CONVOLUTION_BIASED, 1 << 30),
                                     with = draft_convolution_request(DRAFT_CUDNN_FORWARD, &even,
                                                                      DRAFT_CONVOLUTION_BIASED, 1 << 30);
    assert_int_equal(even.o, 8);
    assert_true(is_a_copy(&rgb, DRAFT_CUDNN_FORWARD, plan_for(cudnn, &odd)->workspace));
    assert_in_range(plan_for(cudnn, &with)->workspace, 0, 1024);
    draft_cudnn_destroy(cudnn);
}

/* A convolution's sigmoid: cuDNN compiles such a thing when it is wanted. */
static void describe_sigmoid(struct draft_cudnn_graph *graph, const int64_t *c)
{
    const cudnnDataType_t bf16 = CUDNN_DATA_BFLOAT16;
    draft_cudnn_descriptor sum = draft_cudnn_image(graph, 0, CUDNN_DATA_FLOAT, 1, 16, 16, *c);
    draft_cudnn_convolution(graph,
                            &(struct draft_cudnn_convolution){.x = draft_cudnn_image(graph, 1, bf16, 1, 16, 16, *c),
                                                              .w = draft_cudnn_image(graph, 2, bf16, *c, 1, 1, *c),
                                                              .y = sum,
                                                              .stride = 1});
    draft_cudnn_pointwise(graph, CUDNN_POINTWISE_SIGMOID_FWD, sum, NULL,
                          draft_cudnn_image(graph, 3, bf16, 1, 16, 16, *c));
}

static void describe_nonsense(struct draft_cudnn_graph *graph, const int64_t *number)
{
    (void)number;
    draft_cudnn_matmul(graph, draft_cudnn_scalar(graph, 1), NULL, draft_cudnn_scalar(graph, 2));
}

static void test_convolution_plans__say_why_there_is_none(void **state)
{
    (void)state;
    struct draft_cudnn *cudnn = cudnn_for("h200", NULL);
    const struct draft_cudnn_plan *plan =
        plan_for(cudnn, &(struct draft_cudnn_request){.what = "a test", .number = {64}, .describe = describe_sigmoid});
    assert_false(plan->supported);
    assert_string_equal(plan->reason, "there are only engines that are compiled at run time");
    plan = plan_for(cudnn, &(struct draft_cudnn_request){.what = "a test", .describe = describe_nonsense});
    assert_false(plan->supported);
    assert_non_null(strstr(plan->reason, "cuDNN, a product: "));
    draft_cudnn_destroy(cudnn);

    struct draft_error err = {0};
    assert_null(draft_cudnn_create(&(struct draft_cudnn_options){.described = "{\"warpSize\":32}"}, &err));
    assert_non_null(strstr(err.message, "looking at the device"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolution_plans__every_model_on_every_gpu),
        cmocka_unit_test(test_convolution_plans__few_channels_would_cost_a_copy),
        cmocka_unit_test(test_convolution_plans__say_why_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
