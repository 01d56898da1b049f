#include "message.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/utf8.h"
#include "log.h"

static void *checked(void *memory)
{
    if (memory == NULL) {
        draftd_log(DRAFTD_ERROR, NULL, "out of memory for the daemon's own structures; jobs go on after a restart");
        abort();
    }
    return memory;
}

void *draftd_new(size_t bytes)
{
    return checked(calloc(1, bytes ? bytes : 1));
}

void *draftd_grow(void *array, size_t bytes)
{
    return checked(realloc(array, bytes ? bytes : 1));
}

char *draftd_strdup(const char *text)
{
    return checked(strdup(text ? text : ""));
}

char *draftd_format(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return checked(length < 0 ? NULL : text);
}

void *draftd_message_new(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = draftd_new(descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, message);
    return message;
}

void *draftd_message_copy(const void *message)
{
    const ProtobufCMessage *source = message;
    size_t size = protobuf_c_message_get_packed_size(source);
    uint8_t *packed = draftd_new(size);
    protobuf_c_message_pack(source, packed);
    void *copy = checked(protobuf_c_message_unpack(source->descriptor, NULL, size, packed));
    free(packed);
    return copy;
}

void draftd_message_string(char **field, const char *text)
{
    if (*field != (char *)protobuf_c_empty_string)
        free(*field);
    *field = text && *text ? draftd_strdup(text) : (char *)protobuf_c_empty_string;
}

void draftd_message_append(void *array_field, size_t *count, void *element)
{
    void **array;
    memcpy(&array, array_field, sizeof array);
    size_t n = *count;
    if ((n & (n - 1)) == 0) /* grows at powers of two */
        array = draftd_grow(array, (n ? 2 * n : 1) * sizeof *array);
    array[n] = element;
    *count = n + 1;
    memcpy(array_field, &array, sizeof array);
}

void draftd_message_free(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

int64_t draftd_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t draftd_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t draftd_parse_id(const char *kind, const char *id)
{
    size_t length = strlen(kind);
    if (id == NULL || strncmp(id, kind, length) != 0 || id[length] != '-')
        return 0;
    const char *digits = id + length + 1;
    if (*digits < '1' || *digits > '9' || strlen(digits) > 18)
        return 0;
    int64_t number = 0;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9')
            return 0;
        number = number * 10 + (*digits - '0');
    }
    return number;
}

void draftd_clean_text(char *out, size_t capacity, const char *text)
{
    assert(capacity > 4);
    size_t length = text ? strnlen(text, capacity - 1) : 0;
    memcpy(out, text ? text : "", length);
    size_t bad;
    while (length > 0 && !draft_utf8_valid(out, length, &bad)) {
        if (bad + 4 > length && length == capacity - 1)
            length = bad; /* a character cut by the limit */
        else
            out[bad] = '?';
    }
    out[length] = '\0';
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = ' ';
}
