#include "picture_grid.h"

#include <cairo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "canvas.h"

/* Points; the PNG has two pixels a point. */
enum { MARGIN = 20, GAP = 6, LABEL = 11, TITLE = 15, NOTE = 10, CAPTION = 9, CELL_LEAST = 80, CELL_MOST = 192 };

void draft_grid_init(struct draft_grid *grid, int rows, int columns)
{
    grid->rows = rows;
    grid->columns = columns;
    grid->row_labels = calloc((size_t)rows + 1, sizeof *grid->row_labels);
    grid->column_labels = calloc((size_t)columns + 1, sizeof *grid->column_labels);
    grid->cells = calloc((size_t)rows * (size_t)columns + 1, sizeof *grid->cells);
    if (!grid->row_labels || !grid->column_labels || !grid->cells)
        abort();
}

void draft_grid_clear(struct draft_grid *grid)
{
    free(grid->row_labels);
    free(grid->column_labels);
    free(grid->cells);
    grid->row_labels = grid->column_labels = NULL;
    grid->cells = NULL;
}

struct draft_grid_cell *draft_grid_at(struct draft_grid *grid, int row, int column)
{
    return &grid->cells[row * grid->columns + column];
}

struct reader {
    const uint8_t *bytes;
    size_t left;
};

static cairo_status_t read_piece(void *context, unsigned char *out, unsigned length)
{
    struct reader *reader = context;
    if (length > reader->left)
        return CAIRO_STATUS_READ_ERROR;
    memcpy(out, reader->bytes, length);
    reader->bytes += length;
    reader->left -= length;
    return CAIRO_STATUS_SUCCESS;
}

static cairo_surface_t *decode(const struct draft_grid_cell *cell, struct draft_error *err)
{
    struct reader reader = {.bytes = cell->png, .left = cell->bytes};
    cairo_surface_t *surface = cairo_image_surface_create_from_png_stream(read_piece, &reader);
    if (cairo_surface_status(surface) == CAIRO_STATUS_SUCCESS)
        return surface;
    /* cairo's own words are about its internals ("out of memory" for bytes that are no PNG) */
    draft_fail(err, DRAFT_DATA_LOSS, "a picture of %zu bytes is not a readable PNG", cell->bytes);
    cairo_surface_destroy(surface);
    return NULL;
}

/* The side of a cell in points for pictures of `pixels`: whole pixels while that is neither tiny nor huge. */
static double cell_points(int pixels)
{
    double points = pixels / 2.0;
    if (points < CELL_LEAST)
        points *= ceil(CELL_LEAST / points);
    return points < CELL_MOST ? points : CELL_MOST;
}

static void paint(cairo_t *cr, cairo_surface_t *picture, double x, double y, double width, double height)
{
    int w = cairo_image_surface_get_width(picture), h = cairo_image_surface_get_height(picture);
    cairo_save(cr);
    cairo_translate(cr, x, y);
    cairo_scale(cr, width / w, height / h);
    cairo_set_source_surface(cr, picture, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(cr), 2 * width >= w ? CAIRO_FILTER_NEAREST : CAIRO_FILTER_GOOD);
    cairo_paint(cr);
    cairo_restore(cr);
}

static void soft(cairo_t *cr)
{
    cairo_set_source_rgb(cr, 0.4, 0.4, 0.4);
}

static void dark(cairo_t *cr)
{
    cairo_set_source_rgb(cr, 0.13, 0.13, 0.13);
}

/* A label that is too wide for its place gets a smaller letter, down to 7 points. */
static void fit_text(cairo_t *cr, const char *text, double x, double y, double size, bool bold, double align,
                     double room)
{
    double width = draft_canvas_text_width(cr, text, size, bold);
    if (width > room)
        size = fmax(size * room / width, 7);
    draft_canvas_text(cr, text, x, y, size, bold, align);
}

/* Many seeds of few models would make a tower: the rows are cut into blocks, which stand side by side. */
struct layout {
    double label, top, width, height, caption; /* of the row labels, of the first row, of a cell */
    int blocks, rows;                          /* side by side; rows of each */
};

static double block_width(const struct draft_grid *grid, const struct layout *at)
{
    return at->label + grid->columns * (at->width + GAP) + 2 * GAP;
}

static double cell_left(const struct draft_grid *grid, const struct layout *at, int row, int column)
{
    return MARGIN + row / at->rows * block_width(grid, at) + at->label + column * (at->width + GAP);
}

static double cell_top(const struct layout *at, int row)
{
    return at->top + row % at->rows * (at->height + at->caption + GAP);
}

static bool draw_cells(cairo_t *cr, const struct draft_grid *grid, const struct layout *at, struct draft_error *err)
{
    for (int r = 0; r < grid->rows; r++)
        for (int c = 0; c < grid->columns; c++) {
            const struct draft_grid_cell *cell = &grid->cells[r * grid->columns + c];
            double x = cell_left(grid, at, r, c), y = cell_top(at, r);
            if (!cell->png)
                continue;
            cairo_surface_t *picture = decode(cell, err);
            if (!picture)
                return false;
            paint(cr, picture, x, y, at->width, at->height);
            cairo_surface_destroy(picture);
            soft(cr);
            if (*cell->caption)
                draft_canvas_text(cr, cell->caption, x + at->width / 2, y + at->height + 10, CAPTION, false, 0.5);
        }
    return true;
}

static void draw_labels(cairo_t *cr, const struct draft_grid *grid, const struct layout *at)
{
    for (int block = 0; block < at->blocks; block++)
        for (int c = 0; c < grid->columns; c++) {
            const struct draft_grid_label *label = &grid->column_labels[c];
            double x = cell_left(grid, at, block * at->rows, c) + at->width / 2, y = at->top - 6;
            soft(cr);
            fit_text(cr, label->more, x, y, NOTE, false, 0.5, at->width + GAP);
            dark(cr);
            fit_text(cr, label->text, x, *label->more ? y - 13 : y, LABEL, true, 0.5, at->width + GAP);
        }
    dark(cr);
    for (int r = 0; r < grid->rows; r++)
        draft_canvas_text(cr, grid->row_labels[r].text, cell_left(grid, at, r, 0) - 8,
                          cell_top(at, r) + at->height / 2 + 4, LABEL, false, 1);
}

static bool measure(const struct draft_grid *grid, struct layout *at, struct draft_error *err)
{
    *at = (struct layout){.width = CELL_LEAST, .height = CELL_LEAST};
    for (int i = 0; i < grid->rows * grid->columns; i++) {
        const struct draft_grid_cell *cell = &grid->cells[i];
        if (*cell->caption)
            at->caption = 14;
        if (!cell->png)
            continue;
        cairo_surface_t *picture = decode(cell, err);
        if (!picture)
            return false;
        int w = cairo_image_surface_get_width(picture), h = cairo_image_surface_get_height(picture);
        double side = cell_points(w > h ? w : h) / (w > h ? w : h);
        at->width = fmax(at->width, w * side);
        at->height = fmax(at->height, h * side);
        cairo_surface_destroy(picture);
    }
    return true;
}

bool draft_grid_png(const struct draft_grid *grid, const char *path, struct draft_error *err)
{
    struct layout at;
    struct draft_canvas canvas, scratch;
    if (!measure(grid, &at, err) || !draft_canvas_open(&scratch, 1, 1, 1, err))
        return false;
    for (int r = 0; r < grid->rows; r++)
        at.label = fmax(at.label, draft_canvas_text_width(scratch.cr, grid->row_labels[r].text, LABEL, false) + 12);
    double title = draft_canvas_text_width(scratch.cr, grid->title, TITLE, true);
    at.blocks = (int)fmax(1, round(sqrt((double)grid->rows / grid->columns)));
    at.rows = (grid->rows + at.blocks - 1) / at.blocks;
    at.blocks = (grid->rows + at.rows - 1) / at.rows;
    double body = at.blocks * block_width(grid, &at) - 3 * GAP;
    double width = fmax(body, fmin(title, 700)) + 2 * MARGIN;
    double note = grid->note ? draft_canvas_wrap(scratch.cr, grid->note, 0, 0, width - 2 * MARGIN, NOTE) : 0;
    cairo_destroy(scratch.cr);
    cairo_surface_destroy(scratch.surface);

    double head = 0; /* of the column labels */
    for (int c = 0; c < grid->columns; c++)
        head = fmax(head, *grid->column_labels[c].more ? 32 : *grid->column_labels[c].text ? 19 : 0);
    at.top = MARGIN + TITLE + 16 + note + head;
    double height = at.top + at.rows * (at.height + at.caption + GAP) - GAP + MARGIN;
    if (!draft_canvas_open(&canvas, width, height, 2, err))
        return false;
    dark(canvas.cr);
    fit_text(canvas.cr, grid->title, MARGIN, MARGIN + TITLE, TITLE, true, 0, width - 2 * MARGIN);
    soft(canvas.cr);
    if (grid->note)
        draft_canvas_wrap(canvas.cr, grid->note, MARGIN, MARGIN + TITLE + 18, width - 2 * MARGIN, NOTE);
    draw_labels(canvas.cr, grid, &at);
    if (!draw_cells(canvas.cr, grid, &at, err)) {
        cairo_destroy(canvas.cr);
        cairo_surface_destroy(canvas.surface);
        return false;
    }
    return draft_canvas_write(&canvas, path, err);
}
