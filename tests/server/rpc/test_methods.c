/* The method table beside the .proto files: every method, once, with its own messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "rpc/services.h"

static const ProtobufCServiceDescriptor *const described[] = {
    &draftd__v1__job_service__descriptor,     &draftd__v1__metric_service__descriptor,
    &draftd__v1__preview_service__descriptor, &draftd__v1__checkpoint_service__descriptor,
    &draftd__v1__system_service__descriptor,  &grpc__health__v1__health__descriptor,
};

static const struct draftd_method *find(const struct draftd_service *service, const char *path)
{
    const struct draftd_method *found = NULL;
    for (size_t i = 0; i < service->count; i++)
        if (strcmp(service->methods[i].path, path) == 0) {
            assert_null(found);
            found = &service->methods[i];
        }
    return found;
}

static void test_methods__table_equals_the_protocol(void **state)
{
    (void)state;
    struct draftd_service services[DRAFTD_SERVICES];
    draftd_services(NULL, NULL, NULL, services);
    for (size_t i = 0; i < sizeof described / sizeof *described; i++) {
        const ProtobufCServiceDescriptor *descriptor = described[i];
        assert_string_equal(services[i].name, descriptor->name);
        assert_int_equal(services[i].count, descriptor->n_methods);
        for (unsigned j = 0; j < descriptor->n_methods; j++) {
            char path[128];
            snprintf(path, sizeof path, "/%s/%s", descriptor->name, descriptor->methods[j].name);
            const struct draftd_method *method = find(&services[i], path);
            if (method == NULL)
                fail_msg("%s is in the .proto file and not in the table", path);
            assert_ptr_equal(method->request, descriptor->methods[j].input);
            assert_ptr_equal(method->reply, descriptor->methods[j].output);
        }
    }
}

static void test_methods__handlers_fit_their_kind(void **state)
{
    (void)state;
    struct draftd_service services[DRAFTD_SERVICES];
    draftd_services(NULL, NULL, NULL, services);
    for (size_t i = 0; i < DRAFTD_SERVICES; i++)
        for (size_t j = 0; j < services[i].count; j++) {
            const struct draftd_method *method = &services[i].methods[j];
            bool stream = method->kind == DRAFTD_STREAM;
            assert_int_equal(method->call == NULL, stream);
            assert_int_equal(method->open != NULL, stream);
            assert_int_equal(method->next != NULL, stream);
            assert_int_equal(method->close != NULL, stream);
            if (strncmp(services[i].name, "draftd.", 7) == 0)
                assert_int_not_equal(method->role, DRAFTD_ROLE_NONE);
        }
}

/* The walk over a request's bytes counts fields in a table of 64; no message refers to itself. */
static void check_message(const ProtobufCMessageDescriptor *message, int depth)
{
    assert_true(depth <= 8);
    assert_true(message->n_fields <= 64);
    for (unsigned i = 0; i < message->n_fields; i++)
        if (message->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            check_message(message->fields[i].descriptor, depth + 1);
}

static void test_methods__messages_are_small_and_not_recursive(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof described / sizeof *described; i++)
        for (unsigned j = 0; j < described[i]->n_methods; j++) {
            check_message(described[i]->methods[j].input, 0);
            check_message(described[i]->methods[j].output, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods__table_equals_the_protocol),
        cmocka_unit_test(test_methods__handlers_fit_their_kind),
        cmocka_unit_test(test_methods__messages_are_small_and_not_recursive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
