/* Several devices, of which a fake probe says how they are: one job on each, the queue of each, GPUs that fail. */
#include "daemon_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FREE    DRAFTD__V1__GET_SERVER_INFO_RESPONSE__DEVICE__STATE__STATE_FREE
#define BUSY    DRAFTD__V1__GET_SERVER_INFO_RESPONSE__DEVICE__STATE__STATE_BUSY
#define DRAINED DRAFTD__V1__GET_SERVER_INFO_RESPONSE__DEVICE__STATE__STATE_DRAINED

static char states[128]; /* what probes of GPUs meet */

/* A daemon that finds two GPUs, or as many as a test says before it opens one. */
static int setup(void **state)
{
    setenv("FAKE_GPUS", "2", 1);
    snprintf(states, sizeof states, "/tmp/draftd-gpus-%d", (int)getpid());
    fixture_write(states, "");
    setenv("FAKE_GPU_STATE", states, 1);
    int rc = fixture_setup(state);
    ((struct fixture *)*state)->config.probe_seconds = 1;
    return rc;
}

static int teardown(void **state)
{
    unlink(states);
    return fixture_teardown(state);
}

static void reopen(struct fixture *f)
{
    fixture_close(f);
    fixture_open(f);
}

static const char *submit(struct fixture *f, const char *device, const char *script, int64_t steps, char id[32])
{
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, script, steps);
    spec->device = strdup(device);
    if (!fixture_try_submit(f, spec, "", id, &err))
        fail_msg("submit for %s: %s", device, err.message);
    fixture_free(spec);
    return id;
}

static void runs_on(struct fixture *f, const char *id, const char *device)
{
    Draftd__V1__Job *job = fixture_wait(f, id, RUNNING);
    assert_string_equal(job->device, device);
    fixture_free(job);
}

/* Waits until a queued job says that. */
static void waits(struct fixture *f, const char *id, const char *reason, int64_t position)
{
    for (int i = 0; i < 2000; i++, usleep(5000)) {
        Draftd__V1__Job *job = fixture_job(f, id);
        bool is = job->state == QUEUED && strstr(job->reason, reason);
        if (is)
            assert_int_equal(job->queue_position, position);
        else if (i == 1999)
            fail_msg("%s is in state %d and says \"%s\"", id, (int)job->state, job->reason);
        fixture_free(job);
        if (is)
            return;
    }
}

static Draftd__V1__GetServerInfoResponse *info_when(struct fixture *f, size_t device, int state)
{
    for (int i = 0;; i++, usleep(5000)) {
        Draftd__V1__GetServerInfoResponse *info = NULL;
        assert_true(draftd_server_info(f->d, &info, NULL));
        if (info->n_devices > device && (int)info->devices[device]->state == state)
            return info;
        fixture_free(info);
        if (i == 2000)
            fail_msg("device %zu never came into state %d", device, state);
    }
}

static void cancel(struct fixture *f, const char *id)
{
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_cancel_job(f->d, id, &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, CANCELLED));
}

static void test_devices__are_listed_with_what_is_on_them(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_free(info_when(f, 1, FREE));
    fixture_free(info_when(f, 2, FREE));
    submit(f, "cuda:1", "ms=20", 1000, id);
    Draftd__V1__GetServerInfoResponse *info = info_when(f, 2, BUSY);
    assert_int_equal(info->n_devices, 3);
    assert_string_equal(info->devices[0]->name, "cpu");
    assert_string_equal(info->devices[1]->name, "cuda:0");
    assert_string_equal(info->devices[1]->description, "Fake GPU");
    assert_string_equal(info->devices[1]->capability, "9.0");
    assert_string_equal(info->devices[1]->driver, "CUDA 13.0");
    assert_true(info->devices[1]->memory_bytes == 80ull << 30 && info->devices[1]->free_bytes == 79ull << 30);
    assert_string_equal(info->devices[1]->job_id, "");
    assert_string_equal(info->devices[2]->job_id, id);
    assert_string_equal(info->no_gpu, "");
    fixture_free(info);
}

static void test_devices__jobs_run_side_by_side_and_a_third_waits_for_either(void **state)
{
    struct fixture *f = *state;
    char job[5][32];
    submit(f, "auto", "ms=20", 1000, job[0]);
    runs_on(f, job[0], "cuda:0");
    submit(f, "", "ms=20", 1000, job[1]);
    runs_on(f, job[1], "cuda:1");
    submit(f, "auto", "ms=20", 1000, job[2]);
    waits(f, job[2], "waits for cuda:0: job-1 is running; cuda:1: job-2 is running", 1);
    submit(f, "cuda:1", "ms=20", 1000, job[3]);
    waits(f, job[3], "waits for cuda:1: job-2 is running, others are before it", 2);
    submit(f, "cpu", "ms=20", 1000, job[4]);
    runs_on(f, job[4], "cpu");
    cancel(f, job[1]);
    runs_on(f, job[2], "cuda:1"); /* it waited longest */
    waits(f, job[3], "waits for cuda:1: job-3 is running", 1);
    cancel(f, job[0]);
    usleep(100000);
    waits(f, job[3], "waits for cuda:1", 1); /* another GPU's being free is no use to it */
    cancel(f, job[2]);
    runs_on(f, job[3], "cuda:1");
}

static void test_devices__the_cpu_has_one_job_at_a_time_and_a_queue_of_its_own(void **state)
{
    struct fixture *f = *state;
    char job[4][32];
    submit(f, "cpu", "ms=20", 1000, job[0]);
    runs_on(f, job[0], "cpu");
    submit(f, "cpu", "ms=20", 1000, job[1]);
    submit(f, "auto", "cpuonly ms=20", 1000, job[2]); /* what no GPU can do */
    waits(f, job[1], "waits for cpu: job-1 is running", 1);
    waits(f, job[2], "waits for cpu: job-1 is running, others are before it", 2);
    submit(f, "cuda", "ms=20", 1000, job[3]); /* came last, waits for nobody */
    runs_on(f, job[3], "cuda:0");
}

static void test_devices__after_a_restart_jobs_go_on_each_on_a_device(void **state)
{
    struct fixture *f = *state;
    char job[3][32];
    submit(f, "cuda:1", "ms=5", 600, job[0]);
    submit(f, "auto", "ms=5", 600, job[1]);
    submit(f, "cuda:1", "", 5, job[2]);
    fixture_wait_step(f, job[0], 20);
    fixture_wait_step(f, job[1], 20);
    reopen(f);
    runs_on(f, job[0], "cuda:1");
    runs_on(f, job[1], "cuda:0");
    waits(f, job[2], "waits for cuda:1: job-1 is running", 1);
    for (int i = 0; i < 3; i++) {
        Draftd__V1__Job *done = fixture_wait(f, job[i], SUCCEEDED);
        assert_int_equal(done->attempt, i < 2 ? 2 : 1);
        assert_string_equal(done->device, "");
        fixture_free(done);
    }
}

static void test_devices__each_running_job_is_paused_drawn_and_deleted_by_itself(void **state)
{
    struct fixture *f = *state;
    char job[2][32];
    struct draft_error err = {0};
    Draftd__V1__Job *paused = NULL;
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    char *prompts[] = {(char *)"an owl"};
    submit(f, "auto", "ms=5", 3000, job[0]);
    submit(f, "auto", "ms=5", 3000, job[1]);
    fixture_wait_step(f, job[0], 3);
    fixture_wait_step(f, job[1], 3);
    spec.prompts = prompts;
    spec.n_prompts = 1;
    request.spec = &spec;
    for (int i = 0; i < 2; i++) {
        Draftd__V1__Preview *preview = NULL;
        request.job_id = job[i];
        if (!draftd_create_preview(f->d, &request, &preview, &err))
            fail_msg("%s", err.message);
        char id[32];
        snprintf(id, sizeof id, "%s", preview->id);
        fixture_free(preview);
        fixture_free(fixture_wait_preview(f, id, DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED));
    }
    assert_true(draftd_pause_job(f->d, job[0], draftd_within(FIXTURE_MS), &paused, &err));
    fixture_free(paused);
    assert_true(draftd_delete_job(f->d, job[0], &err));
    assert_int_equal(fixture_state(f, job[1]), RUNNING);
    submit(f, "cuda", "", 5, job[0]); /* the device is free */
    fixture_free(fixture_wait(f, job[0], SUCCEEDED));
    assert_int_equal(fixture_state(f, job[1]), RUNNING);
}

static void test_devices__a_gpu_that_is_lost_is_probed_and_works_on(void **state)
{
    struct fixture *f = *state;
    char id[32];
    submit(f, "cuda:0", "sticky@7", 20, id);
    Draftd__V1__Job *job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 2); /* from the checkpoint of step 5, on the same GPU */
    fixture_free(job);
    fixture_free(info_when(f, 1, FREE));
}

static void test_devices__a_sick_gpu_is_drained_until_it_answers(void **state)
{
    struct fixture *f = *state;
    char id[32], other[32];
    fixture_free(info_when(f, 1, FREE));
    f->config.probe_seconds = 60; /* nobody looks again unasked */
    reopen(f);
    fixture_free(info_when(f, 1, FREE));
    fixture_write(states, "cuda:0 sick\n");
    submit(f, "cuda:0", "sticky@7", 20, id);
    Draftd__V1__GetServerInfoResponse *info = info_when(f, 1, DRAINED);
    assert_non_null(strstr(info->devices[1]->reason, "uncorrectable ECC error"));
    fixture_free(info);
    waits(f, id, "waits for cuda:0, which is drained: copying from the GPU: uncorrectable ECC error", 1);
    submit(f, "auto", "ms=5", 1000, other);
    runs_on(f, other, "cuda:1"); /* goes elsewhere */

    struct draft_error err = {0};
    Draftd__V1__ProbeDevicesResponse *reply = NULL;
    assert_true(draftd_probe_devices(f->d, "cuda:0", draftd_within(FIXTURE_MS), &reply, &err));
    assert_int_equal(reply->n_devices, 3);
    assert_int_equal(reply->devices[1]->state, DRAINED); /* as before */
    fixture_free(reply);
    fixture_write(states, "");
    assert_true(draftd_probe_devices(f->d, "", draftd_within(FIXTURE_MS), &reply, &err));
    assert_int_not_equal(reply->devices[1]->state, DRAINED);
    fixture_free(reply);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    assert_false(draftd_probe_devices(f->d, "cuda:7", draftd_within(FIXTURE_MS), &reply, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
}

static void test_devices__probes_that_crash_or_hang_drain_and_come_back_by_themselves(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_write(states, "cuda:0 crash\ncuda:1 hang\n");
    reopen(f);
    Draftd__V1__GetServerInfoResponse *info = info_when(f, 1, DRAINED);
    assert_non_null(strstr(info->devices[1]->reason, "SIGSEGV"));
    fixture_free(info);
    info = info_when(f, 2, DRAINED);
    assert_non_null(strstr(info->devices[2]->reason, "no answer within 1 s"));
    fixture_free(info);
    submit(f, "auto", "ms=20", 1000, id);
    runs_on(f, id, "cpu"); /* no GPU is fit */
    fixture_write(states, "");
    fixture_free(info_when(f, 1, FREE));
    fixture_free(info_when(f, 2, FREE));
}

static void test_devices__without_a_gpu_auto_is_the_cpu_and_cuda_is_refused_with_the_reason(void **state)
{
    struct fixture *f = *state;
    struct draft_error err = {0};
    char id[32];
    unsetenv("FAKE_GPUS");
    reopen(f);
    submit(f, "auto", "ms=20", 1000, id);
    runs_on(f, id, "cpu");
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    spec->device = strdup("cuda");
    assert_false(fixture_try_submit(f, spec, "", id, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
    assert_string_equal(err.field, "spec.device");
    assert_string_equal(err.message, "no NVIDIA driver is installed");
    fixture_free(spec);
    Draftd__V1__GetServerInfoResponse *info = info_when(f, 0, BUSY);
    assert_int_equal(info->n_devices, 1);
    assert_string_equal(info->no_gpu, "no NVIDIA driver is installed");
    fixture_free(info);
}

static void test_devices__a_listing_that_crashes_is_made_again(void **state)
{
    struct fixture *f = *state;
    fixture_write(states, "list crash\n");
    reopen(f);
    Draftd__V1__GetServerInfoResponse *info = NULL;
    for (int i = 0; i < 1000 && (info == NULL || !*info->no_gpu); i++, usleep(5000)) {
        fixture_free(info);
        assert_true(draftd_server_info(f->d, &info, NULL));
    }
    assert_non_null(strstr(info->no_gpu, "SIGSEGV"));
    fixture_free(info);
    fixture_write(states, "");
    fixture_free(info_when(f, 1, FREE));

    /* what an earlier one has named stays there, and an automatic job does not fall to the CPU */
    Draftd__V1__ProbeDevicesResponse *reply = NULL;
    char id[32];
    fixture_write(states, "list crash\n");
    assert_true(draftd_probe_devices(f->d, "", draftd_within(FIXTURE_MS), &reply, NULL));
    assert_string_equal(reply->no_gpu, "");
    fixture_free(reply);
    runs_on(f, submit(f, "auto", "ms=20", 1000, id), "cuda:0");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_devices__are_listed_with_what_is_on_them),
        TEST(test_devices__jobs_run_side_by_side_and_a_third_waits_for_either),
        TEST(test_devices__the_cpu_has_one_job_at_a_time_and_a_queue_of_its_own),
        TEST(test_devices__after_a_restart_jobs_go_on_each_on_a_device),
        TEST(test_devices__each_running_job_is_paused_drawn_and_deleted_by_itself),
        TEST(test_devices__a_gpu_that_is_lost_is_probed_and_works_on),
        TEST(test_devices__a_sick_gpu_is_drained_until_it_answers),
        TEST(test_devices__probes_that_crash_or_hang_drain_and_come_back_by_themselves),
        TEST(test_devices__without_a_gpu_auto_is_the_cpu_and_cuda_is_refused_with_the_reason),
        TEST(test_devices__a_listing_that_crashes_is_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
