/*
 * Figures of curves: the same description is drawn on a terminal and, through cairo, as a PNG. Nothing is copied: all
 * pointers must outlive the drawing. NaN points are left out and break the line.
 */
#ifndef DRAFT_CLIENT_PLOT_H
#define DRAFT_CLIENT_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "terminal.h"

/* Okabe and Ito's colours, safe for the colour-blind; and a dark-to-light ramp for things that have an order. */
struct draft_rgb {
    double r, g, b;
};
struct draft_rgb draft_palette(int index);
struct draft_rgb draft_ramp(double t); /* 0 dark violet .. 1 yellow-green */

enum draft_line_style {
    DRAFT_LINE,        /* a line */
    DRAFT_LINE_MARKED, /* a line with a mark at every point */
    DRAFT_MARKS,       /* marks alone */
    DRAFT_LINE_SMOOTH, /* the points faint, their moving mean strong */
    DRAFT_LINE_DASHED, /* a level to compare with */
};

struct draft_line {
    const char *label; /* in the legend; NULL: none */
    const double *x, *y;
    const double *low, *high; /* a band behind the line, or NULL */
    size_t count;
    struct draft_rgb colour;
    int mark; /* 0 circle, 1 square, 2 triangle, 3 diamond, 4 star ... */
    enum draft_line_style style;
    const char *end_note; /* small text at the last point, or NULL */
};

enum { DRAFT_PLOT_LINES = 64, DRAFT_PLOT_AXES = 6 };

struct draft_axes {
    const char *title, *x_label, *y_label;
    bool whole_x; /* x are steps */
    struct draft_line lines[DRAFT_PLOT_LINES];
    int count;
};

struct draft_figure {
    const char *title, *note; /* note: the protocol, smaller, wrapped */
    struct draft_axes axes[DRAFT_PLOT_AXES];
    int count;
    int columns;       /* panels side by side; 0: one */
    int width, height; /* of the whole, in points; 0: chosen. The PNG has two pixels a point. */
};

bool draft_figure_png(const struct draft_figure *figure, const char *path, struct draft_error *err);

/* One panel on a terminal, `columns` x `rows` characters. */
void draft_axes_print(const struct draft_axes *axes, const struct draft_terminal *terminal, int columns, int rows);

/* The range of the finite points with a margin of `margin` (a fraction); false when there is none. */
bool draft_axes_range(const struct draft_axes *axes, double margin, double *x0, double *x1, double *y0, double *y1);

#endif
