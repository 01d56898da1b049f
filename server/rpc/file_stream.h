/*
 * A file going out in pieces. It is opened once: what happens to its name afterwards (deletion of the job, the unlink
 * of an export) does not disturb the reader. Thread: one at a time.
 */
#ifndef DRAFTD_RPC_FILE_STREAM_H
#define DRAFTD_RPC_FILE_STREAM_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "base/error.h"

#define DRAFTD_PIECE (64 * 1024) /* bytes of file a message */

struct draftd_file_stream;

struct draftd_file_stream *draftd_file_stream_open(const char *path, struct draft_error *err);
void draftd_file_stream_close(struct draftd_file_stream *stream);
uint64_t draftd_file_stream_total(const struct draftd_file_stream *stream);
/* Fills *piece (heap memory, the message's) with the next bytes; none for an empty file. *end: it was the last. A file
 * that is shorter than it was at open is an error, never a short copy. */
bool draftd_file_stream_next(struct draftd_file_stream *stream, ProtobufCBinaryData *piece, bool *end,
                             struct draft_error *err);

#endif
