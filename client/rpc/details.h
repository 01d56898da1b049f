/* What grpc-status-details-bin holds: a packed google.rpc.Status with ErrorInfo and BadRequest. */
#ifndef DRAFT_CLIENT_RPC_DETAILS_H
#define DRAFT_CLIENT_RPC_DETAILS_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* Fills st->field and st->reason from the bytes; anything malformed or unknown is passed over. */
void draft_details_parse(const uint8_t *bytes, size_t length, struct draft_status *st);

#endif
