/*
 * Building protobuf-c messages on the heap, as protobuf_c_message_free_unpacked() frees them, and the small memory the
 * daemon's own structures need. Small allocations end the process when memory is out: nothing sensible can follow, and
 * a restart loses nothing. Whatever a client or worker can make large is allocated with malloc and checked instead.
 * Thread: pure functions.
 */
#ifndef DRAFTD_MESSAGE_H
#define DRAFTD_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

void *draftd_new(size_t bytes); /* zeroed; free() it */
void *draftd_grow(void *array, size_t bytes);
char *draftd_strdup(const char *text);
char *draftd_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

void *draftd_message_new(const ProtobufCMessageDescriptor *descriptor);
void *draftd_message_copy(const void *message); /* deep; the message must be one that packs */
/* Replaces a string field. "" and NULL give protobuf's own empty string. */
void draftd_message_string(char **field, const char *text);
/* Appends a pointer (a message, a string) to a repeated field. */
void draftd_message_append(void *array_field, size_t *count, void *element);
/* Frees any message; NULL is fine. */
void draftd_message_free(void *message);

/* Microseconds since the epoch; milliseconds of a clock that never jumps. */
int64_t draftd_now_us(void);
int64_t draftd_now_ms(void);

/* "job-12" -> 12; 0 when it is no such id. kind: "job", "preview". */
int64_t draftd_parse_id(const char *kind, const char *id);

/* A sentence from a worker or a file made fit for logs, messages and the database: valid UTF-8, no control characters,
 * cut to `capacity` bytes. */
void draftd_clean_text(char *out, size_t capacity, const char *text);

#endif
