#include <cairo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "canvas.h"
#include "plot.h"
#include "ticks.h"

enum { MARGIN = 22, TITLE_SIZE = 16, NOTE_SIZE = 11, LABEL_SIZE = 12, TICK_SIZE = 11, LEGEND_SIZE = 12 };

static const struct draft_rgb ink = {0.13, 0.13, 0.13}, soft = {0.40, 0.40, 0.40}, grid = {0.90, 0.90, 0.90};

struct panel {
    double left, top, width, height; /* of the plotting area, points */
    double x0, x1, y0, y1;           /* of the data */
};

static double to_x(const struct panel *p, double x)
{
    return p->left + (x - p->x0) / (p->x1 - p->x0) * p->width;
}

static double to_y(const struct panel *p, double y)
{
    return p->top + (p->y1 - y) / (p->y1 - p->y0) * p->height;
}

static void colour(cairo_t *cr, struct draft_rgb c, double alpha)
{
    cairo_set_source_rgba(cr, c.r, c.g, c.b, alpha);
}

/* --- Marks and lines -----------------------------------------------------------------------------------------------
 */

static void polygon(cairo_t *cr, double x, double y, double radius, int corners, double turn, double inner)
{
    int points = inner > 0 ? 2 * corners : corners;
    for (int i = 0; i < points; i++) {
        double angle = turn + 2 * M_PI * i / points, r = inner > 0 && i % 2 ? inner * radius : radius;
        cairo_line_to(cr, x + r * cos(angle), y + r * sin(angle));
    }
    cairo_close_path(cr);
}

static void mark(cairo_t *cr, double x, double y, double r, int shape, struct draft_rgb c)
{
    cairo_new_path(cr);
    switch (shape % 6) {
    case 0:
        cairo_arc(cr, x, y, r, 0, 2 * M_PI);
        break;
    case 1:
        cairo_rectangle(cr, x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
        break;
    case 2:
        polygon(cr, x, y + 0.15 * r, 1.25 * r, 3, -M_PI / 2, 0);
        break;
    case 3:
        polygon(cr, x, y, 1.25 * r, 4, -M_PI / 2, 0);
        break;
    case 4:
        polygon(cr, x, y + 0.1 * r, 1.7 * r, 5, -M_PI / 2, 0.42);
        break;
    default:
        polygon(cr, x, y - 0.15 * r, 1.25 * r, 3, M_PI / 2, 0);
        break;
    }
    colour(cr, c, 1);
    cairo_fill_preserve(cr);
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_set_line_width(cr, 0.8);
    cairo_stroke(cr);
}

static void path_of(cairo_t *cr, const struct panel *p, const struct draft_line *line, const double *y)
{
    bool joined = false;
    cairo_new_path(cr);
    for (size_t i = 0; i < line->count; i++) {
        bool good = isfinite(line->x[i]) && isfinite(y[i]);
        if (good && joined)
            cairo_line_to(cr, to_x(p, line->x[i]), to_y(p, y[i]));
        else if (good)
            cairo_move_to(cr, to_x(p, line->x[i]), to_y(p, y[i]));
        joined = good;
    }
}

static void band(cairo_t *cr, const struct panel *p, const struct draft_line *line)
{
    cairo_new_path(cr);
    for (size_t i = 0; i < line->count; i++)
        if (isfinite(line->high[i]))
            cairo_line_to(cr, to_x(p, line->x[i]), to_y(p, line->high[i]));
    for (size_t i = line->count; i-- > 0;)
        if (isfinite(line->low[i]))
            cairo_line_to(cr, to_x(p, line->x[i]), to_y(p, line->low[i]));
    cairo_close_path(cr);
    colour(cr, line->colour, 0.15);
    cairo_fill(cr);
}

/* A centred moving mean over a tenth of the points: the course of a noisy series. */
static void smooth(const struct draft_line *line, double *out)
{
    long reach = (long)line->count / 20;
    for (long i = 0; i < (long)line->count; i++) {
        double sum = 0;
        int n = 0;
        for (long k = i - reach; k <= i + reach; k++)
            if (k >= 0 && k < (long)line->count && isfinite(line->y[k])) {
                sum += line->y[k];
                n++;
            }
        out[i] = n ? sum / n : NAN;
    }
}

static void draw_line(cairo_t *cr, const struct panel *p, const struct draft_line *line)
{
    static const double dashes[] = {6, 4};
    const double *y = line->y;
    double *smoothed = NULL;
    if (line->count == 0)
        return;
    if (line->low && line->high)
        band(cr, p, line);
    if (line->style == DRAFT_LINE_SMOOTH && line->count >= 20 && (smoothed = malloc(line->count * sizeof *smoothed))) {
        path_of(cr, p, line, y);
        colour(cr, line->colour, 0.3);
        cairo_set_line_width(cr, 1);
        cairo_stroke(cr);
        smooth(line, smoothed);
        y = smoothed;
    }
    if (line->style != DRAFT_MARKS) {
        path_of(cr, p, line, y);
        colour(cr, line->colour, 1);
        cairo_set_line_width(cr, line->style == DRAFT_LINE_DASHED ? 1.3 : 2);
        cairo_set_dash(cr, dashes, line->style == DRAFT_LINE_DASHED ? 2 : 0, 0);
        cairo_stroke(cr);
        cairo_set_dash(cr, NULL, 0, 0);
    }
    if (line->style == DRAFT_MARKS || line->style == DRAFT_LINE_MARKED)
        for (size_t i = 0; i < line->count; i++)
            if (isfinite(line->x[i]) && isfinite(line->y[i]))
                mark(cr, to_x(p, line->x[i]), to_y(p, line->y[i]), line->style == DRAFT_MARKS ? 5.5 : 3.4, line->mark,
                     line->colour);
    free(smoothed);
}

static void end_notes(cairo_t *cr, const struct panel *p, const struct draft_axes *axes)
{
    for (int l = 0; l < axes->count; l++) {
        const struct draft_line *line = &axes->lines[l];
        size_t last = line->count;
        while (last > 0 && !(isfinite(line->x[last - 1]) && isfinite(line->y[last - 1])))
            last--;
        if (!line->end_note || last == 0)
            continue;
        double x = to_x(p, line->x[last - 1]) + 8, y = to_y(p, line->y[last - 1]) + 4;
        double wide = draft_canvas_text_width(cr, line->end_note, TICK_SIZE, false);
        if (x + wide > p->left + p->width)
            x -= wide + 16;
        colour(cr, line->colour, 1);
        draft_canvas_text(cr, line->end_note, x, y, TICK_SIZE, false, 0);
    }
}

/* --- Axes ----------------------------------------------------------------------------------------------------------
 */

static void draw_grid(cairo_t *cr, const struct panel *p, const struct draft_ticks *x, const struct draft_ticks *y)
{
    char text[32];
    cairo_set_line_width(cr, 1);
    for (int i = 0; i < y->count; i++) {
        double at = to_y(p, draft_tick(y, i));
        colour(cr, grid, 1);
        cairo_move_to(cr, p->left, at);
        cairo_line_to(cr, p->left + p->width, at);
        cairo_stroke(cr);
        colour(cr, soft, 1);
        draft_canvas_text(cr, draft_tick_label(y, i, text, sizeof text), p->left - 8, at + 4, TICK_SIZE, false, 1);
    }
    for (int i = 0; i < x->count; i++) {
        double at = to_x(p, draft_tick(x, i)), foot = p->top + p->height;
        colour(cr, grid, 1);
        cairo_move_to(cr, at, p->top);
        cairo_line_to(cr, at, foot);
        cairo_stroke(cr);
        colour(cr, soft, 1);
        draft_canvas_text(cr, draft_tick_label(x, i, text, sizeof text), at, foot + 16, TICK_SIZE, false, 0.5);
    }
    colour(cr, soft, 1);
    cairo_move_to(cr, p->left, p->top);
    cairo_line_to(cr, p->left, p->top + p->height);
    cairo_line_to(cr, p->left + p->width, p->top + p->height);
    cairo_stroke(cr);
}

static void draw_axes(cairo_t *cr, const struct draft_axes *axes, double left, double top, double width, double height)
{
    struct panel p = {.left = left + 62, .top = top + (axes->title ? 26 : 10), .width = width - 62 - 14};
    p.height = top + height - 44 - p.top;
    colour(cr, ink, 1);
    if (axes->title)
        draft_canvas_text(cr, axes->title, p.left, top + 14, LABEL_SIZE, true, 0);
    if (!draft_axes_range(axes, 0.06, &p.x0, &p.x1, &p.y0, &p.y1)) {
        colour(cr, soft, 1);
        draft_canvas_text(cr, "no points yet", p.left + p.width / 2, p.top + p.height / 2, LABEL_SIZE, false, 0.5);
        return;
    }
    struct draft_ticks x = draft_ticks(p.x0, p.x1, (int)fmax(p.width / 90, 2), axes->whole_x);
    struct draft_ticks y = draft_ticks(p.y0, p.y1, (int)fmax(p.height / 40, 3), false);
    draw_grid(cr, &p, &x, &y);
    for (int l = 0; l < axes->count; l++)
        draw_line(cr, &p, &axes->lines[l]);
    end_notes(cr, &p, axes);
    colour(cr, ink, 1);
    draft_canvas_text(cr, axes->x_label, p.left + p.width / 2, p.top + p.height + 36, LABEL_SIZE, false, 0.5);
    cairo_save(cr);
    cairo_translate(cr, left + 14, p.top + p.height / 2);
    cairo_rotate(cr, -M_PI / 2);
    draft_canvas_text(cr, axes->y_label, 0, 0, LABEL_SIZE, false, 0.5);
    cairo_restore(cr);
}

/* The lines' names in rows below the title; returns the height taken. Panels usually repeat the same lines, so a name
 * is listed once. cr NULL-draw: `draw` false only measures. */
static double legend(cairo_t *cr, const struct draft_figure *figure, double left, double top, double width, bool draw)
{
    double x = left, y = top + 14;
    const char *seen[DRAFT_PLOT_LINES];
    int count = 0;
    for (int a = 0; a < figure->count; a++)
        for (int l = 0; l < figure->axes[a].count; l++) {
            const struct draft_line *line = &figure->axes[a].lines[l];
            bool known = !line->label || count == DRAFT_PLOT_LINES;
            for (int i = 0; i < count && !known; i++)
                known = !strcmp(seen[i], line->label);
            if (known)
                continue;
            seen[count++] = line->label;
            double wide = 34 + draft_canvas_text_width(cr, line->label, LEGEND_SIZE, false) + 18;
            if (x + wide - 18 > left + width && x > left) {
                x = left;
                y += 20;
            }
            if (draw) {
                double xs[] = {x, x + 26}, ys[] = {y - 4, y - 4};
                struct panel unit = {.width = 1, .height = -1, .x1 = 1, .y1 = 1, .top = 1};
                struct draft_line sample = *line;
                sample.x = xs;
                sample.y = ys;
                sample.low = sample.high = NULL;
                sample.count = 2;
                if (line->style == DRAFT_MARKS || line->style == DRAFT_LINE_MARKED)
                    sample.style = DRAFT_LINE;
                if (line->style != DRAFT_MARKS)
                    draw_line(cr, &unit, &sample);
                if (sample.style != line->style)
                    mark(cr, x + 13, y - 4, line->style == DRAFT_MARKS ? 5.5 : 3.8, line->mark, line->colour);
                colour(cr, ink, 1);
                draft_canvas_text(cr, line->label, x + 34, y, LEGEND_SIZE, false, 0);
            }
            x += wide;
        }
    return count > 1 ? y - top + 8 : 0;
}

bool draft_figure_png(const struct draft_figure *figure, const char *path, struct draft_error *err)
{
    int columns = figure->columns > 0 ? figure->columns : 1, rows = (figure->count + columns - 1) / columns;
    double width = figure->width > 0 ? figure->width : columns > 1 ? 480 * columns : 860;
    double height = figure->height > 0 ? figure->height : rows > 1 ? 90 + 250 * rows : columns > 1 ? 420 : 540;
    struct draft_canvas canvas;
    if (!draft_canvas_open(&canvas, width, height, 2, err))
        return false;
    cairo_t *cr = canvas.cr;
    double y = MARGIN + TITLE_SIZE;
    colour(cr, ink, 1);
    draft_canvas_text(cr, figure->title, MARGIN, y, TITLE_SIZE, true, 0);
    y += 8;
    if (figure->note) {
        colour(cr, soft, 1);
        y += draft_canvas_wrap(cr, figure->note, MARGIN, y + 10, width - 2 * MARGIN, NOTE_SIZE);
    }
    if (legend(cr, figure, MARGIN, y, width - 2 * MARGIN, false) > 0)
        y += 6 + legend(cr, figure, MARGIN, y + 6, width - 2 * MARGIN, true);
    y += 8;
    double wide = (width - 2 * MARGIN + 10) / columns, high = (height - y - 8) / (rows > 0 ? rows : 1);
    for (int a = 0; a < figure->count; a++)
        draw_axes(cr, &figure->axes[a], MARGIN - 10 + a % columns * wide, y + a / columns * high, wide, high);
    return draft_canvas_write(&canvas, path, err);
}
