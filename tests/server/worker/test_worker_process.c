/* draft-engine itself, as the daemon drives it: real processes, real frames, the demo model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker.pb-c.h"
#include "server/worker/worker_story.h"
#include "worker/frames.h"

/* --- A job -------------------------------------------------------------------------------------------------------- */

static char folder[64], dataset[128];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/draft-worker-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(dataset, sizeof dataset, "%s/dataset.jsonl", folder);
    FILE *file = fopen(dataset, "w");
    fputs("\"a lion\"\n\"a cat on a blue background\"\n\"a small pineapple\"\n", file);
    fclose(file);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char line[128];
    snprintf(line, sizeof line, "rm -rf '%s'", folder);
    return system(line);
}

struct job {
    Draftd__V1__JobSpec spec;
    Draftd__V1__Reward reward, *rewards[1];
    Draftd__V1__Sampling sampling;
    Draftd__V1__Lora lora;
    Draftd__V1__Optimizer optimizer;
    Draftd__V1__Length length;
    Draftd__V1__Evaluation evaluation;
    Draftd__Worker__Train train;
    Draftd__Worker__Command command;
    char folder[128];
};

static void make_job(struct job *j, const char *name, const char *checkpoint)
{
    draftd__v1__job_spec__init(&j->spec);
    draftd__v1__reward__init(&j->reward);
    draftd__v1__sampling__init(&j->sampling);
    draftd__v1__lora__init(&j->lora);
    draftd__v1__optimizer__init(&j->optimizer);
    draftd__v1__length__init(&j->length);
    draftd__v1__evaluation__init(&j->evaluation);
    draftd__worker__train__init(&j->train);
    draftd__worker__command__init(&j->command);
    j->spec.model = DEMO "/emoji-sd";
    j->reward.kind = "clip";
    j->reward.path = DEMO "/emoji-clip";
    j->rewards[0] = &j->reward;
    j->spec.n_rewards = 1;
    j->spec.rewards = j->rewards;
    j->sampling.steps = 4;
    j->lora.rank = 4;
    j->optimizer.learning_rate = 1e-3;
    j->length.steps = STEPS;
    j->length.micro_batch = 2;
    j->length.global_batch = 2;
    j->evaluation.every = 2;
    j->evaluation.seeds = 2;
    j->spec.sampling = &j->sampling;
    j->spec.lora = &j->lora;
    j->spec.optimizer = &j->optimizer;
    j->spec.length = &j->length;
    j->spec.evaluation = &j->evaluation;
    j->spec.checkpoint_every = CHECKPOINT_EVERY;
    snprintf(j->folder, sizeof j->folder, "%s/%s", folder, name);
    mkdir(j->folder, 0700);
    j->train.job_id = "job-1";
    j->train.spec = &j->spec;
    j->train.dataset = dataset;
    j->train.folder = j->folder;
    j->train.checkpoint = (char *)(uintptr_t)checkpoint;
    j->train.attempt = 1;
    j->command.kind_case = DRAFTD__WORKER__COMMAND__KIND_TRAIN;
    j->command.train = &j->train;
}

static void send_stop(struct worker *w, bool checkpoint)
{
    Draftd__Worker__Stop stop = DRAFTD__WORKER__STOP__INIT;
    Draftd__Worker__Command c = DRAFTD__WORKER__COMMAND__INIT;
    stop.checkpoint = checkpoint;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_STOP;
    c.stop = &stop;
    command(w, &c);
}

static void send_preview(struct worker *w, Draftd__V1__PreviewSpec *spec, const char *to)
{
    Draftd__Worker__Preview preview = DRAFTD__WORKER__PREVIEW__INIT;
    Draftd__Worker__Command c = DRAFTD__WORKER__COMMAND__INIT;
    preview.preview_id = "preview-1";
    preview.spec = spec;
    preview.folder = (char *)(uintptr_t)to;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_PREVIEW;
    c.preview = &preview;
    command(w, &c);
}

static void assert_same_files(const char *a, const char *b)
{
    FILE *first = fopen(a, "rb"), *second = fopen(b, "rb");
    assert_non_null(first);
    assert_non_null(second);
    int x, y;
    do {
        x = getc(first);
        y = getc(second);
        assert_int_equal(x, y);
    } while (x != EOF);
    fclose(first);
    fclose(second);
}

/* The undisturbed run that others are compared with; made once. */
static const struct story *undisturbed(void)
{
    static struct story s;
    if (s.finished)
        return &s;
    struct job j;
    make_job(&j, "undisturbed", "");
    struct worker w = start(true);
    command(&w, &j.command);
    s = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    if (s.code != 0)
        fail_msg("%s", s.message);
    return &s;
}

/* Reads on until the metrics of `step` have come. */
static void follow(struct worker *w, struct story *s, int step)
{
    while (isnan(s->reward[step])) {
        Draftd__Worker__Report *r = next(w);
        assert_non_null(r);
        take(s, r);
    }
}

static void finish_story(struct worker *w, struct story *s)
{
    for (Draftd__Worker__Report *r; (r = next(w));)
        take(s, r);
}

/* --- Tests -------------------------------------------------------------------------------------------------------- */

static void test_worker_process__explains_itself_when_started_by_hand(void **state)
{
    (void)state;
    struct worker w = start(false);
    char text[300] = "";
    ssize_t n = read(w.messages, text, sizeof text - 1);
    assert_true(n > 0);
    assert_non_null(strstr(text, "draftd"));
    assert_int_equal(end_of(&w), 2);
}

static void test_worker_process__trains_evaluates_and_saves_in_order(void **state)
{
    (void)state;
    const struct story *s = undisturbed();
    assert_int_equal(s->started_at, 0);
    assert_int_equal(s->saves, 2); /* steps 3 and 6 */
    assert_int_equal(s->saved_step, STEPS);
    assert_false(s->stopped);
    assert_true(s->progress > 0);
    for (int i = 1; i <= STEPS; i++)
        assert_true(s->reward[i] > 5 && s->kl[i] >= 0);
    for (int i = 0; i <= STEPS; i++)
        assert_int_equal(!isnan(s->evaluated[i]), i % 2 == 0);
}

static void test_worker_process__a_paused_job_goes_on_as_if_undisturbed(void **state)
{
    (void)state;
    const struct story *whole = undisturbed();
    struct job j;
    make_job(&j, "paused", "");
    struct worker w = start(true);
    struct story first = new_story();
    command(&w, &j.command);
    follow(&w, &first, 2);
    send_stop(&w, true);
    finish_story(&w, &first);
    assert_int_equal(end_of(&w), 0);
    assert_true(first.finished && first.stopped);
    assert_int_equal(first.code, 0);
    assert_true(first.saved_step >= 2 && first.saved_step < STEPS);

    make_job(&j, "paused", first.saved_path);
    w = start(true);
    command(&w, &j.command);
    struct story second = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    assert_int_equal(second.started_at, first.saved_step);
    assert_int_equal(second.saved_step, STEPS);
    assert_same_files(whole->saved_path, second.saved_path);
    for (int i = 1; i <= STEPS; i++)
        assert_true((i <= first.saved_step ? first : second).reward[i] == whole->reward[i]);
    for (int i = 0; i <= STEPS; i += 2)
        assert_true((i < first.saved_step ? first : second).evaluated[i] == whole->evaluated[i]);
}

static void test_worker_process__previews_and_saves_on_the_way_change_nothing(void **state)
{
    (void)state;
    const struct story *whole = undisturbed();
    struct job j;
    make_job(&j, "previewed", "");
    struct worker w = start(true);
    struct story s = new_story();
    command(&w, &j.command);
    follow(&w, &s, 1);
    char *prompts[] = {"a lion", "ein L\xc3\xb6we"};
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    spec.n_prompts = 2;
    spec.prompts = prompts;
    spec.count = 2;
    send_preview(&w, &spec, j.folder);
    Draftd__Worker__Save save = DRAFTD__WORKER__SAVE__INIT;
    Draftd__Worker__Command c = DRAFTD__WORKER__COMMAND__INIT;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_SAVE;
    c.save = &save;
    command(&w, &c);
    finish_story(&w, &s);
    assert_int_equal(end_of(&w), 0);
    assert_int_equal(s.pictures, 4);
    assert_int_equal(s.previews_done, 1);
    assert_int_equal(s.preview_code, 0);
    assert_int_equal(s.saves, 3);
    char path[256];
    snprintf(path, sizeof path, "%s/3.png", j.folder);
    assert_int_equal(access(path, R_OK), 0);
    assert_same_files(whole->saved_path, s.saved_path);
}

static void test_worker_process__a_preview_that_cannot_be_is_refused_and_training_goes_on(void **state)
{
    (void)state;
    struct job j;
    make_job(&j, "refused", "");
    struct worker w = start(true);
    struct story s = new_story();
    command(&w, &j.command);
    follow(&w, &s, 1);
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    spec.aig = "sideways";
    send_preview(&w, &spec, j.folder);
    finish_story(&w, &s);
    assert_int_equal(end_of(&w), 0);
    assert_int_equal(s.preview_code, 1); /* DRAFT_INVALID_ARGUMENT */
    assert_int_equal(s.code, 0);
    assert_int_equal(s.saved_step, STEPS);
}

static void test_worker_process__a_cancel_leaves_at_once_without_a_checkpoint(void **state)
{
    (void)state;
    struct job j;
    make_job(&j, "cancelled", "");
    j.length.steps = STEPS;
    j.sampling.steps = 200; /* a step of seconds */
    struct worker w = start(true);
    struct story s = new_story();
    command(&w, &j.command);
    while (s.started_at < 0) {
        Draftd__Worker__Report *r = next(&w);
        assert_non_null(r);
        take(&s, r);
    }
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    send_stop(&w, false);
    finish_story(&w, &s);
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_int_equal(end_of(&w), 0);
    assert_true(s.stopped && s.saves == 0);
    assert_int_equal(s.code, 0);
    assert_true(after.tv_sec - before.tv_sec < 5);
}

static void test_worker_process__ends_when_the_daemon_is_gone(void **state)
{
    (void)state;
    struct job j;
    make_job(&j, "orphan", "");
    struct worker w = start(true);
    struct story s = new_story();
    command(&w, &j.command);
    follow(&w, &s, 1);
    close(w.socket);
    w.socket = -1;
    assert_int_equal(end_of(&w), 3);
}

static void test_worker_process__ends_at_a_frame_that_is_no_command(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {{"\xff\xff\xff\x7f", 4}, {"\x03\x00\x00\x00\xff\xff\xff", 7}, {"\x00\x00\x00\x00", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct worker w = start(true);
        assert_int_equal(write(w.socket, cases[i].bytes, cases[i].size), (ssize_t)cases[i].size);
        assert_int_equal(end_of(&w), 4);
    }
}

static void test_worker_process__the_first_command_must_be_a_task(void **state)
{
    (void)state;
    struct worker w = start(true);
    Draftd__Worker__Save save = DRAFTD__WORKER__SAVE__INIT;
    Draftd__Worker__Command c = DRAFTD__WORKER__COMMAND__INIT;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_SAVE;
    c.save = &save;
    command(&w, &c);
    struct story s = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    assert_true(s.finished && s.code != 0);
}

static struct story inspect(struct job *j, bool files_only)
{
    char *prompts[] = {"a lion", "a cat"};
    Draftd__Worker__Inspect task = DRAFTD__WORKER__INSPECT__INIT;
    Draftd__Worker__Command c = DRAFTD__WORKER__COMMAND__INIT;
    task.spec = &j->spec;
    task.files_only = files_only;
    task.n_prompts = 2;
    task.prompts = prompts;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_INSPECT;
    c.inspect = &task;
    struct worker w = start(true);
    command(&w, &c);
    struct story s = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    return s;
}

static void test_worker_process__inspects_and_refuses_changed_weights(void **state)
{
    (void)state;
    struct job j;
    make_job(&j, "inspected", "");
    struct story s = inspect(&j, false), files = inspect(&j, true);
    assert_int_equal(s.code, 0);
    assert_non_null(s.inspected);
    assert_int_equal(files.code, 0);
    assert_string_equal(files.inspected->fingerprint, s.inspected->fingerprint);
    assert_int_equal(files.inspected->memory_bytes, 0); /* no model was opened */
    draftd__worker__inspected__free_unpacked(files.inspected, NULL);
    assert_int_equal(s.inspected->total_steps, STEPS);
    assert_int_equal(s.inspected->height, 64);
    assert_int_equal(strlen(s.inspected->fingerprint), 32);

    j.train.fingerprint = "00000000000000000000000000000000";
    struct worker w = start(true);
    command(&w, &j.command);
    struct story changed = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    assert_string_equal(changed.field, "fingerprint");
    assert_int_equal(changed.started_at, -1);
    draftd__worker__inspected__free_unpacked(s.inspected, NULL);
}

static void test_worker_process__names_the_field_at_fault(void **state)
{
    (void)state;
    struct job j;
    make_job(&j, "faulty", "");
    j.sampling.truncation_steps = 9;
    struct story s = inspect(&j, false);
    assert_int_equal(s.code, 1);
    assert_string_equal(s.field, "spec.sampling.truncation_steps");
    assert_null(s.inspected);
    make_job(&j, "faulty", "");
    j.spec.model = "/no/such/model";
    s = inspect(&j, false);
    assert_string_equal(s.field, "spec.model");
}

static void test_worker_process__samples_and_exports_a_checkpoint(void **state)
{
    (void)state;
    const struct story *whole = undisturbed();
    struct job j;
    make_job(&j, "sampled", whole->saved_path);
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT; /* the job's evaluation prompts: 3 */
    Draftd__Worker__Preview preview = DRAFTD__WORKER__PREVIEW__INIT;
    preview.preview_id = "preview-2";
    preview.spec = &spec;
    preview.folder = j.folder;
    Draftd__Worker__Sample sample = DRAFTD__WORKER__SAMPLE__INIT;
    sample.job = &j.train;
    sample.preview = &preview;
    Draftd__Worker__Command c = DRAFTD__WORKER__COMMAND__INIT;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_SAMPLE;
    c.sample = &sample;
    struct worker w = start(true);
    command(&w, &c);
    struct story s = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    assert_int_equal(s.code, 0);
    assert_int_equal(s.pictures, 3);

    char path[160];
    snprintf(path, sizeof path, "%s/lora.safetensors", folder);
    Draftd__Worker__Export export = DRAFTD__WORKER__EXPORT__INIT;
    export.checkpoint = (char *)(uintptr_t)whole->saved_path;
    export.path = path;
    export.job_id = "job-1";
    c = (Draftd__Worker__Command)DRAFTD__WORKER__COMMAND__INIT;
    c.kind_case = DRAFTD__WORKER__COMMAND__KIND_EXPORT;
    c.export = &export;
    w = start(true);
    command(&w, &c);
    s = listen_to_the_end(&w);
    assert_int_equal(end_of(&w), 0);
    assert_int_equal(s.code, 0);
    assert_int_equal(access(path, R_OK), 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_process__explains_itself_when_started_by_hand),
        cmocka_unit_test(test_worker_process__trains_evaluates_and_saves_in_order),
        cmocka_unit_test(test_worker_process__a_paused_job_goes_on_as_if_undisturbed),
        cmocka_unit_test(test_worker_process__previews_and_saves_on_the_way_change_nothing),
        cmocka_unit_test(test_worker_process__a_preview_that_cannot_be_is_refused_and_training_goes_on),
        cmocka_unit_test(test_worker_process__a_cancel_leaves_at_once_without_a_checkpoint),
        cmocka_unit_test(test_worker_process__ends_when_the_daemon_is_gone),
        cmocka_unit_test(test_worker_process__ends_at_a_frame_that_is_no_command),
        cmocka_unit_test(test_worker_process__the_first_command_must_be_a_task),
        cmocka_unit_test(test_worker_process__inspects_and_refuses_changed_weights),
        cmocka_unit_test(test_worker_process__names_the_field_at_fault),
        cmocka_unit_test(test_worker_process__samples_and_exports_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
