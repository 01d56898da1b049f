#include "rpc/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "rpc/wire.h"

/* No default: a new draft_code does not compile until it has its gRPC code here. */
static grpc_status_code grpc_code(enum draft_code code)
{
    switch (code) {
    case DRAFT_OK:
        return GRPC_STATUS_OK;
    case DRAFT_INVALID_ARGUMENT:
        return GRPC_STATUS_INVALID_ARGUMENT;
    case DRAFT_NOT_FOUND:
        return GRPC_STATUS_NOT_FOUND;
    case DRAFT_ALREADY_EXISTS:
        return GRPC_STATUS_ALREADY_EXISTS;
    case DRAFT_FAILED_PRECONDITION:
        return GRPC_STATUS_FAILED_PRECONDITION;
    case DRAFT_RESOURCE_EXHAUSTED:
        return GRPC_STATUS_RESOURCE_EXHAUSTED;
    case DRAFT_OUT_OF_MEMORY:
        return GRPC_STATUS_RESOURCE_EXHAUSTED;
    case DRAFT_DISK_FULL:
        return GRPC_STATUS_RESOURCE_EXHAUSTED;
    case DRAFT_IO:
        return GRPC_STATUS_INTERNAL;
    case DRAFT_NON_FINITE:
        return GRPC_STATUS_INVALID_ARGUMENT;
    case DRAFT_DATA_LOSS:
        return GRPC_STATUS_DATA_LOSS;
    case DRAFT_CANCELLED:
        return GRPC_STATUS_CANCELLED;
    case DRAFT_UNAVAILABLE:
        return GRPC_STATUS_UNAVAILABLE;
    case DRAFT_INTERNAL:
        return GRPC_STATUS_INTERNAL;
    case DRAFT_DEVICE_LOST:
        return GRPC_STATUS_UNAVAILABLE;
    }
    return GRPC_STATUS_INTERNAL; /* not a value of the enum */
}

static const char *reason_of(enum draft_code code)
{
    switch (code) {
    case DRAFT_OK:
        return "OK";
    case DRAFT_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case DRAFT_NOT_FOUND:
        return "NOT_FOUND";
    case DRAFT_ALREADY_EXISTS:
        return "ALREADY_EXISTS";
    case DRAFT_FAILED_PRECONDITION:
        return "FAILED_PRECONDITION";
    case DRAFT_RESOURCE_EXHAUSTED:
        return "RESOURCE_EXHAUSTED";
    case DRAFT_OUT_OF_MEMORY:
        return "OUT_OF_MEMORY";
    case DRAFT_DISK_FULL:
        return "DISK_FULL";
    case DRAFT_IO:
        return "IO";
    case DRAFT_NON_FINITE:
        return "NON_FINITE";
    case DRAFT_DATA_LOSS:
        return "DATA_LOSS";
    case DRAFT_CANCELLED:
        return "CANCELLED";
    case DRAFT_UNAVAILABLE:
        return "UNAVAILABLE";
    case DRAFT_INTERNAL:
        return "INTERNAL";
    case DRAFT_DEVICE_LOST:
        return "DEVICE_LOST";
    }
    return "INTERNAL";
}

void draftd_status_set(struct draftd_status *status, grpc_status_code code, const char *reason, const char *format, ...)
{
    status->code = code;
    status->reason = reason;
    status->field[0] = '\0';
    status->limit = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(status->message, sizeof status->message, format, args);
    va_end(args);
    draftd_scrub_text(status->message);
}

void draftd_status_from_error(struct draftd_status *status, const struct draft_error *err)
{
    if (err->code == DRAFT_INTERNAL || err->code == DRAFT_OK) {
        draftd_status_set(status, GRPC_STATUS_INTERNAL, "INTERNAL",
                          "draftd made a mistake of its own and could not do this; its log says more");
        return;
    }
    draftd_status_set(status, grpc_code(err->code), reason_of(err->code), "%s", err->message);
    snprintf(status->field, sizeof status->field, "%s", err->field);
    draftd_scrub_text(status->field);
}

static void pack_any(Google__Protobuf__Any *any, char *type_url, const ProtobufCMessage *message, uint8_t *buffer,
                     size_t capacity)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    assert(size <= capacity);
    google__protobuf__any__init(any);
    any->type_url = type_url;
    any->value.data = buffer;
    any->value.len = protobuf_c_message_pack(message, buffer);
    (void)size;
    (void)capacity;
}

static Google__Rpc__ErrorInfo__MetadataEntry *entry(Google__Rpc__ErrorInfo__MetadataEntry *entry, char *key,
                                                    char *value)
{
    google__rpc__error_info__metadata_entry__init(entry);
    entry->key = key;
    entry->value = value;
    return entry;
}

size_t draftd_status_details(const struct draftd_status *status, uint8_t *out)
{
    char error_info_url[] = "type.googleapis.com/google.rpc.ErrorInfo";
    char bad_request_url[] = "type.googleapis.com/google.rpc.BadRequest";
    char domain[] = DRAFTD_ERROR_DOMAIN;
    struct draftd_status copy = *status; /* protobuf-c wants strings it could write to */
    char reason[64];
    snprintf(reason, sizeof reason, "%s", status->reason);

    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    info.reason = reason;
    info.domain = domain;
    char field_key[] = "field", limit_key[] = "limit", limit[16];
    snprintf(limit, sizeof limit, "%d", status->limit);
    Google__Rpc__ErrorInfo__MetadataEntry entries[2], *metadata[2];
    info.metadata = metadata;
    if (copy.field[0] != '\0')
        metadata[info.n_metadata] = entry(&entries[info.n_metadata], field_key, copy.field), info.n_metadata++;
    if (status->limit != 0)
        metadata[info.n_metadata] = entry(&entries[info.n_metadata], limit_key, limit), info.n_metadata++;

    Google__Rpc__BadRequest__FieldViolation violation = GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
    violation.field = copy.field;
    violation.description = copy.message;
    Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
    Google__Rpc__BadRequest bad_request = GOOGLE__RPC__BAD_REQUEST__INIT;
    bad_request.n_field_violations = 1;
    bad_request.field_violations = violations;

    uint8_t info_bytes[512], bad_request_bytes[DRAFTD_STATUS_MESSAGE + 256];
    Google__Protobuf__Any any[2], *details[] = {&any[0], &any[1]};
    Google__Rpc__Status message = GOOGLE__RPC__STATUS__INIT;
    message.code = status->code;
    message.message = copy.message;
    message.details = details;
    pack_any(&any[0], error_info_url, &info.base, info_bytes, sizeof info_bytes);
    message.n_details = 1;
    if (copy.field[0] != '\0') {
        pack_any(&any[1], bad_request_url, &bad_request.base, bad_request_bytes, sizeof bad_request_bytes);
        message.n_details = 2;
    }
    assert(google__rpc__status__get_packed_size(&message) <= DRAFTD_STATUS_DETAILS);
    return google__rpc__status__pack(&message, out);
}
