/*
 * A labelled grid of pictures as one PNG. Small pictures are enlarged by a whole factor without smoothing, so that
 * every pixel of a 64 x 64 picture stays what it is.
 */
#ifndef DRAFT_CLIENT_PICTURE_GRID_H
#define DRAFT_CLIENT_PICTURE_GRID_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct draft_grid_cell {
    const uint8_t *png; /* NULL: an empty place */
    size_t bytes;
    char caption[32]; /* below the picture; "" : none */
};

struct draft_grid_label {
    char text[96], more[96]; /* `more`: a second, softer line */
};

struct draft_grid {
    const char *title, *note;
    int rows, columns;
    struct draft_grid_label *row_labels, *column_labels;
    struct draft_grid_cell *cells; /* row by row */
};

/* Allocates labels and cells (zeroed); draft_grid_clear() frees them, not the PNG bytes. */
void draft_grid_init(struct draft_grid *grid, int rows, int columns);
void draft_grid_clear(struct draft_grid *grid);
struct draft_grid_cell *draft_grid_at(struct draft_grid *grid, int row, int column);

bool draft_grid_png(const struct draft_grid *grid, const char *path, struct draft_error *err);

#endif
