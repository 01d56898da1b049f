/* The client against a daemon that misbehaves on purpose. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "command.h"
#include "export.h"
#include "fake_daemon.h"
#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "interrupt.h"
#include "jobs.h"
#include "previews.h"
#include "rpc/details.h"
#include "rpc/rpc.h"

static char folder[] = "/tmp/test_calls_XXXXXX", socket_path[64];

static struct {
    int calls;
    int64_t start_revision[8];
    char request_id[4][40];
    int previews;
    char aig[8][24], sampler[8][24];
    struct fake_daemon *daemon;
} seen;

static struct draft_rpc *connect_to(struct fake_daemon *fake, fake_handler handler)
{
    memset(&seen, 0, sizeof seen);
    seen.daemon = fake;
    fake_start(fake, socket_path, handler, NULL);
    return draft_rpc_open(socket_path);
}

static void close_both(struct draft_rpc *rpc, struct fake_daemon *fake)
{
    draft_rpc_close(rpc);
    fake_stop(fake);
}

static Draftd__V1__Job *job_of(const char *id, Draftd__V1__Job__State state)
{
    static Draftd__V1__Job job;
    draftd__v1__job__init(&job);
    job.id = (char *)(uintptr_t)id;
    job.state = state;
    return &job;
}

/* --- Unary ---------------------------------------------------------------------------------------------------------
 */

static void answer_job(void *context, struct fake_call *call)
{
    Draftd__V1__GetJobResponse reply = DRAFTD__V1__GET_JOB_RESPONSE__INIT;
    (void)context;
    Draftd__V1__GetJobRequest *request = draftd__v1__get_job_request__unpack(NULL, call->request_bytes, call->request);
    assert_string_equal(call->method, "JobService/GetJob");
    reply.job = job_of(request->job_id, DRAFTD__V1__JOB__STATE__STATE_PAUSED);
    fake_send(call, &reply.base);
    fake_finish(call, 0, "", NULL);
    draftd__v1__get_job_request__free_unpacked(request, NULL);
}

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

/* --- Following -----------------------------------------------------------------------------------------------------
 */

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

static void test_calls__following_goes_on_at_the_next_revision_and_sees_every_event_once(void **state)
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

static void test_calls__following_survives_a_restart_of_the_daemon(void **state)
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

static void test_calls__following_a_job_that_is_not_there_fails_at_once(void **state)
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

/* --- Files ---------------------------------------------------------------------------------------------------------
 */

enum { EXPORT_BYTES = 150000, EXPORT_PIECE = 65536 };

static void send_export(struct fake_call *call, const char *name, size_t upto)
{
    static uint8_t data[EXPORT_BYTES];
    for (size_t i = 0; i < EXPORT_BYTES; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    for (size_t at = 0; at < upto; at += EXPORT_PIECE) {
        Draftd__V1__ExportLoraResponse piece = DRAFTD__V1__EXPORT_LORA_RESPONSE__INIT;
        piece.data = (ProtobufCBinaryData){upto - at < EXPORT_PIECE ? upto - at : EXPORT_PIECE, data + at};
        piece.total_bytes = EXPORT_BYTES;
        if (at == 0)
            piece.file_name = (char *)(uintptr_t)name;
        fake_send(call, &piece.base);
    }
    fake_finish(call, 0, "", NULL);
}

static void export_whole(void *context, struct fake_call *call)
{
    (void)context;
    send_export(call, "../../etc/job-5.safetensors", EXPORT_BYTES);
}

static void export_half(void *context, struct fake_call *call)
{
    (void)context;
    send_export(call, "job-5.safetensors", EXPORT_BYTES / 2);
}

static void test_calls__an_export_is_saved_whole_and_where_it_belongs(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__ExportLoraRequest request = DRAFTD__V1__EXPORT_LORA_REQUEST__INIT;
    char saved[4096], expected[128];
    uint64_t bytes;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, export_whole);
    assert_true(draft_export_file(rpc, &request, folder, saved, sizeof saved, &bytes, &st));
    snprintf(expected, sizeof expected, "%s/job-5.safetensors", folder); /* never outside the folder */
    assert_string_equal(saved, expected);
    assert_int_equal(bytes, EXPORT_BYTES);
    FILE *file = fopen(saved, "rb");
    assert_non_null(file);
    for (size_t i = 0; i < EXPORT_BYTES; i++)
        assert_int_equal(fgetc(file), (uint8_t)(i * 31 >> 3));
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
    unlink(saved);
    close_both(rpc, &fake);
}

static void test_calls__half_an_export_leaves_no_file(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__ExportLoraRequest request = DRAFTD__V1__EXPORT_LORA_REQUEST__INIT;
    char saved[4096];
    uint64_t bytes;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, export_half);
    assert_false(draft_export_file(rpc, &request, folder, saved, sizeof saved, &bytes, &st));
    assert_int_equal(st.code, DRAFT_STATUS_DATA_LOSS);
    assert_int_not_equal(access(saved, F_OK), 0);
    close_both(rpc, &fake);
}

static uint8_t checkpoint_data[EXPORT_BYTES];

/* Two pieces, and which checksum they are to have; NULL: without the message that says so. */
static void send_checkpoint(struct fake_call *call, const char *checksum)
{
    Draftd__V1__Checkpoint checkpoint = DRAFTD__V1__CHECKPOINT__INIT;
    checkpoint.step = 40;
    checkpoint.checksum = (char *)(uintptr_t)checksum;
    for (size_t i = 0; i < EXPORT_BYTES; i++)
        checkpoint_data[i] = (uint8_t)(i * 57 >> 4);
    for (size_t at = 0; at < EXPORT_BYTES; at += EXPORT_BYTES / 2) {
        Draftd__V1__ReadCheckpointResponse piece = DRAFTD__V1__READ_CHECKPOINT_RESPONSE__INIT;
        piece.data = (ProtobufCBinaryData){EXPORT_BYTES / 2, checkpoint_data + at};
        piece.total_bytes = EXPORT_BYTES;
        piece.checkpoint = at == 0 && checksum ? &checkpoint : NULL;
        fake_send(call, &piece.base);
    }
    fake_finish(call, 0, "", NULL);
}

static void checkpoint_sound(void *context, struct fake_call *call)
{
    (void)context;
    /* xxh128sum of the bytes above */
    send_checkpoint(call, "483faa05dcc0bc4248fbc21ab6c5d80a");
}

static void checkpoint_damaged(void *context, struct fake_call *call)
{
    (void)context;
    send_checkpoint(call, "00000000000000000000000000000000");
}

static void checkpoint_unnamed(void *context, struct fake_call *call)
{
    (void)context;
    send_checkpoint(call, NULL);
}

static void test_calls__a_checkpoint_is_saved_under_its_job_and_step(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__ReadCheckpointRequest request = DRAFTD__V1__READ_CHECKPOINT_REQUEST__INIT;
    char job[] = "job-5", saved[4096], expected[128];
    uint8_t back[EXPORT_BYTES + 1];
    uint64_t bytes;
    (void)state;
    request.job_id = job;
    struct draft_rpc *rpc = connect_to(&fake, checkpoint_sound);
    assert_true(draft_checkpoint_file(rpc, &request, folder, saved, sizeof saved, &bytes, &st));
    snprintf(expected, sizeof expected, "%s/job-5-step-40.safetensors", folder);
    assert_string_equal(saved, expected);
    assert_int_equal(bytes, EXPORT_BYTES);
    FILE *file = fopen(saved, "rb");
    assert_non_null(file);
    assert_int_equal(fread(back, 1, sizeof back, file), EXPORT_BYTES);
    assert_memory_equal(back, checkpoint_data, EXPORT_BYTES);
    fclose(file);
    unlink(saved);
    close_both(rpc, &fake);
}

static void test_calls__a_checkpoint_that_misses_its_checksum_leaves_no_file(void **state)
{
    static const fake_handler handlers[] = {checkpoint_damaged, checkpoint_unnamed};
    (void)state;
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
        struct fake_daemon fake;
        struct draft_status st = {0};
        Draftd__V1__ReadCheckpointRequest request = DRAFTD__V1__READ_CHECKPOINT_REQUEST__INIT;
        char job[] = "job-5", saved[4096];
        uint64_t bytes;
        request.job_id = job;
        struct draft_rpc *rpc = connect_to(&fake, handlers[i]);
        assert_false(draft_checkpoint_file(rpc, &request, folder, saved, sizeof saved, &bytes, &st));
        assert_int_equal(st.code, DRAFT_STATUS_DATA_LOSS);
        assert_non_null(strstr(st.message, "checksum"));
        assert_int_not_equal(access(saved, F_OK), 0);
        close_both(rpc, &fake);
    }
}

/* A preview of two pictures; the first watch breaks, as when the daemon restarts. */
static void draw(void *context, struct fake_call *call)
{
    Draftd__V1__Preview preview = DRAFTD__V1__PREVIEW__INIT;
    Draftd__V1__Picture pictures[2] = {DRAFTD__V1__PICTURE__INIT, DRAFTD__V1__PICTURE__INIT},
                        *list[] = {&pictures[0], &pictures[1]};
    (void)context;
    preview.id = "preview-1";
    preview.state = DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED;
    preview.pictures = list;
    preview.n_pictures = 2;
    for (int i = 0; i < 2; i++) {
        pictures[i].index = i;
        pictures[i].prompt = "an owl";
        pictures[i].seed = 40 + (uint64_t)i;
    }
    if (!strcmp(call->method, "PreviewService/CreatePreview")) {
        Draftd__V1__CreatePreviewResponse reply = DRAFTD__V1__CREATE_PREVIEW_RESPONSE__INIT;
        reply.preview = &preview;
        fake_send(call, &reply.base);
    } else if (!strcmp(call->method, "PreviewService/WatchPreview") && seen.calls++ == 0) {
        fake_finish(call, 14, "Socket closed", NULL);
        return;
    } else if (!strcmp(call->method, "PreviewService/WatchPreview")) {
        Draftd__V1__WatchPreviewResponse news = DRAFTD__V1__WATCH_PREVIEW_RESPONSE__INIT;
        news.preview = &preview;
        fake_send(call, &news.base);
    } else if (!strcmp(call->method, "PreviewService/GetPreview")) {
        Draftd__V1__GetPreviewResponse reply = DRAFTD__V1__GET_PREVIEW_RESPONSE__INIT;
        reply.preview = &preview;
        fake_send(call, &reply.base);
    } else {
        Draftd__V1__ReadPictureRequest *r =
            draftd__v1__read_picture_request__unpack(NULL, call->request_bytes, call->request);
        for (int half = 0; half < 2; half++) {
            Draftd__V1__ReadPictureResponse piece = DRAFTD__V1__READ_PICTURE_RESPONSE__INIT;
            uint8_t byte = (uint8_t)(10 * r->index + half);
            piece.data = (ProtobufCBinaryData){1, &byte};
            piece.total_bytes = 2;
            fake_send(call, &piece.base);
        }
        draftd__v1__read_picture_request__free_unpacked(r, NULL);
    }
    fake_finish(call, 0, "", NULL);
}

static void test_calls__a_preview_is_fetched_byte_for_byte_through_a_broken_connection(void **state)
{
    struct fake_daemon fake;
    struct draft_status st = {0};
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    struct draft_pictures pictures;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, draw);
    assert_true(draft_preview_run(rpc, "job-5", &spec, NULL, NULL, &pictures, &st));
    assert_int_equal(seen.calls, 2);
    assert_int_equal(pictures.count, 2);
    assert_int_equal(pictures.items[1].seed, 41);
    assert_int_equal(pictures.items[1].bytes, 2);
    assert_memory_equal(pictures.items[1].png, "\x0a\x0b", 2);
    draft_pictures_clear(&pictures);
    close_both(rpc, &fake);
}

/* The job, and what is asked for its pictures. */
static void draw_for_grid(void *context, struct fake_call *call)
{
    if (!strcmp(call->method, "JobService/GetJob")) {
        answer_job(context, call);
        return;
    }
    if (!strcmp(call->method, "PreviewService/CreatePreview") && seen.previews < 8) {
        Draftd__V1__CreatePreviewRequest *r =
            draftd__v1__create_preview_request__unpack(NULL, call->request_bytes, call->request);
        snprintf(seen.aig[seen.previews], sizeof seen.aig[0], "%s", r->spec->aig);
        snprintf(seen.sampler[seen.previews++], sizeof seen.sampler[0], "%s", r->spec->sampler);
        draftd__v1__create_preview_request__free_unpacked(r, NULL);
    }
    seen.calls = 1; /* no broken watch here */
    draw(context, call);
}

static void test_calls__a_grid_of_annealings_asks_for_each_of_them_in_turn(void **state)
{
    static const char *const kinds[] = {"base", "draft", "linear", "power_2", "step_0.6"};
    struct fake_daemon fake;
    (void)state;
    struct draft_rpc *rpc = connect_to(&fake, draw_for_grid);
    char *words[] = {"draft",     "grid",    "job-5",    "--aig",     "-p", "an owl",    "-n", "2",
                     "--sampler", "euler_a", "--socket", socket_path, "-o", "/dev/null", NULL};
    draft_main((int)(sizeof words / sizeof *words) - 1, words); /* two bytes are no picture: no grid is drawn */
    assert_int_equal(seen.previews, 5);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(seen.aig[i], kinds[i]);
        assert_string_equal(seen.sampler[i], "euler_a");
    }
    close_both(rpc, &fake);

    char *two[] = {"draft", "grid", "job-5", "job-6", "--aig", "--socket", socket_path, NULL};
    assert_int_equal(draft_main(7, two), DRAFT_EXIT_USAGE);
}

static int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(socket_path, sizeof socket_path, "%s/d.sock", folder);
    grpc_init(); /* held through the whole program: starting gRPC anew for every test is slow */
    return 0;
}

static int end(void **state)
{
    (void)state;
    grpc_shutdown_blocking();
    unlink(socket_path);
    return rmdir(folder);
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
        cmocka_unit_test(test_calls__following_goes_on_at_the_next_revision_and_sees_every_event_once),
        cmocka_unit_test(test_calls__following_survives_a_restart_of_the_daemon),
        cmocka_unit_test(test_calls__following_a_job_that_is_not_there_fails_at_once),
        cmocka_unit_test(test_calls__an_export_is_saved_whole_and_where_it_belongs),
        cmocka_unit_test(test_calls__half_an_export_leaves_no_file),
        cmocka_unit_test(test_calls__a_checkpoint_is_saved_under_its_job_and_step),
        cmocka_unit_test(test_calls__a_checkpoint_that_misses_its_checksum_leaves_no_file),
        cmocka_unit_test(test_calls__a_preview_is_fetched_byte_for_byte_through_a_broken_connection),
        cmocka_unit_test(test_calls__a_grid_of_annealings_asks_for_each_of_them_in_turn),
        cmocka_unit_test(test_calls__ctrl_c_ends_a_waiting_call), /* last: a second signal would end the program */
    };
    return cmocka_run_group_tests(tests, begin, end);
}
