/*
 * Frames: a 4-byte little-endian length (at most DRAFTD_FRAME_MAX) and as many bytes, over a stream socket. Both ends
 * treat the other's bytes as hostile: a length is checked before anything is allocated, a frame cut short is an error.
 *
 * Thread: one reader and one writer at a time for one descriptor.
 */
#ifndef DRAFTD_WORKER_FRAMES_H
#define DRAFTD_WORKER_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DRAFTD_FRAME_MAX = 16 * 1024 * 1024 };

enum draftd_frame_result { DRAFTD_FRAME_OK, DRAFTD_FRAME_END, DRAFTD_FRAME_FAILED };

/* Blocks for one whole frame. OK: *data is malloc'd (never NULL, even for an empty frame) and the caller's. END: the
 * peer closed between two frames. FAILED: err says why. */
enum draftd_frame_result draftd_frame_read(int fd, uint8_t **data, size_t *size, struct draft_error *err);

/* Blocks until all is handed to the socket. Never raises SIGPIPE. */
bool draftd_frame_write(int fd, const uint8_t *data, size_t size, struct draft_error *err);

#endif
