/* Following a job through broken connections and restarts of the daemon. */
#include "fake_calls.h"

static void send_event(struct fake_call *call, int64_t revision, Draftd__V1__Job__State state)
{
    Draftd__V1__WatchJobsResponse message = DRAFTD__V1__WATCH_JOBS_RESPONSE__INIT;
    Draftd__V1__JobEvent event = DRAFTD__V1__JOB_EVENT__INIT;
    event.kind = DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE;
    event.job_id = "job-5";
    event.step = revision;
    event.job = job_of("job-5", state);
    message.revision = revision;
    message.event = &event;
    fake_send(call, &message.base);
}

static void send_snapshot(struct fake_call *call, int64_t revision)
{
    Draftd__V1__WatchJobsResponse message = DRAFTD__V1__WATCH_JOBS_RESPONSE__INIT;
    Draftd__V1__Job *jobs[] = {job_of("job-5", DRAFTD__V1__JOB__STATE__STATE_QUEUED)};
    message.revision = revision;
    message.is_snapshot = true;
    message.snapshot = jobs;
    message.n_snapshot = 1;
    fake_send(call, &message.base);
}

static void note_watch(struct fake_call *call)
{
    Draftd__V1__WatchJobsRequest *r = draftd__v1__watch_jobs_request__unpack(NULL, call->request_bytes, call->request);
    seen.start_revision[seen.calls++ % 8] = r->start_revision;
    draftd__v1__watch_jobs_request__free_unpacked(r, NULL);
}

/* Breaks after every second event, and once says that a revision is forgotten. */
static void break_often(void *context, struct fake_call *call)
{
    (void)context;
    note_watch(call);
    int64_t from = seen.start_revision[seen.calls - 1];
    if (from == 0) {
        send_snapshot(call, seen.calls == 1 ? 10 : 13);
        from = seen.calls == 1 ? 11 : 14;
    } else if (from == 13) {
        fake_finish(call, 11, "revision 13 is forgotten", NULL);
        return;
    }
    if (from >= 16) {
        send_event(call, from, DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED);
        fake_finish(call, 0, "", NULL);
        return;
    }
    send_event(call, from, DRAFTD__V1__JOB__STATE__STATE_RUNNING);
    send_event(call, from + 1, DRAFTD__V1__JOB__STATE__STATE_RUNNING);
    fake_finish(call, 14, "Socket closed", NULL);
}

struct told {
    int64_t revisions[16];
    int count, snapshots, lost, back;
};

static bool note_update(void *context, const draft_job *job, const Draftd__V1__JobEvent *event)
{
    struct told *told = context;
    assert_string_equal(job->id, "job-5");
    if (event)
        told->revisions[told->count++ % 16] = event->step;
    else
        told->snapshots++;
    return true;
}

static void note_connection(void *context, bool lost)
{
    struct told *told = context;
    told->lost += lost;
    told->back += !lost;
}

static void test_following__goes_on_at_the_next_revision_and_sees_every_event_once(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    struct told told = {.count = 0};
    struct draft_follow follow = {.context = &told, .update = note_update, .connection = note_connection};
    static const int64_t expected[] = {0, 13, 0, 16};
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, break_often);
    draft_job *job = draft_follow_job(rpc, "job-5", &follow, &st);
    assert_non_null(job);
    assert_int_equal(job->state, DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED);
    assert_int_equal(seen.calls, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(seen.start_revision[i], expected[i]);
    assert_int_equal(told.count, 5);
    static const int64_t events[] = {11, 12, 14, 15, 16};
    for (int i = 0; i < 5; i++)
        assert_int_equal(told.revisions[i], events[i]);
    assert_int_equal(told.snapshots, 2);
    assert_int_equal(told.lost, 2);
    assert_int_equal(told.back, 2);
    draft_free_message(job);
    close_both(rpc, &fake);
}

static void send_two_and_hold(void *context, struct fake_call *call)
{
    (void)context;
    note_watch(call);
    if (seen.start_revision[seen.calls - 1] == 0) {
        send_snapshot(call, 1);
        send_event(call, 2, DRAFTD__V1__JOB__STATE__STATE_RUNNING);
        while (!call->daemon->stop)
            usleep(5000);
        return;
    }
    send_event(call, 3, DRAFTD__V1__JOB__STATE__STATE_CANCELLED);
    fake_finish(call, 0, "", NULL);
}

static bool restart_the_daemon(void *context, const draft_job *job, const Draftd__V1__JobEvent *event)
{
    note_update(context, job, event);
    if (event && event->step == 2) {
        fake_stop(seen.daemon);
        fake_start(seen.daemon, socket_path, send_two_and_hold, NULL);
    }
    return true;
}

static void test_following__survives_a_restart_of_the_daemon(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    struct told told = {.count = 0};
    struct draft_follow follow = {.context = &told, .update = restart_the_daemon, .connection = note_connection};
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, send_two_and_hold);
    draft_job *job = draft_follow_job(rpc, "job-5", &follow, &st);
    assert_non_null(job);
    assert_int_equal(draft_state_exit(job->state), DRAFT_EXIT_JOB_CANCELLED);
    assert_int_equal(told.count, 2);
    assert_int_equal(told.lost, 1);
    assert_int_equal(told.back, 1);
    draft_free_message(job);
    close_both(rpc, &fake);
}

static void say_not_found(void *context, struct fake_call *call)
{
    (void)context;
    seen.calls++;
    fake_finish(call, 5, "there is no job-5", NULL);
}

static void test_following__a_job_that_is_not_there_fails_at_once(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    struct draft_follow follow = {.context = NULL};
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, say_not_found);
    assert_null(draft_follow_job(rpc, "job-5", &follow, &st));
    assert_int_equal(draft_status_exit(&st), DRAFT_EXIT_NOT_FOUND);
    assert_int_equal(seen.calls, 1);
    close_both(rpc, &fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_following__goes_on_at_the_next_revision_and_sees_every_event_once),
        cmocka_unit_test(test_following__survives_a_restart_of_the_daemon),
        cmocka_unit_test(test_following__a_job_that_is_not_there_fails_at_once),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
