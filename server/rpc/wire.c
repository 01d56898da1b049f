#include "rpc/wire.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum { MAX_DEPTH = 16, MAX_FIELDS = 64, MAX_PATH = 96 };
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* --- Outgoing text --------------------------------------------------------------------------------------------------
 */

void draftd_scrub_text(char *text)
{
    size_t bad, length = strlen(text);
    while (!draft_utf8_valid(text, length, &bad)) {
        text[bad] = '?';
        text += bad + 1;
        length -= bad + 1;
    }
}

static void scrub_member(const ProtobufCFieldDescriptor *field, void *member)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        char *text = *(char **)member;
        if (text != NULL && text != field->default_value && text != &protobuf_c_empty_string[0])
            draftd_scrub_text(text);
    } else if (*(ProtobufCMessage **)member != NULL) {
        draftd_scrub_message(*(ProtobufCMessage **)member);
    }
}

void draftd_scrub_message(ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        uint8_t *base = (uint8_t *)message;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = *(size_t *)(base + field->quantifier_offset);
            void **elements = *(void ***)(base + field->offset);
            for (size_t j = 0; j < count; j++)
                scrub_member(field, &elements[j]);
        } else if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0 ||
                   *(uint32_t *)(base + field->quantifier_offset) == field->id) {
            scrub_member(field, base + field->offset);
        }
    }
}

/* --- The walk over the raw bytes -----------------------------------------------------------------------------------
 */

struct cursor {
    const uint8_t *at, *end;
};

static bool read_varint(struct cursor *c, uint64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 70 && c->at < c->end; shift += 7) {
        uint8_t byte = *c->at++;
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *out = value;
            return true;
        }
    }
    return false;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *descriptor, uint64_t id,
                                                  unsigned *index)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (descriptor->fields[i].id == id) {
            *index = i;
            return &descriptor->fields[i];
        }
    return NULL;
}

static bool refuse(struct draftd_status *status, const char *path, const char *reason, const char *what)
{
    draftd_status_set(status, GRPC_STATUS_INVALID_ARGUMENT, reason, "%s%s%s", path[0] != '\0' ? path : "the request",
                      path[0] != '\0' ? ": " : " ", what);
    snprintf(status->field, sizeof status->field, "%s", path);
    return false;
}

static bool malformed(struct draftd_status *status, const char *path)
{
    return refuse(status, path, "MALFORMED_REQUEST", "is not a well-formed protobuf message");
}

static bool check_text(struct draftd_status *status, const char *path, const uint8_t *text, size_t length)
{
    size_t bad;
    if (draft_utf8_valid((const char *)text, length, &bad))
        return true;
    if (text[bad] == '\0')
        return refuse(status, path, "NUL_IN_TEXT", "holds a NUL character; remove it");
    return refuse(status, path, "INVALID_UTF8", "is not valid UTF-8; send text as UTF-8");
}

static void child_path(char *out, const char *parent, const ProtobufCFieldDescriptor *field, unsigned index)
{
    int used = snprintf(out, MAX_PATH, "%s%s%s", parent, parent[0] != '\0' ? "." : "", field->name);
    if (field->label == PROTOBUF_C_LABEL_REPEATED && used < MAX_PATH)
        snprintf(out + used, (size_t)(MAX_PATH - used), "[%u]", index);
}

static bool walk(const ProtobufCMessageDescriptor *descriptor, struct cursor c, const char *path, int depth,
                 struct draftd_status *status)
{
    assert(descriptor->n_fields <= MAX_FIELDS);
    if (depth > MAX_DEPTH)
        return refuse(status, path, "MALFORMED_REQUEST", "is nested too deeply");
    unsigned seen[MAX_FIELDS] = {0};
    while (c.at < c.end) {
        uint64_t tag, length = 0;
        if (!read_varint(&c, &tag))
            return malformed(status, path);
        switch (tag & 7) {
        case WIRE_VARINT:
            if (!read_varint(&c, &(uint64_t){0}))
                return malformed(status, path);
            continue;
        case WIRE_FIXED64:
            length = 8;
            break;
        case WIRE_FIXED32:
            length = 4;
            break;
        case WIRE_BYTES:
            if (!read_varint(&c, &length))
                return malformed(status, path);
            break;
        default: /* groups and undefined types */
            return malformed(status, path);
        }
        if (length > (uint64_t)(c.end - c.at))
            return malformed(status, path);
        const uint8_t *bytes = c.at;
        c.at += length;
        unsigned index;
        const ProtobufCFieldDescriptor *field =
            (tag & 7) == WIRE_BYTES ? find_field(descriptor, tag >> 3, &index) : NULL;
        if (field == NULL || (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE))
            continue;
        char below[MAX_PATH];
        child_path(below, path, field, seen[index]);
        seen[index]++;
        if (field->type == PROTOBUF_C_TYPE_STRING) {
            if (!check_text(status, below, bytes, length))
                return false;
            continue;
        }
        if (field->label != PROTOBUF_C_LABEL_REPEATED && seen[index] > 1)
            return refuse(status, below, "MALFORMED_REQUEST", "is in the message twice; send it once");
        if (!walk(field->descriptor, (struct cursor){bytes, bytes + length}, below, depth + 1, status))
            return false;
    }
    return true;
}

bool draftd_wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t size,
                       struct draftd_status *status)
{
    return walk(descriptor, (struct cursor){data, data + size}, "", 1, status);
}

/* --- Unpacking within a budget -------------------------------------------------------------------------------------
 */

static atomic_size_t used_by_all;

union block {
    size_t size;
    max_align_t align;
};

static void *budget_alloc(void *context, size_t size)
{
    struct draftd_budget *budget = context;
    size_t whole = size + sizeof(union block);
    if (whole < size || whole > budget->limit - budget->used) {
        budget->exceeded = true;
        return NULL;
    }
    if (atomic_fetch_add(&used_by_all, whole) + whole > DRAFTD_UNPACK_BUDGET_ALL) {
        atomic_fetch_sub(&used_by_all, whole);
        budget->exceeded = true;
        return NULL;
    }
    union block *block = malloc(whole);
    if (block == NULL) {
        atomic_fetch_sub(&used_by_all, whole);
        budget->exceeded = true;
        return NULL;
    }
    block->size = whole;
    budget->used += whole;
    return block + 1;
}

static void budget_free(void *context, void *pointer)
{
    if (pointer == NULL)
        return;
    struct draftd_budget *budget = context;
    union block *block = (union block *)pointer - 1;
    budget->used -= block->size;
    atomic_fetch_sub(&used_by_all, block->size);
    free(block);
}

ProtobufCMessage *draftd_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t size,
                                struct draftd_budget *budget, struct draftd_status *status)
{
    budget->used = 0;
    budget->limit = DRAFTD_UNPACK_BUDGET;
    budget->exceeded = false;
    budget->allocator = (ProtobufCAllocator){budget_alloc, budget_free, budget};
    if (!draftd_wire_check(descriptor, data, size, status))
        return NULL;
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &budget->allocator, size, data);
    if (message == NULL && budget->exceeded)
        draftd_status_set(
            status, GRPC_STATUS_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
            "the request takes more memory than draftd gives to one (%d MiB) or to all together (%d MiB); "
            "make it smaller or try again later",
            DRAFTD_UNPACK_BUDGET >> 20, DRAFTD_UNPACK_BUDGET_ALL >> 20);
    else if (message == NULL)
        malformed(status, "");
    return message;
}

void draftd_unpacked_free(ProtobufCMessage *message, struct draftd_budget *budget)
{
    protobuf_c_message_free_unpacked(message, &budget->allocator);
    assert(budget->used == 0);
}
