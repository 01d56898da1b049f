#include "json_message.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"

/* A field of a message: where its value lies, and (repeated fields) how many there are. */
static void *member(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return (char *)(uintptr_t)message + field->offset;
}

static void *quantifier(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return (char *)(uintptr_t)message + field->quantifier_offset;
}

static bool in_oneof(const ProtobufCFieldDescriptor *field)
{
    return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

static size_t element_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static void *need(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* --- message -> JSON -----------------------------------------------------------------------------------------------
 */

static json_t *number(double value)
{
    if (isnan(value))
        return json_string("NaN");
    if (isinf(value))
        return json_string(value > 0 ? "Infinity" : "-Infinity");
    return json_real(value);
}

static json_t *unsigned_number(uint64_t value)
{
    char digits[24];
    if (value <= INT64_MAX)
        return json_integer((json_int_t)value);
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    return json_string(digits);
}

static json_t *base64(const ProtobufCBinaryData *bytes)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = need(malloc(bytes->len / 3 * 4 + 5)), *out = text;
    for (size_t i = 0; i < bytes->len; i += 3) {
        size_t left = bytes->len - i;
        uint32_t group = (uint32_t)bytes->data[i] << 16 | (left > 1 ? (uint32_t)bytes->data[i + 1] << 8 : 0) |
                         (left > 2 ? bytes->data[i + 2] : 0);
        *out++ = letters[group >> 18];
        *out++ = letters[group >> 12 & 63];
        *out++ = left > 1 ? letters[group >> 6 & 63] : '=';
        *out++ = left > 2 ? letters[group & 63] : '=';
    }
    json_t *json = json_stringn(text, (size_t)(out - text));
    free(text);
    return json;
}

static json_t *value_to_json(const ProtobufCFieldDescriptor *field, const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return unsigned_number(*(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return number(*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return number(*(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)at);
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at);
        return value ? json_string(value->name) : json_integer(*(const int *)at);
    }
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)at;
        json_t *json = json_string(text ? text : "");
        return json ? json : json_string("(not UTF-8)");
    }
    case PROTOBUF_C_TYPE_BYTES:
        return base64(at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return draft_message_to_json(*(const ProtobufCMessage *const *)at);
    }
    return json_null();
}

json_t *draft_message_to_json(const ProtobufCMessage *message)
{
    json_t *object = need(json_object());
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const void *at = member(message, field);
        json_t *value = NULL;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t count = *(const size_t *)quantifier(message, field);
            value = json_array();
            for (size_t k = 0; k < count; k++)
                json_array_append_new(value, value_to_json(field, *(const char *const *)at + k * element_size(field)));
        } else if (in_oneof(field)) {
            if (*(const uint32_t *)quantifier(message, field) == field->id)
                value = value_to_json(field, at);
        } else if (field->type != PROTOBUF_C_TYPE_MESSAGE || *(const void *const *)at) {
            value = value_to_json(field, at);
        }
        if (value)
            json_object_set_new(object, field->name, value);
    }
    return object;
}

void draft_json_print(const json_t *value, bool compact, FILE *out)
{
    size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(15) | (compact ? JSON_COMPACT : JSON_INDENT(2));
    json_dumpf(value, out, flags);
    fputc('\n', out);
}

void draft_message_print(const ProtobufCMessage *message, bool compact, FILE *out)
{
    json_t *json = draft_message_to_json(message);
    draft_json_print(json, compact, out);
    json_decref(json);
}

/* --- JSON -> message -----------------------------------------------------------------------------------------------
 */

ProtobufCMessage *draft_message_new(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = need(malloc(descriptor->sizeof_message));
    descriptor->message_init(message);
    return message;
}

static const char *kind_of(const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static bool wrong(const char *path, const char *expected, const json_t *found, struct draft_error *err)
{
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "%s: expected %s, found %s", path, expected,
                            kind_of(found));
}

static bool read_signed(const json_t *json, int64_t min, int64_t max, const char *path, int64_t *out,
                        struct draft_error *err)
{
    int64_t value = json_integer_value(json);
    if (json_is_string(json) ? !draft_parse_int(json_string_value(json), &value) : !json_is_integer(json))
        return wrong(path, "a whole number", json, err);
    if (value < min || value > max)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "%s: %lld is outside %lld .. %lld", path,
                                (long long)value, (long long)min, (long long)max);
    *out = value;
    return true;
}

static bool read_unsigned(const json_t *json, const char *path, uint64_t *out, struct draft_error *err)
{
    if (json_is_integer(json) && json_integer_value(json) >= 0)
        *out = (uint64_t)json_integer_value(json);
    else if (!json_is_string(json) || !draft_parse_uint(json_string_value(json), out))
        return wrong(path, "a whole number, 0 or more", json, err);
    return true;
}

static bool read_value(const ProtobufCFieldDescriptor *field, const json_t *json, const char *path, void *at,
                       struct draft_error *err)
{
    int64_t number_read;
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        if (!read_signed(json, INT32_MIN, INT32_MAX, path, &number_read, err))
            return false;
        *(int32_t *)at = (int32_t)number_read;
        return true;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        if (!read_signed(json, 0, UINT32_MAX, path, &number_read, err))
            return false;
        *(uint32_t *)at = (uint32_t)number_read;
        return true;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return read_signed(json, INT64_MIN, INT64_MAX, path, at, err);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_unsigned(json, path, at, err);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE: {
        if (!json_is_number(json))
            return wrong(path, "a number", json, err);
        double value = json_number_value(json);
        if (field->type == PROTOBUF_C_TYPE_FLOAT)
            *(float *)at = (float)value;
        else
            *(double *)at = value;
        return true;
    }
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(json))
            return wrong(path, "true or false", json, err);
        *(protobuf_c_boolean *)at = json_is_true(json);
        return true;
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumValue *value =
            json_is_string(json)
                ? protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, json_string_value(json))
                : NULL;
        if (!value)
            return wrong(path, "the name of an enum value", json, err);
        *(int *)at = value->value;
        return true;
    }
    case PROTOBUF_C_TYPE_STRING:
        if (!json_is_string(json))
            return wrong(path, "a string", json, err);
        if (strlen(json_string_value(json)) != json_string_length(json))
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "%s: the text holds a NUL byte", path);
        *(char **)at = need(strdup(json_string_value(json)));
        return true;
    case PROTOBUF_C_TYPE_MESSAGE: {
        ProtobufCMessage **child = at;
        if (!json_is_object(json))
            return wrong(path, "an object", json, err);
        if (!*child)
            *child = draft_message_new(field->descriptor);
        return draft_message_from_json(*child, json, path, err);
    }
    case PROTOBUF_C_TYPE_BYTES:
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "%s: bytes cannot be given in JSON", path);
    }
    return false;
}

static void free_value(const ProtobufCFieldDescriptor *field, void *at)
{
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        if (*(char **)at != field->default_value && *(char **)at != protobuf_c_empty_string)
            free(*(char **)at);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE && *(ProtobufCMessage **)at) {
        protobuf_c_message_free_unpacked(*(ProtobufCMessage **)at, NULL);
    }
}

static bool read_list(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const json_t *list,
                      const char *path, struct draft_error *err)
{
    size_t *count = quantifier(message, field), size = element_size(field), wanted = json_array_size(list);
    char **items = member(message, field);
    if (!json_is_array(list))
        return wrong(path, "a list", list, err);
    for (size_t i = 0; i < *count; i++)
        free_value(field, *items + i * size);
    free(*items);
    *count = 0;
    *items = wanted ? need(calloc(wanted, size)) : NULL;
    for (size_t i = 0; i < wanted; i++) {
        char where[160];
        void *at = *items + i * size;
        snprintf(where, sizeof where, "%s[%zu]", path, i);
        bool good = read_value(field, json_array_get(list, i), where, at, err);
        /* A half-read sub-message must be reachable to be freed with its parent. */
        if (good || (field->type == PROTOBUF_C_TYPE_MESSAGE && *(void **)at))
            *count = i + 1;
        if (!good)
            return false;
    }
    return true;
}

static bool read_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const json_t *json,
                       const char *path, struct draft_error *err)
{
    void *at = member(message, field);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return read_list(message, field, json, path, err);
    char *old = field->type == PROTOBUF_C_TYPE_STRING ? *(char **)at : NULL;
    if (!read_value(field, json, path, at, err))
        return false;
    if (old && old != field->default_value && old != protobuf_c_empty_string)
        free(old);
    if (in_oneof(field))
        *(uint32_t *)quantifier(message, field) = field->id;
    return true;
}

static bool unknown_key(const ProtobufCMessageDescriptor *descriptor, const char *prefix, const char *key,
                        struct draft_error *err)
{
    const char *names[128];
    int count = 0;
    char path[96];
    for (unsigned i = 0; i < descriptor->n_fields && count < 128; i++)
        names[count++] = descriptor->fields[i].name;
    const char *near = draft_nearest(key, names, count);
    snprintf(path, sizeof path, "%s%s%.60s", prefix, *prefix ? "." : "", key);
    if (near)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "unknown key \"%s\"; did you mean \"%s\"?", path,
                                near);
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "unknown key \"%s\"", path);
}

bool draft_message_from_json(ProtobufCMessage *message, const json_t *object, const char *prefix,
                             struct draft_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field_by_name(message->descriptor, key);
        char path[160];
        if (!field)
            return unknown_key(message->descriptor, prefix, key, err);
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (!json_is_null(value) && !read_field(message, field, value, path, err))
            return false;
    }
    return true;
}

bool draft_message_set(ProtobufCMessage *message, const char *path, const json_t *value, struct draft_error *err)
{
    if (!*path)
        return draft_message_from_json(message, value, "", err);
    for (const char *rest = path;;) {
        char name[64];
        size_t length = strcspn(rest, ".");
        snprintf(name, sizeof name, "%.*s", (int)length, rest);
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
        assert(field && "a field path in a table that the .proto does not have");
        if (!rest[length])
            return read_field(message, field, value, path, err);
        ProtobufCMessage **child = member(message, field);
        assert(field->type == PROTOBUF_C_TYPE_MESSAGE);
        if (!*child)
            *child = draft_message_new(field->descriptor);
        message = *child;
        rest += length + 1;
    }
}
