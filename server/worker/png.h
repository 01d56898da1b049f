/*
 * PNG files with their parameters inside: the text chunks `parameters` (as A1111 and ComfyUI write and read them) and
 * `draftd` (JSON). Written atomically. Thread: any.
 */
#ifndef DRAFTD_WORKER_PNG_H
#define DRAFTD_WORKER_PNG_H

#include <stdint.h>

#include "base/error.h"

/* rgb [height, width, 3] in [0, 1], rounded to 8 bits as diffusers does. Texts are UTF-8: tEXt when they are Latin-1's
 * ASCII part, iTXt otherwise; NULL leaves a chunk out. *bytes (may be NULL) receives the file's size. */
bool draftd_png_write(const char *path, const float *rgb, int height, int width, const char *parameters,
                      const char *draftd, uint64_t *bytes, struct draft_error *err);

#endif
