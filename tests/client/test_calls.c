/* One call and its answer: errors taken apart, what is tried again, no daemon, Ctrl-C. */
#include "fake_calls.h"

#include <signal.h>

#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "interrupt.h"
#include "rpc/details.h"

static void test_calls__a_reply_arrives_as_it_was_sent(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, answer_job);
    draft_job *job = draft_get_job(rpc, "job-12", &st);
    assert_non_null(job);
    assert_string_equal(job->id, "job-12");
    assert_int_equal(job->state, DRAFTD__V1__JOB__STATE__STATE_PAUSED);
    draft_free_message(job);
    close_both(rpc, &fake);
}

static void refuse(void *context, struct fake_call *call)
{
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
    Google__Rpc__BadRequest__FieldViolation violation = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT,
                                            *list[] = {&violation};
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    Google__Protobuf__Any any[2] = {GOOGLE__PROTOBUF__ANY__INIT, GOOGLE__PROTOBUF__ANY__INIT},
                          *details[] = {&any[0], &any[1]};
    uint8_t packed[2][256];
    (void)context;
    violation.field = "spec.length.steps";
    bad.field_violations = list;
    bad.n_field_violations = 1;
    info.reason = "INVALID_FIELD";
    any[0].type_url = "type.googleapis.com/google.rpc.ErrorInfo";
    any[0].value = (ProtobufCBinaryData){google__rpc__error_info__pack(&info, packed[0]), packed[0]};
    any[1].type_url = "type.googleapis.com/google.rpc.BadRequest";
    any[1].value = (ProtobufCBinaryData){google__rpc__bad_request__pack(&bad, packed[1]), packed[1]};
    status.code = 3;
    status.details = details;
    status.n_details = 2;
    fake_finish(call, 3, "steps must be positive", &status.base);
}

static void test_calls__a_refusal_carries_field_and_reason(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, refuse);
    assert_null(draft_rpc_create_job(rpc, &request, &st));
    assert_int_equal(st.code, DRAFT_STATUS_INVALID_ARGUMENT);
    assert_string_equal(st.message, "steps must be positive");
    assert_string_equal(st.field, "spec.length.steps");
    assert_string_equal(st.reason, "INVALID_FIELD");
    assert_int_equal(draft_status_exit(&st), DRAFT_EXIT_USAGE);
    close_both(rpc, &fake);
}

static void test_calls__malformed_details_are_passed_over(void **state)
{
    uint8_t noise[64];
    (void)state;
    for (unsigned seed = 0; seed < 500; seed++) {
        struct draft_status st = {0};
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)(rand_r(&seed) >> 7);
        draft_details_parse(noise, sizeof noise, &st);
        assert_int_equal(st.code, DRAFT_STATUS_OK);
    }
}

static void busy_twice(void *context, struct fake_call *call)
{
    Draftd__V1__CreateJobResponse reply = DRAFTD__V1__CREATE_JOB_RESPONSE__INIT;
    (void)context;
    if (!strcmp(call->method, "JobService/CreateJob")) {
        Draftd__V1__CreateJobRequest *r =
            draftd__v1__create_job_request__unpack(NULL, call->request_bytes, call->request);
        snprintf(seen.request_id[seen.calls % 4], sizeof seen.request_id[0], "%s", r->request_id);
        draftd__v1__create_job_request__free_unpacked(r, NULL);
    }
    if (++seen.calls <= 2) {
        fake_finish(call, 14, "starting", NULL);
        return;
    }
    reply.job = job_of("job-1", DRAFTD__V1__JOB__STATE__STATE_QUEUED);
    fake_send(call, &reply.base);
    fake_finish(call, 0, "", NULL);
}

static void test_calls__unavailable_is_tried_again_with_the_same_request_id(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    (void)state;
    request.request_id = "5e2b";
    struct draft_rpc *rpc = connect_to(&fake, busy_twice);
    Draftd__V1__CreateJobResponse *reply = draft_rpc_create_job(rpc, &request, &st);
    assert_non_null(reply);
    assert_int_equal(seen.calls, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(seen.request_id[i], "5e2b");
    draft_free_message(reply);
    close_both(rpc, &fake);
}

static void test_calls__a_change_is_not_repeated(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__CancelJobRequest request = DRAFTD__V1__CANCEL_JOB_REQUEST__INIT;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, busy_twice);
    assert_null(draft_rpc_cancel_job(rpc, &request, &st));
    assert_int_equal(seen.calls, 1);
    assert_int_equal(draft_status_exit(&st), DRAFT_EXIT_UNREACHABLE);
    close_both(rpc, &fake);
}

static void test_calls__no_daemon_says_how_to_start_one(void **state)
{
    struct draft_status st = {0};
    (void)state;
    struct draft_rpc *rpc = draft_rpc_open("/tmp/no/such/socket");
    assert_null(draft_get_job(rpc, "job-1", &st));
    assert_int_equal(st.code, DRAFT_STATUS_UNAVAILABLE);
    assert_non_null(strstr(st.message, "`draftd &`"));
    assert_non_null(strstr(st.message, "/tmp/no/such/socket"));
    draft_rpc_close(rpc);
}

static void answer_garbage(void *context, struct fake_call *call)
{
    (void)context;
    fake_send_bytes(call, "\xff\xff\xff\xff", 4);
    fake_finish(call, 0, "", NULL);
}

static void test_calls__an_answer_that_is_no_message_is_an_error(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, answer_garbage);
    assert_null(draft_get_job(rpc, "job-1", &st));
    assert_int_equal(st.code, DRAFT_STATUS_INTERNAL);
    assert_non_null(strstr(st.message, "draft version"));
    close_both(rpc, &fake);
}

static void hang(void *context, struct fake_call *call)
{
    (void)context;
    while (!call->daemon->stop)
        usleep(5000);
}

static void *interrupt_soon(void *main_thread)
{
    usleep(200000);
    pthread_kill(*(pthread_t *)main_thread, SIGINT);
    return NULL;
}

static void test_calls__ctrl_c_ends_a_waiting_call(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    pthread_t self = pthread_self(), other;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, hang);
    draft_interrupt_install();
    pthread_create(&other, NULL, interrupt_soon, &self);
    assert_null(draft_get_job(rpc, "job-1", &st));
    pthread_join(other, NULL);
    assert_int_equal(draft_status_exit(&st), DRAFT_EXIT_INTERRUPTED);
    assert_true(draft_interrupted());
    draft_interrupt_clear();
    close_both(rpc, &fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls__a_reply_arrives_as_it_was_sent),
        cmocka_unit_test(test_calls__a_refusal_carries_field_and_reason),
        cmocka_unit_test(test_calls__malformed_details_are_passed_over),
        cmocka_unit_test(test_calls__unavailable_is_tried_again_with_the_same_request_id),
        cmocka_unit_test(test_calls__a_change_is_not_repeated),
        cmocka_unit_test(test_calls__no_daemon_says_how_to_start_one),
        cmocka_unit_test(test_calls__an_answer_that_is_no_message_is_an_error),
        cmocka_unit_test(test_calls__ctrl_c_ends_a_waiting_call), /* last: a second signal would end the program */
    };
    return cmocka_run_group_tests(tests, begin, end);
}
