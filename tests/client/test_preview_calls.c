/* Pictures asked for and fetched. */
#include "fake_calls.h"

#include "previews.h"

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

static void test_preview_calls__a_preview_is_fetched_byte_for_byte_through_a_broken_connection(void **state)
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

static void test_preview_calls__a_grid_of_annealings_asks_for_each_of_them_in_turn(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preview_calls__a_preview_is_fetched_byte_for_byte_through_a_broken_connection),
        cmocka_unit_test(test_preview_calls__a_grid_of_annealings_asks_for_each_of_them_in_turn),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
