#include "daemon_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "folders.h"
#include "message.h"

bool fixture_patient(int *polls)
{
    usleep(2000);
    return ++*polls <= 10000;
}

void fixture_free(void *message)
{
    draftd_message_free(message);
}

void fixture_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

char *fixture_read(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return NULL;
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, file);
    text[n] = '\0';
    fclose(file);
    return text;
}

void fixture_open(struct fixture *f)
{
    struct draft_error err = {0};
    f->d = draftd_create(&f->config, &err);
    if (f->d == NULL)
        fail_msg("cannot open the daemon: %s", err.message);
}

void fixture_close(struct fixture *f)
{
    draftd_destroy(f->d);
    f->d = NULL;
}

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->folder, sizeof f->folder, "/tmp/draftd-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->state, sizeof f->state, "%s/state", f->folder);
    snprintf(f->model, sizeof f->model, "%s/model", f->folder);
    snprintf(f->dataset, sizeof f->dataset, "%s/prompts.txt", f->folder);
    char weights[128];
    snprintf(weights, sizeof weights, "%s/weights", f->model);
    mkdir(f->model, 0700);
    fixture_write(weights, "the weights");
    fixture_write(f->dataset, "a cat\na dog\n\na cat\nan owl in the snow\n");
    f->config = (struct draftd_config){
        .state_dir = f->state, .socket = "unused.sock", .worker = FAKE_WORKER, .hang_seconds = 6, .drain_seconds = 5};
    fixture_open(f);
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    draftd_remove_tree(f->folder);
    free(f);
    return 0;
}

Draftd__V1__JobSpec *fixture_spec(struct fixture *f, const char *script, int64_t steps)
{
    Draftd__V1__JobSpec *spec = draftd_message_new(&draftd__v1__job_spec__descriptor);
    draftd_message_string(&spec->display_name, script);
    draftd_message_string(&spec->model, f->model);
    draftd_message_string(&spec->dataset, f->dataset);
    Draftd__V1__Reward *reward = draftd_message_new(&draftd__v1__reward__descriptor);
    draftd_message_string(&reward->kind, "clip");
    draftd_message_string(&reward->path, f->model);
    draftd_message_append(&spec->rewards, &spec->n_rewards, reward);
    spec->length = draftd_message_new(&draftd__v1__length__descriptor);
    spec->length->steps = steps;
    spec->checkpoint_every = 5;
    return spec;
}

bool fixture_try_submit(struct fixture *f, const Draftd__V1__JobSpec *spec, const char *request_id, char id[32],
                        struct draft_error *err)
{
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    Draftd__V1__CreateJobResponse *reply = NULL;
    request.spec = (Draftd__V1__JobSpec *)spec;
    request.request_id = (char *)request_id;
    if (!draftd_create_job(f->d, &request, draftd_within(FIXTURE_MS), &reply, err))
        return false;
    snprintf(id, 32, "%s", reply->job->id);
    draftd_message_free(reply);
    return true;
}

char *fixture_submit(struct fixture *f, const char *script, int64_t steps, char id[32])
{
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, script, steps);
    if (!fixture_try_submit(f, spec, "", id, &err))
        fail_msg("submit of \"%s\": %s", script, err.message);
    draftd_message_free(spec);
    return id;
}

Draftd__V1__Job *fixture_job(struct fixture *f, const char *id)
{
    struct draft_error err = {0};
    Draftd__V1__Job *job = NULL;
    if (!draftd_get_job(f->d, id, &job, &err))
        fail_msg("%s: %s", id, err.message);
    return job;
}

Draftd__V1__Job__State fixture_state(struct fixture *f, const char *id)
{
    Draftd__V1__Job *job = fixture_job(f, id);
    Draftd__V1__Job__State state = job->state;
    draftd_message_free(job);
    return state;
}

Draftd__V1__Job *fixture_wait(struct fixture *f, const char *id, Draftd__V1__Job__State state)
{
    int polls = 0;
    for (;;) {
        Draftd__V1__Job *job = fixture_job(f, id);
        if (job->state == state)
            return job;
        if (!fixture_patient(&polls))
            fail_msg("%s is in state %d at step %lld, not in %d: %s", id, (int)job->state,
                     (long long)job->progress->step, (int)state, job->reason);
        draftd_message_free(job);
    }
}

void fixture_wait_step(struct fixture *f, const char *id, int64_t step)
{
    int polls = 0;
    for (;;) {
        Draftd__V1__Job *job = fixture_job(f, id);
        bool there = job->progress->step >= step;
        if (!there && !fixture_patient(&polls))
            fail_msg("%s is at step %lld in state %d: %s", id, (long long)job->progress->step, (int)job->state,
                     job->reason);
        draftd_message_free(job);
        if (there)
            return;
    }
}

Draftd__V1__Preview *fixture_wait_preview(struct fixture *f, const char *id, Draftd__V1__Preview__State state)
{
    int polls = 0;
    for (;;) {
        struct draft_error err = {0};
        Draftd__V1__Preview *preview = NULL;
        if (!draftd_get_preview(f->d, id, &preview, &err))
            fail_msg("%s: %s", id, err.message);
        if (preview->state == state)
            return preview;
        if (!fixture_patient(&polls))
            fail_msg("%s is in state %d: %s", id, (int)preview->state, preview->reason);
        draftd_message_free(preview);
    }
}

Draftd__V1__QueryMetricsResponse *fixture_points(struct fixture *f, const char *id, const char *series)
{
    struct draft_error err = {0};
    Draftd__V1__QueryMetricsRequest request = DRAFTD__V1__QUERY_METRICS_REQUEST__INIT;
    Draftd__V1__QueryMetricsResponse *reply = NULL;
    char *names[] = {(char *)series};
    request.job_id = (char *)id;
    request.names = names;
    request.n_names = 1;
    if (!draftd_query_metrics(f->d, &request, &reply, &err))
        fail_msg("metrics of %s: %s", id, err.message);
    return reply;
}
