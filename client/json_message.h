/*
 * Any protobuf-c message as JSON and back, by walking its descriptor.
 *
 * Names are the .proto's own (snake_case). Differences from proto3's JSON: 64-bit integers are JSON numbers (an
 * unsigned one above 2^63 - 1 is a string of digits); fields at their default are written too, so that scripts find
 * them, but an absent oneof member or sub-message is left out. As there: NaN and infinities are the strings "NaN",
 * "Infinity", "-Infinity"; enum values are their names; bytes are base64.
 */
#ifndef DRAFT_CLIENT_JSON_MESSAGE_H
#define DRAFT_CLIENT_JSON_MESSAGE_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

#include "base/error.h"

/* A new reference. */
json_t *draft_message_to_json(const ProtobufCMessage *message);
/* Prints with two spaces of indent (compact: on one line) and a newline. */
void draft_message_print(const ProtobufCMessage *message, bool compact, FILE *out);
void draft_json_print(const json_t *value, bool compact, FILE *out);

/* Reads `object` into the message, which came from draft_message_new(); fields not named stay as they are, lists are
 * replaced. Unknown keys are refused with a suggestion. err->field is the path, below `prefix` ("spec"). */
bool draft_message_from_json(ProtobufCMessage *message, const json_t *object, const char *prefix,
                             struct draft_error *err);

/* A message on the heap with all fields at their defaults; free with protobuf_c_message_free_unpacked(). */
ProtobufCMessage *draft_message_new(const ProtobufCMessageDescriptor *descriptor);

/* Sets the field at a path ("sampling.guidance") from a JSON value, making the messages on the way; "" is the
 * message itself. The path must exist (assert): it comes from a table, not from a user. */
bool draft_message_set(ProtobufCMessage *message, const char *path, const json_t *value, struct draft_error *err);

#endif
