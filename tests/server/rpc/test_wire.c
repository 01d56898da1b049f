/* What the transport lets in: checked on the raw bytes, with messages written by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "draftd/v1/jobs.pb-c.h"
#include "rpc/wire.h"

#define CREATE (&draftd__v1__create_job_request__descriptor)

struct bytes {
    uint8_t data[4096];
    size_t size;
};

static void put_varint(struct bytes *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        b->data[b->size++] = (uint8_t)(value | 0x80);
    b->data[b->size++] = (uint8_t)value;
}

static void put_bytes(struct bytes *b, unsigned field, const void *data, size_t size)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, size);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

/* A CreateJobRequest whose spec holds rewards[0] and rewards[1] with path = text. */
static struct bytes with_reward_path(const char *text, size_t size)
{
    struct bytes reward = {0}, first = {0}, spec = {0}, request = {0};
    put_bytes(&first, 1, "jpeg", 4);
    put_bytes(&reward, 2, text, size);
    put_bytes(&spec, 4, first.data, first.size);
    put_bytes(&spec, 4, reward.data, reward.size);
    put_bytes(&request, 1, spec.data, spec.size);
    return request;
}

static void refused(const struct bytes *b, const char *reason, const char *field)
{
    struct draftd_budget budget;
    struct draftd_status status = {0};
    assert_null(draftd_unpack(CREATE, b->data, b->size, &budget, &status));
    assert_int_equal(status.code, GRPC_STATUS_INVALID_ARGUMENT);
    assert_string_equal(status.reason, reason);
    assert_string_equal(status.field, field);
    assert_int_equal(budget.used, 0);
}

static void test_wire__good_text_unpacks(void **state)
{
    (void)state;
    static const char text[] = "/m\xc3\xb6"
                               "del/\xe2\x9c\x93/\xf0\x9f\x98\x80";
    struct bytes b = with_reward_path(text, strlen(text));
    struct draftd_budget budget;
    struct draftd_status status;
    ProtobufCMessage *message = draftd_unpack(CREATE, b.data, b.size, &budget, &status);
    assert_non_null(message);
    const Draftd__V1__CreateJobRequest *request = (const void *)message;
    assert_int_equal(request->spec->n_rewards, 2);
    assert_string_equal(request->spec->rewards[1]->path, text);
    assert_true(budget.used > 0);
    draftd_unpacked_free(message, &budget);
}

static void test_wire__bad_utf8_is_refused_by_field(void **state)
{
    (void)state;
    static const char *const bad[] = {"\xff", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xc3", "a\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct bytes b = with_reward_path(bad[i], strlen(bad[i]));
        refused(&b, "INVALID_UTF8", "spec.rewards[1].path");
    }
}

static void test_wire__nul_in_text_is_refused_not_cut(void **state)
{
    (void)state;
    struct bytes b = with_reward_path("/etc\0/x", 7);
    refused(&b, "NUL_IN_TEXT", "spec.rewards[1].path");
}

static void test_wire__sub_message_sent_twice_is_refused(void **state)
{
    (void)state;
    struct bytes spec = {0}, b = {0};
    put_bytes(&spec, 1, "name", 4);
    put_bytes(&b, 1, spec.data, spec.size);
    put_bytes(&b, 1, spec.data, spec.size);
    refused(&b, "MALFORMED_REQUEST", "spec");
}

static void test_wire__lengths_beyond_the_message_are_refused(void **state)
{
    (void)state;
    struct bytes b = {.data = {0x0a, 0x7f, 0x0a}, .size = 3};
    refused(&b, "MALFORMED_REQUEST", "");
    b = (struct bytes){.data = {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, .size = 11};
    refused(&b, "MALFORMED_REQUEST", "");
    b = (struct bytes){.data = {0x0a}, .size = 1};
    refused(&b, "MALFORMED_REQUEST", "");
    b = (struct bytes){.data = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, .size = 12};
    refused(&b, "MALFORMED_REQUEST", "");
    b = (struct bytes){.data = {0x0b, 0x0c}, .size = 2}; /* a group */
    refused(&b, "MALFORMED_REQUEST", "");
    b = (struct bytes){.data = {0x08, 0x01}, .size = 2}; /* spec as a varint */
    refused(&b, "MALFORMED_REQUEST", "");
}

static void test_wire__unknown_fields_are_let_through(void **state)
{
    (void)state;
    struct bytes b = {0};
    put_bytes(&b, 2, "id", 2);
    put_bytes(&b, 999, "\xff\xff", 2);
    struct draftd_budget budget;
    struct draftd_status status;
    ProtobufCMessage *message = draftd_unpack(CREATE, b.data, b.size, &budget, &status);
    assert_non_null(message);
    assert_string_equal(((const Draftd__V1__CreateJobRequest *)(const void *)message)->request_id, "id");
    draftd_unpacked_free(message, &budget);
}

/* 1 MiB of empty rewards would be tens of MiB of heap. */
static void test_wire__bomb_of_small_messages_is_refused_within_budget(void **state)
{
    (void)state;
    size_t count = 500000;
    uint8_t *data = malloc(2 * count + 8);
    struct bytes head = {0};
    put_varint(&head, 1 << 3 | 2);
    put_varint(&head, 2 * count);
    memcpy(data, head.data, head.size);
    for (size_t i = 0; i < count; i++) {
        data[head.size + 2 * i] = 4 << 3 | 2;
        data[head.size + 2 * i + 1] = 0;
    }
    struct draftd_budget budget;
    struct draftd_status status = {0};
    assert_null(draftd_unpack(CREATE, data, head.size + 2 * count, &budget, &status));
    assert_int_equal(status.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_string_equal(status.reason, "MESSAGE_TOO_LARGE");
    assert_int_equal(budget.used, 0);
    free(data);
}

static void test_wire__mutated_messages_never_crash_or_leak(void **state)
{
    (void)state;
    struct bytes good = with_reward_path("/models/clip", 12);
    uint32_t random = 12345;
    for (int i = 0; i < 20000; i++) {
        struct bytes b = good;
        for (int j = 0; j < 1 + i % 4; j++) {
            random = random * 1664525u + 1013904223u;
            b.data[(random >> 8) % b.size] = (uint8_t)(random >> 24);
        }
        struct draftd_budget budget;
        struct draftd_status status = {0};
        ProtobufCMessage *message = draftd_unpack(CREATE, b.data, b.size, &budget, &status);
        if (message != NULL)
            draftd_unpacked_free(message, &budget);
        else
            assert_int_not_equal(status.code, GRPC_STATUS_OK);
        assert_int_equal(budget.used, 0);
    }
}

static void test_wire__outgoing_text_is_scrubbed_in_place(void **state)
{
    (void)state;
    Draftd__V1__Job job = DRAFTD__V1__JOB__INIT;
    Draftd__V1__JobSpec spec = DRAFTD__V1__JOB_SPEC__INIT;
    char reason[] = "cut in the middle of \xe2\x9c", name[] = "ok \xc3\xa9", warning[] = "\xff!";
    char *warnings[] = {warning};
    job.spec = &spec;
    job.reason = reason;
    spec.display_name = name;
    job.n_warnings = 1;
    job.warnings = warnings;
    draftd_scrub_message(&job.base);
    assert_string_equal(job.reason, "cut in the middle of ??");
    assert_string_equal(spec.display_name, "ok \xc3\xa9");
    assert_string_equal(job.warnings[0], "?!");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire__good_text_unpacks),
        cmocka_unit_test(test_wire__bad_utf8_is_refused_by_field),
        cmocka_unit_test(test_wire__nul_in_text_is_refused_not_cut),
        cmocka_unit_test(test_wire__sub_message_sent_twice_is_refused),
        cmocka_unit_test(test_wire__lengths_beyond_the_message_are_refused),
        cmocka_unit_test(test_wire__unknown_fields_are_let_through),
        cmocka_unit_test(test_wire__bomb_of_small_messages_is_refused_within_budget),
        cmocka_unit_test(test_wire__mutated_messages_never_crash_or_leak),
        cmocka_unit_test(test_wire__outgoing_text_is_scrubbed_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
