/* The one mapping from errors to gRPC codes, and the details that travel with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "rpc/status.h"

static struct draftd_status from(enum draft_code code, const char *field, const char *message)
{
    struct draft_error err = {0};
    struct draftd_status status;
    draft_fail_field(&err, code, field, "%s", message);
    draftd_status_from_error(&status, &err);
    return status;
}

static void test_status__every_code_has_its_grpc_code(void **state)
{
    (void)state;
    static const struct {
        enum draft_code code;
        grpc_status_code grpc;
        const char *reason;
    } expected[] = {
        {DRAFT_INVALID_ARGUMENT, GRPC_STATUS_INVALID_ARGUMENT, "INVALID_ARGUMENT"},
        {DRAFT_NOT_FOUND, GRPC_STATUS_NOT_FOUND, "NOT_FOUND"},
        {DRAFT_ALREADY_EXISTS, GRPC_STATUS_ALREADY_EXISTS, "ALREADY_EXISTS"},
        {DRAFT_FAILED_PRECONDITION, GRPC_STATUS_FAILED_PRECONDITION, "FAILED_PRECONDITION"},
        {DRAFT_RESOURCE_EXHAUSTED, GRPC_STATUS_RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"},
        {DRAFT_OUT_OF_MEMORY, GRPC_STATUS_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"},
        {DRAFT_DISK_FULL, GRPC_STATUS_RESOURCE_EXHAUSTED, "DISK_FULL"},
        {DRAFT_IO, GRPC_STATUS_INTERNAL, "IO"},
        {DRAFT_NON_FINITE, GRPC_STATUS_INVALID_ARGUMENT, "NON_FINITE"},
        {DRAFT_DATA_LOSS, GRPC_STATUS_DATA_LOSS, "DATA_LOSS"},
        {DRAFT_CANCELLED, GRPC_STATUS_CANCELLED, "CANCELLED"},
        {DRAFT_UNAVAILABLE, GRPC_STATUS_UNAVAILABLE, "UNAVAILABLE"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct draftd_status status = from(expected[i].code, "", "the sentence");
        assert_int_equal(status.code, expected[i].grpc);
        assert_string_equal(status.reason, expected[i].reason);
        assert_string_equal(status.message, "the sentence");
    }
}

static void test_status__internal_words_stay_inside(void **state)
{
    (void)state;
    struct draftd_status status = from(DRAFT_INTERNAL, "", "row 7 of table job has no id");
    assert_int_equal(status.code, GRPC_STATUS_INTERNAL);
    assert_null(strstr(status.message, "row 7"));
    assert_non_null(strstr(status.message, "log"));
    struct draft_error none = {0};
    draftd_status_from_error(&status, &none); /* a handler that failed without saying why */
    assert_int_equal(status.code, GRPC_STATUS_INTERNAL);
}

static Google__Rpc__Status *unpack(const struct draftd_status *status)
{
    uint8_t bytes[DRAFTD_STATUS_DETAILS];
    size_t size = draftd_status_details(status, bytes);
    Google__Rpc__Status *message = google__rpc__status__unpack(NULL, size, bytes);
    assert_non_null(message);
    return message;
}

static void test_status__details_name_reason_domain_and_field(void **state)
{
    (void)state;
    struct draftd_status status = from(DRAFT_INVALID_ARGUMENT, "spec.optimizer.learning_rate", "must be positive");
    Google__Rpc__Status *message = unpack(&status);
    assert_int_equal(message->code, GRPC_STATUS_INVALID_ARGUMENT);
    assert_string_equal(message->message, "must be positive");
    assert_int_equal(message->n_details, 2);
    assert_string_equal(message->details[0]->type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    Google__Rpc__ErrorInfo *info =
        google__rpc__error_info__unpack(NULL, message->details[0]->value.len, message->details[0]->value.data);
    assert_string_equal(info->reason, "INVALID_ARGUMENT");
    assert_string_equal(info->domain, "draftd");
    assert_int_equal(info->n_metadata, 1);
    assert_string_equal(info->metadata[0]->key, "field");
    assert_string_equal(info->metadata[0]->value, "spec.optimizer.learning_rate");
    assert_string_equal(message->details[1]->type_url, "type.googleapis.com/google.rpc.BadRequest");
    Google__Rpc__BadRequest *bad =
        google__rpc__bad_request__unpack(NULL, message->details[1]->value.len, message->details[1]->value.data);
    assert_int_equal(bad->n_field_violations, 1);
    assert_string_equal(bad->field_violations[0]->field, "spec.optimizer.learning_rate");
    assert_string_equal(bad->field_violations[0]->description, "must be positive");
    google__rpc__bad_request__free_unpacked(bad, NULL);
    google__rpc__error_info__free_unpacked(info, NULL);
    google__rpc__status__free_unpacked(message, NULL);
}

static void test_status__details_name_the_limit_that_was_reached(void **state)
{
    (void)state;
    struct draftd_status status;
    draftd_status_set(&status, GRPC_STATUS_RESOURCE_EXHAUSTED, "TOO_MANY_CALLS", "64 calls wait already");
    status.limit = 64;
    Google__Rpc__Status *message = unpack(&status);
    Google__Rpc__ErrorInfo *info =
        google__rpc__error_info__unpack(NULL, message->details[0]->value.len, message->details[0]->value.data);
    assert_int_equal(info->n_metadata, 1);
    assert_string_equal(info->metadata[0]->key, "limit");
    assert_string_equal(info->metadata[0]->value, "64");
    google__rpc__error_info__free_unpacked(info, NULL);
    google__rpc__status__free_unpacked(message, NULL);
}

static void test_status__without_a_field_there_is_no_bad_request(void **state)
{
    (void)state;
    struct draftd_status status = from(DRAFT_NOT_FOUND, "", "no job job-9");
    Google__Rpc__Status *message = unpack(&status);
    assert_int_equal(message->n_details, 1);
    google__rpc__status__free_unpacked(message, NULL);
}

static void test_status__longest_error_fits_and_is_utf8(void **state)
{
    (void)state;
    char text[4000], field[200];
    for (size_t i = 0; i + 3 < sizeof text; i += 3)
        memcpy(text + i, "\xe2\x9c\x93", 4); /* cut in the middle of a character by the error's own buffer */
    memset(field, 'f', sizeof field - 1);
    field[sizeof field - 1] = '\0';
    struct draftd_status status = from(DRAFT_INVALID_ARGUMENT, field, text);
    assert_true(strlen(status.message) <= 1023);
    assert_true(draft_utf8_valid(status.message, strlen(status.message), NULL));
    uint8_t bytes[DRAFTD_STATUS_DETAILS];
    size_t size = draftd_status_details(&status, bytes);
    assert_true(size <= DRAFTD_STATUS_DETAILS);
    /* percent-encoded sentence + base64 details + names: below the 8 KB of trailers that clients take */
    assert_true(3 * strlen(status.message) + (size + 2) / 3 * 4 + 200 < 8192);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status__every_code_has_its_grpc_code),
        cmocka_unit_test(test_status__internal_words_stay_inside),
        cmocka_unit_test(test_status__details_name_reason_domain_and_field),
        cmocka_unit_test(test_status__details_name_the_limit_that_was_reached),
        cmocka_unit_test(test_status__without_a_field_there_is_no_bad_request),
        cmocka_unit_test(test_status__longest_error_fits_and_is_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
