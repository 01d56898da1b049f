/* The samplers' own graph ops against diffusers' schedulers, step by step, and against themselves backwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"
#include "sampler/sampler.h"
#include "tensor/safetensors.h"

static struct draft_backend *backend;
static struct draft_arena *arena;
static struct draft_graph g;

static int open_graph(void **state)
{
    (void)state;
    struct draft_backend_options options = {.threads = 1};
    backend = draft_backend_create_cpu(&options, NULL);
    arena = draft_arena_create("test", 64 << 20, NULL);
    return backend && arena && draft_graph_init(&g, backend, arena, NULL) ? 0 : -1;
}

static int close_graph(void **state)
{
    (void)state;
    draft_graph_finish(&g);
    draft_arena_destroy(arena);
    draft_backend_destroy(backend);
    return 0;
}

static struct draft_scheduler parse(const char *json)
{
    struct draft_scheduler scheduler;
    struct draft_error err = {0};
    if (!draft_scheduler_parse(&scheduler, json, &err))
        fail_msg("%s", err.message);
    return scheduler;
}

static bool read_numbers(const struct draft_safetensors *file, const char *name, int T, const char *part, float *out,
                         size_t *count)
{
    char key[96];
    struct draft_error err = {0};
    snprintf(key, sizeof key, "%s/%d/%s", name, T, part);
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, key);
    if (!entry)
        return false;
    assert_true(entry->bytes <= 51 * 36 * sizeof *out);
    assert_true(draft_safetensors_to_f32(entry, out, &err));
    *count = entry->bytes / sizeof *out;
    return true;
}

static struct draft_tensor *network(double timestep, const struct draft_tensor *x)
{
    struct draft_tensor *m = draft_new(&g, DRAFT_F32, x->rank, x->dim);
    for (int64_t i = 0; i < draft_tensor_count(m); i++)
        draft_f32(m)[i] = (float)(sin((double)draft_f32(x)[i]) + cos(timestep / 1000));
    return m;
}

/* Calls without gradient while i < quiet, forgetting all but x and the history as sampling runs do; then recorded. */
static void follow(const struct draft_safetensors *file, const char *name, const struct draft_sampler *sampler, int T,
                   int quiet)
{
    static float noise[51 * 36], timesteps[51 * 36], reference[51 * 36], fresh[51 * 36];
    size_t numbers, calls, total, ignored;
    struct draft_error err = {0};
    struct draft_sampler_plan plan;
    struct draft_sampler_history history;
    assert_true(read_numbers(file, name, T, "noise", noise, &numbers));
    assert_true(read_numbers(file, name, T, "timesteps", timesteps, &calls));
    assert_true(read_numbers(file, name, T, "x", reference, &total));
    bool ancestral = read_numbers(file, name, T, "fresh", fresh, &ignored);
    struct draft_scheduler scheduler = parse(draft_safetensors_metadata(file, name));
    if (!draft_sampler_plan_make(&plan, sampler, &scheduler, T, &err))
        fail_msg("%s: %s", name, err.message);
    assert_int_equal(plan.count, calls);

    draft_graph_reset(&g, NULL);
    int64_t dim = (int64_t)numbers;
    struct draft_tensor *x = draft_new(&g, DRAFT_F32, 1, &dim), *z = draft_new(&g, DRAFT_F32, 1, &dim);
    memcpy(x->data, noise, numbers * sizeof *noise);
    x = draft_sampler_start(&g, &plan, x);
    assert_true(draft_sampler_history_make(&g, &plan, x, &history));
    struct draft_tensor *at = draft_sampler_numbers(&g);
    bool recording = draft_no_grad(&g);
    struct draft_mark mark = draft_scope_begin(&g);
    for (int i = 0; i < plan.count; i++) {
        struct draft_sampler_step placed, *step = &placed;
        if (i == quiet)
            g.recording = recording;
        assert_true(draft_sampler_place(&g, &plan.step[i], g.recording ? draft_sampler_numbers(&g) : at, step));
        struct draft_tensor *m = network(step->timestep, draft_sampler_input(&g, step, x));
        struct draft_predicted predicted = draft_sampler_predict(&g, &plan, step, x, m);
        if (ancestral)
            memcpy(z->data, fresh + (size_t)i * numbers, numbers * sizeof *fresh);
        x = draft_sampler_advance(&g, &plan, step, x, m, &predicted, &history, ancestral ? z : NULL);
        if (i < quiet)
            x = draft_scope_end(&g, mark, x);
        double difference = 0, size = 0;
        for (size_t k = 0; k < numbers; k++) {
            double ref = (double)reference[(size_t)i * numbers + k];
            difference += pow((double)draft_f32(x)[k] - ref, 2);
            size += ref * ref;
        }
        if (!(sqrt(difference / size) <= 1e-5))
            fail_msg("%s, %d steps: relative error %g after call %d", name, T, sqrt(difference / size), i);
        if (!(fabs(step->timestep - (double)timesteps[i]) <= 1e-5 * fmax(1, step->timestep)))
            fail_msg("%s, %d steps: timestep %.9g, expected %.9g", name, T, step->timestep, (double)timesteps[i]);
    }
    g.recording = recording;
    draft_sampler_plan_free(&plan);
    draft_scheduler_close(&scheduler);
}

static void follow_file(const char *path, const char *name, const struct draft_sampler *sampler)
{
    static const int counts[] = {1, 2, 4, 7, 20, 30, 50};
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    if (!file)
        fail_msg("%s", err.message);
    int followed = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char key[96];
        snprintf(key, sizeof key, "%s/%d/x", name, counts[i]);
        if (!draft_safetensors_find(file, key))
            continue;
        follow(file, name, sampler, counts[i], counts[i] / 2);
        follow(file, name, sampler, counts[i], 0);
        followed++;
    }
    draft_safetensors_close(file);
    assert_true(followed >= 2);
}

static void test_sampler__follows_diffusers_trajectories_of_eleven_configurations(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const struct draft_sampler *sampler;
    } rows[] = {
        {"ddim", &draft_sampler_ddim},
        {"ddim_alpha_one", &draft_sampler_ddim},
        {"ddim_trailing_v", &draft_sampler_ddim},
        {"ddim_linspace", &draft_sampler_ddim},
        {"ddim_zero_snr", &draft_sampler_ddim},
        {"pndm", &draft_sampler_pndm},
        {"euler", &draft_sampler_euler},
        {"euler_karras", &draft_sampler_euler_karras},
        {"euler_ancestral", &draft_sampler_euler_a},
        {"dpmpp_2m", &draft_sampler_dpmpp_2m},
        {"dpmpp_2m_karras", &draft_sampler_dpmpp_2m_karras},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        follow_file(FIXTURES "/golden/samplers.safetensors", rows[i].name, rows[i].sampler);
}

static void test_sampler__follows_diffusers_with_every_spacing_and_prediction(void **state)
{
    (void)state;
    static const char *const kinds[] = {"leading", "trailing_v", "linspace", "cosine", "zero_snr", "sample"};
    static const struct {
        const char *name;
        const struct draft_sampler *sampler;
        int kinds; /* bits: those that diffusers can do */
    } rows[] = {
        {"pndm", &draft_sampler_pndm, 0x0f},
        {"euler", &draft_sampler_euler, 0x3f},
        {"euler_karras", &draft_sampler_euler_karras, 0x3f},
        {"euler_ancestral", &draft_sampler_euler_a, 0x1f},
        {"dpmpp_2m", &draft_sampler_dpmpp_2m, 0x3f},
        {"dpmpp_2m_karras", &draft_sampler_dpmpp_2m_karras, 0x27},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int k = 0; k < 6; k++) {
            char name[64];
            snprintf(name, sizeof name, "%s_%s", rows[i].name, kinds[k]);
            if (rows[i].kinds >> k & 1)
                follow_file(FIXTURES "/samplers_more.safetensors", name, rows[i].sampler);
        }
    }
}

/* With a linear network, m = x / 2, the whole run is linear in x_T: its result for ones is its slope, and the same
 * number for every element. */
static void test_sampler__gradients_flow_through_every_term(void **state)
{
    (void)state;
    static const struct draft_sampler *const samplers[] = {
        &draft_sampler_ddim,    &draft_sampler_pndm,     &draft_sampler_euler,          &draft_sampler_euler_karras,
        &draft_sampler_euler_a, &draft_sampler_dpmpp_2m, &draft_sampler_dpmpp_2m_karras};
    struct draft_scheduler scheduler = parse("{\"clip_sample\": false, \"prediction_type\": \"v_prediction\"}");
    for (size_t s = 0; s < sizeof samplers / sizeof *samplers; s++) {
        struct draft_sampler_plan plan;
        struct draft_sampler_history history;
        assert_true(draft_sampler_plan_make(&plan, samplers[s], &scheduler, 8, NULL));
        draft_graph_reset(&g, NULL);
        int64_t dim = 3;
        struct draft_tensor *leaf = draft_new(&g, DRAFT_F32, 1, &dim), *z = draft_new(&g, DRAFT_F32, 1, &dim);
        for (int k = 0; k < 3; k++) {
            draft_f32(leaf)[k] = 1;
            draft_f32(z)[k] = 0;
        }
        leaf->needs_grad = true;
        struct draft_tensor *x = leaf;
        assert_true(draft_sampler_history_make(&g, &plan, x, &history));
        for (int i = 0; i < plan.count; i++) {
            struct draft_sampler_step placed, *step = &placed;
            assert_true(draft_sampler_place(&g, &plan.step[i], draft_sampler_numbers(&g), step));
            struct draft_tensor *m = draft_axpby(&g, 0.5f, draft_sampler_input(&g, step, x), 0, NULL);
            struct draft_predicted p = draft_sampler_predict(&g, &plan, step, x, m);
            x = draft_sampler_advance(&g, &plan, step, x, m, &p, &history, z);
        }
        const float ones[] = {1, 1, 1};
        double slope = (double)draft_f32(x)[0];
        assert_true(draft_graph_backward(&g, x, ones));
        if (!(fabs((double)*draft_grad_f32(leaf) - slope) <= 1e-5 * fabs(slope)) || slope == 0)
            fail_msg("%s: the gradient is %g, the slope %g", samplers[s]->name, (double)*draft_grad_f32(leaf), slope);
        draft_sampler_plan_free(&plan);
    }
    draft_scheduler_close(&scheduler);
}

static void test_sampler__a_perfect_network_is_decoded_exactly(void **state)
{
    (void)state;
    static const char *const names[] = {"ddim",    "pndm",     "euler",          "euler_karras",
                                        "euler_a", "dpmpp_2m", "dpmpp_2m_karras"};
    static const char *const predictions[] = {"epsilon", "v_prediction"};
    const double x0 = 0.7, eps = -1.3;
    for (size_t s = 0; s < sizeof names / sizeof *names; s++) {
        for (int v = 0; v < 2; v++) {
            char json[96];
            struct draft_sampler_plan plan;
            snprintf(json, sizeof json, "{\"prediction_type\": \"%s\"}", predictions[v]);
            struct draft_scheduler scheduler = parse(json);
            assert_true(draft_sampler_plan_make(&plan, draft_sampler_find(names[s], NULL), &scheduler, 9, NULL));
            for (int i = 0; i < plan.count; i++) {
                const struct draft_sampler_step *step = &plan.step[i];
                double x = step->signal * x0 + step->noise * eps;
                double size = sqrt(step->signal * step->signal + step->noise * step->noise);
                double m = v ? (step->signal * eps - step->noise * x0) / size : eps;
                assert_true(fabs(step->input_scale * size - 1) < 1e-12);
                assert_true(fabs(step->x0_x * x + step->x0_m * m - x0) < 1e-9);
                assert_true(fabs(step->eps_x * x + step->eps_m * m - eps) < 1e-9);
            }
            draft_sampler_plan_free(&plan);
            draft_scheduler_close(&scheduler);
        }
    }
}

static void test_sampler__names_what_there_is(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_ptr_equal(draft_sampler_find(NULL, NULL), &draft_sampler_ddim);
    assert_ptr_equal(draft_sampler_find("", NULL), &draft_sampler_ddim);
    assert_ptr_equal(draft_sampler_find("euler_a", NULL), &draft_sampler_euler_a);
    assert_null(draft_sampler_find("Euler a", &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_string_equal(err.message, "there is no sampler \"Euler a\"; use ddim, pndm, euler, euler_karras, euler_a, "
                                     "dpmpp_2m or dpmpp_2m_karras");
}

static void test_sampler__refuses_a_schedule_it_cannot_follow(void **state)
{
    (void)state;
    static const struct {
        const char *sampler, *json, *words;
        int T;
    } rows[] = {
        {"pndm", "{\"skip_prk_steps\": false}", "\"skip_prk_steps\" is false", 10},
        {"pndm", "{\"prediction_type\": \"sample\"}", "predicts the sample", 10},
        {"pndm", "{\"rescale_betas_zero_snr\": true}", "zero signal", 10},
        {"euler_a", "{\"prediction_type\": \"sample\"}", "predicts the sample", 10},
        {"euler", "{\"final_sigmas_type\": \"sigma_min\"}", "\"final_sigmas_type\" is \"sigma_min\", not \"zero\"", 10},
        {"euler_karras", "{\"sigma_max\": 80}", "\"sigma_max\" is 80, not null", 10},
        {"dpmpp_2m", "{\"timestep_type\": \"continuous\"}", "use ddim or pndm", 10},
        {"dpmpp_2m", "{}", "two of them fall on one timestep", 1000},
        {"euler", "{\"timestep_spacing\": \"leading\", \"steps_offset\": 1}", "lead to timestep 1000 of 1000", 1000},
        {"euler", "{}", "ask for 1 to 1000", 1001},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_error err = {0};
        struct draft_sampler_plan plan;
        struct draft_scheduler scheduler = parse(rows[i].json);
        const struct draft_sampler *sampler = draft_sampler_find(rows[i].sampler, NULL);
        assert_false(draft_sampler_plan_make(&plan, sampler, &scheduler, rows[i].T, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        if (!strstr(err.message, rows[i].words))
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].words);
        draft_scheduler_close(&scheduler);
    }
}

static void test_sampler__every_count_is_planned_or_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"pndm", "euler", "euler_karras", "euler_a", "dpmpp_2m", "dpmpp_2m_karras"};
    static const char *const configs[] = {
        "{}", "{\"timestep_spacing\": \"leading\", \"steps_offset\": 1}", "{\"timestep_spacing\": \"trailing\"}",
        "{\"num_train_timesteps\": 77, \"timestep_spacing\": \"trailing\"}", "{\"num_train_timesteps\": 1}"};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct draft_scheduler scheduler = parse(configs[i]);
        for (size_t s = 0; s < sizeof names / sizeof *names; s++) {
            for (int T = 1; T <= scheduler.train_timesteps; T += 1 + T / 20) {
                struct draft_error err = {0};
                struct draft_sampler_plan plan;
                if (!draft_sampler_plan_make(&plan, draft_sampler_find(names[s], NULL), &scheduler, T, &err)) {
                    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
                    assert_true(T == 1 || T > scheduler.train_timesteps / 3);
                    continue;
                }
                assert_true(plan.count == T || plan.count == T + 1);
                for (int k = 1; k < plan.count; k++)
                    assert_true(plan.step[k].timestep <= plan.step[k - 1].timestep);
                draft_sampler_plan_free(&plan);
            }
        }
        draft_scheduler_close(&scheduler);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler__follows_diffusers_trajectories_of_eleven_configurations),
        cmocka_unit_test(test_sampler__follows_diffusers_with_every_spacing_and_prediction),
        cmocka_unit_test(test_sampler__gradients_flow_through_every_term),
        cmocka_unit_test(test_sampler__a_perfect_network_is_decoded_exactly),
        cmocka_unit_test(test_sampler__names_what_there_is),
        cmocka_unit_test(test_sampler__refuses_a_schedule_it_cannot_follow),
        cmocka_unit_test(test_sampler__every_count_is_planned_or_refused),
    };
    return cmocka_run_group_tests(tests, open_graph, close_graph);
}
