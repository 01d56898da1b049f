/*
 * Messages from outside and to the outside. protobuf-c leaves open what a hostile or sloppy peer may send: it keeps
 * text that is not UTF-8, cuts strings at a NUL, drops half of a sub-message sent twice, and turns 1 MiB into 44 MiB of
 * small allocations. Everything is checked on the raw bytes, along the descriptors, before it unpacks.
 */
#ifndef DRAFTD_RPC_WIRE_H
#define DRAFTD_RPC_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/status.h"

#define DRAFTD_MAX_REQUEST       (1024 * 1024)      /* bytes on the wire */
#define DRAFTD_MAX_REPLY         (4 * 1024 * 1024)  /* a gRPC client's usual receive limit */
#define DRAFTD_UNPACK_BUDGET     (16 * 1024 * 1024) /* bytes of heap for one unpacked request */
#define DRAFTD_UNPACK_BUDGET_ALL (64 * 1024 * 1024) /* for all requests being handled */

/* Heap of one unpacked request, counted. Zeroed at the start; dies with the message. */
struct draftd_budget {
    size_t used, limit;
    bool exceeded;
    ProtobufCAllocator allocator;
};

/* Checks and unpacks. NULL with status set (INVALID_ARGUMENT or RESOURCE_EXHAUSTED) otherwise. The message is freed
 * with draftd_unpacked_free() and the same budget. */
ProtobufCMessage *draftd_unpack(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t size,
                                struct draftd_budget *budget, struct draftd_status *status);
void draftd_unpacked_free(ProtobufCMessage *message, struct draftd_budget *budget);

/* Walks a message's bytes: strings are UTF-8 without NUL, single sub-messages come once, nesting is bounded, lengths
 * fit. False with status set: INVALID_ARGUMENT naming the field ("spec.rewards[1].path"). */
bool draftd_wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t size,
                       struct draftd_status *status);

/* Replaces every byte that is no part of valid UTF-8 by '?': a peer refuses a whole message for one such byte. */
void draftd_scrub_text(char *text);
/* The same for every string of a message. */
void draftd_scrub_message(ProtobufCMessage *message);

#endif
