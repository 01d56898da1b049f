/* From options that name a field (struct draft_option's `path`) to that field of a message. */
#ifndef DRAFT_CLIENT_FIELDS_H
#define DRAFT_CLIENT_FIELDS_H

#include <protobuf-c/protobuf-c.h>

#include "arguments.h"

/* Sets every field that the command line names; repeated options make a list. Options of type REWARD are left to
 * spec.c. The message is on the heap (draft_message_new). */
bool draft_fields_from_arguments(ProtobufCMessage *message, const struct draft_arguments *arguments,
                                 struct draft_error *err);

#endif
