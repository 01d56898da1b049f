/*
 * What a failed call tells its client: a gRPC code, a sentence, and a google.rpc.Status in grpc-status-details-bin with
 * an ErrorInfo and, for a bad field, a BadRequest. The one place where error codes become gRPC codes.
 *
 * Sizes: a client takes 8 KB of trailers; beyond that it loses code and sentence. The sentence travels percent-encoded
 * (up to 3 bytes a byte), the details in base64 and with the sentence twice in them: 1 KB of sentence stays below.
 */
#ifndef DRAFTD_RPC_STATUS_H
#define DRAFTD_RPC_STATUS_H

#include <grpc/status.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DRAFTD_STATUS_MESSAGE 1024 /* bytes, with the NUL */
#define DRAFTD_STATUS_DETAILS 4096 /* bytes of packed google.rpc.Status */
#define DRAFTD_ERROR_DOMAIN   "draftd"

struct draftd_status {
    grpc_status_code code;
    const char *reason; /* UPPER_SNAKE, static */
    char message[DRAFTD_STATUS_MESSAGE];
    char field[96]; /* ErrorInfo.metadata "field", and a BadRequest */
    int limit;      /* ErrorInfo.metadata "limit": what was reached; 0: none */
};

/* A failure of the transport itself. */
void draftd_status_set(struct draftd_status *status, grpc_status_code code, const char *reason, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* An error of a handler. A DRAFT_INTERNAL's own words are for the log: the client gets a plain sentence. */
void draftd_status_from_error(struct draftd_status *status, const struct draft_error *err);

/* Packs the google.rpc.Status into out[DRAFTD_STATUS_DETAILS] and returns its size. */
size_t draftd_status_details(const struct draftd_status *status, uint8_t *out);

#endif
