#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "live.h"
#include "text.h"

/* A terminal that is a string. */
static struct draft_terminal open_text(char **text, size_t *size, bool tty)
{
    return (struct draft_terminal){.out = open_memstream(text, size), .tty = tty, .utf8 = true};
}

static Draftd__V1__Progress progress;
static Draftd__V1__JobSpec spec;
static draft_job job;

static const draft_job *job_at(draft_job_state state, int64_t step, const char *phase)
{
    draftd__v1__job__init(&job);
    draftd__v1__job_spec__init(&spec);
    draftd__v1__progress__init(&progress);
    job.id = "job-3";
    job.state = state;
    job.spec = &spec;
    job.progress = &progress;
    spec.display_name = "owls";
    progress.step = step;
    progress.total_steps = 10;
    progress.phase = (char *)(uintptr_t)phase;
    progress.phase_done = 3;
    progress.phase_total = 5;
    progress.seconds_per_step = 2;
    progress.eta_seconds = 100;
    progress.reward = 12.5;
    progress.kl = NAN;
    progress.lpips = 0.5;
    return &job;
}

static int count(const char *text, const char *piece)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, piece)); at += strlen(piece))
        n++;
    return n;
}

static void test_live__plain_lines_tell_each_state_and_step_once(void **state)
{
    char *text;
    size_t size;
    struct draft_terminal terminal = open_text(&text, &size, false);
    Draftd__V1__JobEvent event = DRAFTD__V1__JOB_EVENT__INIT;
    (void)state;
    event.kind = DRAFTD__V1__JOB_EVENT__KIND__KIND_PROGRESS;
    struct draft_live *live = draft_live_create(&terminal, NULL, "job-3");
    draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_QUEUED, 0, ""), NULL);
    draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_RUNNING, 0, "sampling"), &event);
    for (int i = 0; i < 3; i++) /* several reports within a step */
        draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_RUNNING, 1, "sampling"), &event);
    draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_RUNNING, 2, "backward"), &event);
    draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED, 10, ""), &event);
    draft_live_close(live, true);
    fclose(terminal.out);
    assert_int_equal(count(text, "job-3 queued"), 1);
    assert_int_equal(count(text, "job-3 running"), 1);
    assert_int_equal(count(text, "step 1/10"), 1);
    assert_int_equal(count(text, "step 2/10"), 1);
    assert_int_equal(count(text, "reward 12.5"), 3);
    assert_int_equal(count(text, "kl"), 0); /* NaN: there is none */
    assert_true(strstr(text, "step 10/10") < strstr(text, "succeeded"));
    assert_null(strchr(text, '\033'));
    free(text);
}

static void test_live__a_terminal_shows_bar_rate_phase_and_time_left(void **state)
{
    char *text;
    size_t size;
    struct draft_terminal terminal = open_text(&text, &size, true);
    (void)state;
    struct draft_rpc *nobody = draft_rpc_open("/tmp/no/such/socket"); /* numbers that cannot be fetched stay away */
    struct draft_live *live = draft_live_create(&terminal, nobody, "job-3");
    draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_RUNNING, 4, "sampling"), NULL);
    draft_live_tick(live);
    fflush(terminal.out);
    assert_non_null(strstr(text, "job-3  owls  running"));
    assert_non_null(strstr(text, "4/10"));
    assert_non_null(strstr(text, "45%")); /* 4 steps and 3/5 of a sampling phase, which is 90 % of a step */
    assert_non_null(strstr(text, "2.0 s/step"));
    assert_non_null(strstr(text, "sampling 3/5"));
    assert_non_null(strstr(text, "left"));
    assert_non_null(strstr(text, "reward 12.5"));
    draft_live_connection(live, true);
    draft_live_tick(live);
    fflush(terminal.out);
    assert_non_null(strstr(text, "the daemon is away"));
    draft_live_close(live, false);
    fclose(terminal.out);
    draft_rpc_close(nobody);
    free(text);
}

static void test_live__the_time_left_counts_down_between_reports(void **state)
{
    char *text;
    size_t size;
    struct draft_terminal terminal = open_text(&text, &size, false);
    (void)state;
    struct draft_live *live = draft_live_create(&terminal, NULL, "job-3");
    draft_live_update(live, job_at(DRAFTD__V1__JOB__STATE__STATE_RUNNING, 1, ""), NULL);
    progress.eta_seconds = -1; /* unknown: not shown */
    progress.step = 2;
    draft_live_update(live, &job, NULL);
    draft_live_close(live, false);
    fclose(terminal.out);
    assert_int_equal(count(text, "1m40s left"), 1);
    assert_int_equal(count(text, "left"), 1);
    free(text);
}

static void test_live__a_block_is_redrawn_in_its_own_place(void **state)
{
    char *text, lines[3][DRAFT_BLOCK_BYTES] = {"one", "two", "three"};
    size_t size;
    struct draft_terminal terminal = open_text(&text, &size, true);
    struct draft_block block = {.terminal = &terminal};
    (void)state;
    draft_block_draw(&block, lines, 3);
    draft_block_draw(&block, lines, 2);
    draft_block_clear(&block);
    draft_block_clear(&block); /* nothing there: nothing written */
    fclose(terminal.out);
    assert_string_equal(text, "one\ntwo\nthree\n\033[3A\r\033[Jone\ntwo\n\033[2A\r\033[J");
    free(text);
}

static void test_live__long_lines_are_cut_at_the_terminal_s_width(void **state)
{
    static char lines[1][DRAFT_BLOCK_BYTES];
    char *text;
    size_t size;
    struct draft_terminal terminal = open_text(&text, &size, true);
    struct draft_block block = {.terminal = &terminal};
    (void)state;
    for (int i = 0; i < 300; i++)
        strcat(lines[0], "ä");
    draft_block_draw(&block, lines, 1);
    fclose(terminal.out);
    text[strcspn(text, "\n")] = 0;
    assert_int_equal(draft_text_width(text), 80); /* a string has no size: 80 columns */
    assert_int_equal(block.widths[0], 80);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_live__plain_lines_tell_each_state_and_step_once),
        cmocka_unit_test(test_live__a_terminal_shows_bar_rate_phase_and_time_left),
        cmocka_unit_test(test_live__the_time_left_counts_down_between_reports),
        cmocka_unit_test(test_live__a_block_is_redrawn_in_its_own_place),
        cmocka_unit_test(test_live__long_lines_are_cut_at_the_terminal_s_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
