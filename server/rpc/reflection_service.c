/* grpc.reflection.v1 and v1alpha (the same messages under another name): lets grpcurl and the like ask what draftd
 * offers, without the .proto files. */
#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "message.h"
#include "rpc/descriptors.h"
#include "rpc/services.h"

#include <assert.h>
#include <grpc/status.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Google__Protobuf__FileDescriptorProto file_descriptor;
typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

struct draftd_reflection {
    Google__Protobuf__FileDescriptorSet *set;
    const struct draftd_service *services;
    size_t count;
};

struct draftd_reflection *draftd_reflection_create(const struct draftd_service *services, size_t count)
{
    struct draftd_reflection *reflection = draftd_new(sizeof *reflection);
    reflection->services = services;
    reflection->count = count;
    reflection->set = google__protobuf__file_descriptor_set__unpack(
        NULL, (size_t)(draftd_descriptors_end - draftd_descriptors), draftd_descriptors);
    assert(reflection->set != NULL); /* built in */
    return reflection;
}

void draftd_reflection_destroy(struct draftd_reflection *reflection)
{
    draftd_message_free(reflection->set);
    free(reflection);
}

/* What follows "scope.name" in symbol: "" when it is that, "x.y" when it lies below, NULL when it is elsewhere. */
static const char *below(const char *symbol, const char *name)
{
    size_t length = strlen(name);
    if (strncmp(symbol, name, length) != 0)
        return NULL;
    return symbol[length] == '.' ? symbol + length + 1 : symbol[length] == '\0' ? symbol + length : NULL;
}

static bool in_enum(const Google__Protobuf__EnumDescriptorProto *descriptor, const char *symbol)
{
    const char *rest = below(symbol, descriptor->name);
    return rest != NULL && *rest == '\0';
}

static bool in_message(const Google__Protobuf__DescriptorProto *descriptor, const char *symbol)
{
    const char *rest = below(symbol, descriptor->name);
    bool found = rest != NULL && *rest == '\0';
    if (rest == NULL || found)
        return found;
    for (size_t i = 0; i < descriptor->n_field && !found; i++)
        found = strcmp(rest, descriptor->field[i]->name) == 0;
    for (size_t i = 0; i < descriptor->n_enum_type && !found; i++)
        found = in_enum(descriptor->enum_type[i], rest);
    for (size_t i = 0; i < descriptor->n_nested_type && !found; i++)
        found = in_message(descriptor->nested_type[i], rest);
    return found;
}

static bool in_service(const Google__Protobuf__ServiceDescriptorProto *descriptor, const char *symbol)
{
    const char *rest = below(symbol, descriptor->name);
    bool found = rest != NULL && *rest == '\0';
    for (size_t i = 0; rest != NULL && i < descriptor->n_method && !found; i++)
        found = strcmp(rest, descriptor->method[i]->name) == 0;
    return found;
}

static bool in_file(const file_descriptor *file, const char *symbol)
{
    const char *rest = file->package != NULL && *file->package != '\0' ? below(symbol, file->package) : symbol;
    bool found = false;
    for (size_t i = 0; rest != NULL && i < file->n_message_type && !found; i++)
        found = in_message(file->message_type[i], rest);
    for (size_t i = 0; rest != NULL && i < file->n_enum_type && !found; i++)
        found = in_enum(file->enum_type[i], rest);
    for (size_t i = 0; rest != NULL && i < file->n_service && !found; i++)
        found = in_service(file->service[i], rest);
    return found;
}

static const file_descriptor *file_of_symbol(const struct draftd_reflection *reflection, const char *symbol)
{
    for (size_t i = 0; i < reflection->set->n_file; i++)
        if (in_file(reflection->set->file[i], symbol))
            return reflection->set->file[i];
    return NULL;
}

static const file_descriptor *file_of_name(const struct draftd_reflection *reflection, const char *name)
{
    for (size_t i = 0; i < reflection->set->n_file; i++)
        if (strcmp(reflection->set->file[i]->name, name) == 0)
            return reflection->set->file[i];
    return NULL;
}

/* The file first, then what it imports, each once. */
static void add_file(const struct draftd_reflection *reflection, const file_descriptor *file,
                     const file_descriptor **files, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        if (files[i] == file)
            return;
    files[(*count)++] = file;
    for (size_t i = 0; i < file->n_dependency; i++) {
        const file_descriptor *import = file_of_name(reflection, file->dependency[i]);
        if (import != NULL)
            add_file(reflection, import, files, count);
    }
}

static void answer_file(const struct draftd_reflection *reflection, const file_descriptor *file,
                        reflection_response *out)
{
    const file_descriptor **files = draftd_new(reflection->set->n_file * sizeof *files);
    size_t count = 0;
    add_file(reflection, file, files, &count);
    Grpc__Reflection__V1__FileDescriptorResponse *answer =
        draftd_message_new(&grpc__reflection__v1__file_descriptor_response__descriptor);
    answer->file_descriptor_proto = draftd_new(count * sizeof *answer->file_descriptor_proto);
    answer->n_file_descriptor_proto = count;
    for (size_t i = 0; i < count; i++) {
        ProtobufCBinaryData *bytes = &answer->file_descriptor_proto[i];
        bytes->data = draftd_new(google__protobuf__file_descriptor_proto__get_packed_size(files[i]) + 1);
        bytes->len = google__protobuf__file_descriptor_proto__pack(files[i], bytes->data);
    }
    free(files);
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    out->file_descriptor_response = answer;
}

static void answer_services(const struct draftd_reflection *reflection, reflection_response *out)
{
    Grpc__Reflection__V1__ListServiceResponse *answer =
        draftd_message_new(&grpc__reflection__v1__list_service_response__descriptor);
    for (size_t i = 0; i < reflection->count; i++) {
        Grpc__Reflection__V1__ServiceResponse *service =
            draftd_message_new(&grpc__reflection__v1__service_response__descriptor);
        draftd_message_string(&service->name, reflection->services[i].name);
        draftd_message_append(&answer->service, &answer->n_service, service);
    }
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    out->list_services_response = answer;
}

static void answer_error(reflection_response *out, int code, const char *sentence)
{
    Grpc__Reflection__V1__ErrorResponse *answer = draftd_message_new(&grpc__reflection__v1__error_response__descriptor);
    answer->error_code = code;
    draftd_message_string(&answer->error_message, sentence);
    out->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    out->error_response = answer;
}

DRAFTD_CALL(draftd_rpc_reflect)
{
    (void)err;
    const reflection_request *in = (const void *)request;
    const struct draftd_reflection *reflection = draftd_call_context(call);
    reflection_response *out = draftd_message_new(&grpc__reflection__v1__server_reflection_response__descriptor);
    draftd_message_string(&out->valid_host, in->host);
    out->original_request = draftd_message_copy(in);
    const file_descriptor *file = NULL;
    switch (in->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        answer_services(reflection, out);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        file = file_of_name(reflection, in->file_by_filename);
        if (file == NULL)
            answer_error(out, GRPC_STATUS_NOT_FOUND, "draftd's protocol has no file of this name");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        file = file_of_symbol(reflection, in->file_containing_symbol);
        if (file == NULL)
            answer_error(out, GRPC_STATUS_NOT_FOUND, "draftd's protocol has no such name");
        break;
    default:
        answer_error(out, GRPC_STATUS_UNIMPLEMENTED, "draftd's protocol has no extensions");
        break;
    }
    if (file != NULL)
        answer_file(reflection, file, out);
    *reply = &out->base;
    return true;
}
