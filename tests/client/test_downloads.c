/* Files the daemon sends: whole or not at all, and where they belong. */
#include "fake_calls.h"

#include "export.h"

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

static void test_downloads__an_export_is_saved_whole_and_where_it_belongs(void **state)
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

static void test_downloads__half_an_export_leaves_no_file(void **state)
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

static void test_downloads__a_checkpoint_is_saved_under_its_job_and_step(void **state)
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

static void test_downloads__a_checkpoint_that_misses_its_checksum_leaves_no_file(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_downloads__an_export_is_saved_whole_and_where_it_belongs),
        cmocka_unit_test(test_downloads__half_an_export_leaves_no_file),
        cmocka_unit_test(test_downloads__a_checkpoint_is_saved_under_its_job_and_step),
        cmocka_unit_test(test_downloads__a_checkpoint_that_misses_its_checksum_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
