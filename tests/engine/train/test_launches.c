/*
 * How many kernels a guided UNet step of Stable Diffusion 1.5 at 512x512 and a UNet pass with gradient launch, counted
 * by dry runs in bf16 with a LoRA of rank 32. At batch 1 launches are a good part of a GPU's time.
 */
#include "demo_job.h"

#include "autograd/profile.h"
#include "backend/open.h"
#include "models/unet.h"

struct dry {
    struct draft_backend *backend;
    struct draft_arena *models, *step;
    struct draft_adapter *adapter;
    struct draft_unet *unet;
    struct draft_graph g;
};

static int open_dry(void **state)
{
    static struct dry dry;
    struct draft_error err = {0};
    struct draft_device device;
    char command[1024];
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL)
        return 0;
    snprintf(command, sizeof command, "python3 -B " FIXTURES "/../tools/random_model.py sd15 '%s' --headers",
             in_folder("sd15"));
    if (system(command) != 0 || draft_devices(NULL, &device, 1, &err) < 0 ||
        !(dry.backend = draft_backend_open_dry(NULL, NULL, &draft_services, &err)) ||
        !(dry.models = draft_arena_create("model", (size_t)1 << 30, &err)) ||
        !(dry.step = draft_backend_arena(dry.backend, "step", (size_t)1 << 36, &err)) ||
        !(dry.adapter = draft_adapter_create(dry.models, 32, 32, 1, &err)) ||
        !(dry.unet = draft_unet_open(in_folder("sd15/unet"), dry.models, dry.adapter, &err)) ||
        !draft_graph_init(&dry.g, dry.backend, dry.step, &err) ||
        !(dry.g.profile = draft_profile_create(dry.backend, &err))) {
        print_error("%s\n", err.message);
        return -1;
    }
    dry.g.activations = DRAFT_BF16;
    *state = &dry;
    return 0;
}

static int close_dry(void **state)
{
    struct dry *dry = *state;
    if (dry == NULL)
        return 0;
    draft_profile_destroy(dry->g.profile);
    draft_graph_finish(&dry->g);
    draft_arena_destroy(dry->step);
    draft_arena_destroy(dry->models);
    draft_backend_destroy(dry->backend);
    return remove_folder(state);
}

static struct draft_tensor *inputs(struct draft_graph *g, struct draft_unet_call *call)
{
    const int64_t latent[] = {1, 64, 64, 4}, context[] = {2, 77, 768}, one = 1;
    call->t = draft_new(g, DRAFT_F32, 1, &one);
    call->context = draft_new(g, DRAFT_F32, 3, context);
    return draft_new(g, DRAFT_F32, 4, latent);
}

static int64_t launches_of(struct draft_graph *g)
{
    const struct draft_profile_row *row;
    struct draft_error err = {0};
    int count;
    int64_t all = 0;
    assert_true(draft_graph_ok(g) && draft_profile_rows(g->profile, &row, &count, &err));
    for (int i = 0; i < count; i++) {
        all += row[i].launches;
        if (getenv("PRINT_LAUNCHES"))
            print_message("%-9s %4d calls %4d launches %8.1f GFLOP %8.1f MB  %s\n", row[i].backward ? "backward" : "",
                          (int)row[i].calls, (int)row[i].launches, row[i].flops / 1e9, row[i].bytes / 1e6, row[i].what);
    }
    print_message("%d launches\n", (int)all);
    return all;
}

static void test_launches__a_guided_step_without_gradient(void **state)
{
    struct dry *dry = *state;
    if (dry == NULL)
        skip();
    struct draft_graph *g = &dry->g;
    struct draft_unet_call call = {0};
    bool was = draft_no_grad(g);
    struct draft_tensor *x = inputs(g, &call);
    call.cached = draft_unet_precompute(g, dry->unet, call.context);
    draft_profile_clear(g->profile);
    draft_unet_forward(g, dry->unet, x, &call);
    g->recording = was;
    assert_true(launches_of(g) <= 485);
    draft_graph_reset(g, NULL);
}

static void test_launches__a_pass_with_gradient(void **state)
{
    struct dry *dry = *state;
    if (dry == NULL)
        skip();
    struct draft_graph *g = &dry->g;
    struct draft_unet_call call = {0};
    draft_profile_clear(g->profile);
    struct draft_tensor *x = inputs(g, &call);
    draft_graph_backward(g, draft_mean(g, draft_unet_forward(g, dry->unet, x, &call)), NULL);
    assert_true(launches_of(g) <= 2100);
    draft_graph_reset(g, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launches__a_guided_step_without_gradient),
        cmocka_unit_test(test_launches__a_pass_with_gradient),
    };
    return cmocka_run_group_tests(tests, open_dry, close_dry);
}
