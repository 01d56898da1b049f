/* A white cairo picture of so many points, its text, and its way into a PNG file. */
#ifndef DRAFT_CLIENT_CANVAS_H
#define DRAFT_CLIENT_CANVAS_H

#include <cairo.h>
#include <stdbool.h>

#include "base/error.h"

struct draft_canvas {
    cairo_surface_t *surface;
    cairo_t *cr; /* in points */
};

/* `scale` pixels a point. */
bool draft_canvas_open(struct draft_canvas *canvas, double width, double height, double scale, struct draft_error *err);
/* Writes the PNG (whole or not at all) and closes the canvas, also on failure. */
bool draft_canvas_write(struct draft_canvas *canvas, const char *path, struct draft_error *err);

/* One line of text in the current colour; (x, y) is on its base line, at its left (align 0), middle (0.5), right (1).
 */
void draft_canvas_text(cairo_t *cr, const char *text, double x, double y, double size, bool bold, double align);
double draft_canvas_text_width(cairo_t *cr, const char *text, double size, bool bold);
/* Wraps at words; y is the first base line. Returns the height taken. */
double draft_canvas_wrap(cairo_t *cr, const char *text, double x, double y, double width, double size);

#endif
