/* The JPEG encoder's first two steps as ops/jpeg_size.c computes them, so that they can be held against another
 * implementation, and its constants, for other backends. Thread: pure functions. */
#ifndef DRAFT_OPS_JPEG_H
#define DRAFT_OPS_JPEG_H

#include "backend/shapes.h"

/* RGB in [0, 1] -> Y, Cb, Cr, each less 128. */
void draft_jpeg_ycbcr(const float *rgb, double *ycbcr);
/* Orthonormal 8x8 DCT-II, row by row. */
void draft_jpeg_dct(const double *block, double *frequencies);
/* quality: 1 to 100 */
struct draft_jpeg_model draft_jpeg_model(int quality);

#endif
