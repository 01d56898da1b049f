#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "draftd/v1/checkpoints.pb-c.h"
#include "draftd/v1/jobs.pb-c.h"
#include "draftd/v1/metrics.pb-c.h"
#include "json_message.h"

static json_t *parse(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    return json;
}

/* What comes out of one message goes into another, byte for byte the same. */
static void test_json_message__a_job_survives_the_round_trip(void **state)
{
    struct draft_error err = {0};
    (void)state;
    json_t *given =
        parse("{\"id\": \"job-7\", \"state\": \"STATE_RUNNING\", \"create_time_us\": 1700000000123456,"
              "\"spec\": {\"model\": \"/m\", \"kl_coeff\": 0, \"rewards\": [{\"kind\": \"clip\"}, {\"kind\": "
              "\"jpeg\", \"weight\": -0.25}], \"seed\": 5, \"recompute\": true},"
              "\"progress\": {\"step\": 3, \"phase\": \"sampling\", \"reward\": 12.5},"
              "\"warnings\": [\"a\", \"ü\"]}");
    ProtobufCMessage *first = draft_message_new(&draftd__v1__job__descriptor);
    assert_true(draft_message_from_json(first, given, "", &err));
    json_t *shown = draft_message_to_json(first);
    ProtobufCMessage *second = draft_message_new(&draftd__v1__job__descriptor);
    assert_true(draft_message_from_json(second, shown, "", &err));

    size_t n = protobuf_c_message_get_packed_size(first);
    assert_int_equal(protobuf_c_message_get_packed_size(second), n);
    uint8_t *a = malloc(n), *b = malloc(n);
    protobuf_c_message_pack(first, a);
    protobuf_c_message_pack(second, b);
    assert_memory_equal(a, b, n);
    assert_string_equal(json_string_value(json_object_get(shown, "state")), "STATE_RUNNING");
    assert_true(json_integer_value(json_object_get(shown, "create_time_us")) == 1700000000123456);
    json_t *spec = json_object_get(shown, "spec");
    assert_true(json_is_number(json_object_get(spec, "kl_coeff"))); /* set to 0 is not the same as absent */
    assert_null(json_object_get(json_array_get(json_object_get(spec, "rewards"), 0), "weight"));
    free(a);
    free(b);
    protobuf_c_message_free_unpacked(first, NULL);
    protobuf_c_message_free_unpacked(second, NULL);
    json_decref(given);
    json_decref(shown);
}

static void test_json_message__non_finite_numbers_are_words(void **state)
{
    Draftd__V1__QueryMetricsResponse__Point point = DRAFTD__V1__QUERY_METRICS_RESPONSE__POINT__INIT;
    (void)state;
    point.value = NAN;
    point.min = -INFINITY;
    point.max = INFINITY;
    json_t *json = draft_message_to_json(&point.base);
    assert_string_equal(json_string_value(json_object_get(json, "value")), "NaN");
    assert_string_equal(json_string_value(json_object_get(json, "min")), "-Infinity");
    assert_string_equal(json_string_value(json_object_get(json, "max")), "Infinity");
    json_decref(json);
}

static void test_json_message__large_unsigned_numbers_and_bytes_keep_their_value(void **state)
{
    Draftd__V1__ExportLoraResponse piece = DRAFTD__V1__EXPORT_LORA_RESPONSE__INIT;
    static const char *const expected[] = {"", "TQ==", "TWE=", "TWFu"}; /* RFC 4648 */
    (void)state;
    piece.total_bytes = UINT64_MAX;
    for (size_t n = 0; n < 4; n++) {
        piece.data.data = (uint8_t *)"Man";
        piece.data.len = n;
        json_t *json = draft_message_to_json(&piece.base);
        assert_string_equal(json_string_value(json_object_get(json, "data")), expected[n]);
        assert_string_equal(json_string_value(json_object_get(json, "total_bytes")), "18446744073709551615");
        json_decref(json);
    }
}

static void test_json_message__a_list_replaces_the_one_before(void **state)
{
    struct draft_error err = {0};
    (void)state;
    ProtobufCMessage *message = draft_message_new(&draftd__v1__evaluation__descriptor);
    json_t *three = parse("{\"prompts\": [\"a\", \"b\", \"c\"]}"), *one = parse("{\"prompts\": [\"d\"]}");
    assert_true(draft_message_from_json(message, three, "", &err) && draft_message_from_json(message, one, "", &err));
    Draftd__V1__Evaluation *evaluation = (Draftd__V1__Evaluation *)message;
    assert_int_equal(evaluation->n_prompts, 1);
    assert_string_equal(evaluation->prompts[0], "d");
    protobuf_c_message_free_unpacked(message, NULL);
    json_decref(three);
    json_decref(one);
}

static void test_json_message__a_failure_in_the_middle_of_a_list_leaks_nothing(void **state)
{
    struct draft_error err = {0};
    (void)state;
    ProtobufCMessage *message = draft_message_new(&draftd__v1__job_spec__descriptor);
    json_t *bad =
        parse("{\"rewards\": [{\"kind\": \"clip\", \"path\": \"p\"}, {\"kind\": \"x\", \"weight\": \"y\"}, {}]}");
    assert_false(draft_message_from_json(message, bad, "spec", &err));
    assert_string_equal(err.field, "spec.rewards[1].weight");
    protobuf_c_message_free_unpacked(message, NULL);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_message__a_job_survives_the_round_trip),
        cmocka_unit_test(test_json_message__non_finite_numbers_are_words),
        cmocka_unit_test(test_json_message__large_unsigned_numbers_and_bytes_keep_their_value),
        cmocka_unit_test(test_json_message__a_list_replaces_the_one_before),
        cmocka_unit_test(test_json_message__a_failure_in_the_middle_of_a_list_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
