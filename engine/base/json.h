/*
 * Reading configuration: jansson, with sentences. Every getter names the file, the key, what was expected and what
 * was found. Files are hostile: size, depth and number ranges are bounded.
 *
 * A struct draft_json is a cursor on an object of a parsed file; it remembers which keys were read, so that
 * draft_json_finish() can refuse a key that nobody understood.
 */
#ifndef DRAFT_BASE_JSON_H
#define DRAFT_BASE_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct draft_json;

/* Parses a file of at most 16 MiB holding one object. The caller closes. Bare NaN, Infinity and -Infinity, as Python
 * writes them, are read as strings. */
struct draft_json *draft_json_open(const char *path, struct draft_error *err);
struct draft_json *draft_json_parse(const char *text, size_t length, const char *shown_name, struct draft_error *err);
void draft_json_close(struct draft_json *json); /* NULL is fine; children die with their root */

bool draft_json_has(struct draft_json *json, const char *key);  /* present and not null */
bool draft_json_null(struct draft_json *json, const char *key); /* present and null, where that differs from absent */

/* Absent or null keys give the default. A value of another type or out of range is refused. */
bool draft_json_int(struct draft_json *json, const char *key, int64_t min, int64_t max, int64_t fallback, int64_t *out,
                    struct draft_error *err);
bool draft_json_double(struct draft_json *json, const char *key, double fallback, double *out, struct draft_error *err);
bool draft_json_bool(struct draft_json *json, const char *key, bool fallback, bool *out, struct draft_error *err);
/* The string lives as long as the root. */
bool draft_json_string(struct draft_json *json, const char *key, const char *fallback, const char **out,
                       struct draft_error *err);
/* An array, or one integer standing for all: count is -1 then and out[0] holds it. Absent: count 0. */
bool draft_json_ints(struct draft_json *json, const char *key, int64_t min, int64_t max, int64_t *out, int capacity,
                     int *count, struct draft_error *err);
bool draft_json_strings(struct draft_json *json, const char *key, const char **out, int capacity, int *count,
                        struct draft_error *err);
bool draft_json_doubles(struct draft_json *json, const char *key, double *out, int capacity, int *count,
                        struct draft_error *err);
/* A child object, owned by the root. NULL without error when absent. */
struct draft_json *draft_json_child(struct draft_json *json, const char *key, struct draft_error *err);
/* Iterates the keys of an object (tokenizer vocabularies); value types are checked by the getter used afterwards. */
int draft_json_size(const struct draft_json *json);
bool draft_json_each(struct draft_json *json, void *context,
                     bool (*visit)(void *context, const char *key, size_t key_length, int64_t value), int64_t min,
                     int64_t max, struct draft_error *err); /* an object whose values are all integers */

/* The same for an object whose values are all strings (the index of sharded weights). */
bool draft_json_each_string(struct draft_json *json, void *context,
                            bool (*visit)(void *context, const char *key, const char *value), struct draft_error *err);

/* The value must be absent, null or equal to the one this engine implements ("dropout", 0.0): otherwise refused with
 * the reason that it would change the result. `expected` is JSON text: "0.0", "false", "\"silu\"", "null". */
bool draft_json_require(struct draft_json *json, const char *key, const char *expected, struct draft_error *err);
/* Keys known to change nothing. NULL-terminated. */
void draft_json_ignore(struct draft_json *json, const char *const *keys);
/* Refuses any key that was neither read, required nor ignored. */
bool draft_json_finish(struct draft_json *json, struct draft_error *err);

#endif
