#include "canvas.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/utf8.h"

bool draft_canvas_open(struct draft_canvas *canvas, double width, double height, double scale, struct draft_error *err)
{
    canvas->surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(width * scale), (int)ceil(height * scale));
    canvas->cr = cairo_create(canvas->surface);
    if (cairo_status(canvas->cr) != CAIRO_STATUS_SUCCESS) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "cannot draw a picture of %.0f x %.0f pixels: %s", width * scale,
                   height * scale, cairo_status_to_string(cairo_status(canvas->cr)));
        cairo_destroy(canvas->cr);
        cairo_surface_destroy(canvas->surface);
        return false;
    }
    cairo_scale(canvas->cr, scale, scale);
    cairo_set_source_rgb(canvas->cr, 1, 1, 1);
    cairo_paint(canvas->cr);
    return true;
}

static cairo_status_t write_piece(void *file, const unsigned char *data, unsigned length)
{
    draft_atomic_write(file, data, length);
    return CAIRO_STATUS_SUCCESS; /* commit tells of a failure */
}

bool draft_canvas_write(struct draft_canvas *canvas, const char *path, struct draft_error *err)
{
    struct draft_atomic_file *file = draft_atomic_begin(path, err);
    bool good = false;
    cairo_surface_flush(canvas->surface);
    if (file) {
        cairo_status_t status = cairo_status(canvas->cr);
        if (status == CAIRO_STATUS_SUCCESS)
            status = cairo_surface_write_to_png_stream(canvas->surface, write_piece, file);
        if (status == CAIRO_STATUS_SUCCESS) {
            good = draft_atomic_commit(file, err);
        } else {
            draft_atomic_abort(file);
            draft_fail(err, DRAFT_INTERNAL, "cannot draw %s: %s", path, cairo_status_to_string(status));
        }
    }
    cairo_destroy(canvas->cr);
    cairo_surface_destroy(canvas->surface);
    return good;
}

/* cairo stops drawing for good at text that is not UTF-8. */
static const char *checked(const char *text)
{
    return draft_utf8_valid(text, strlen(text), NULL) ? text : "(not UTF-8)";
}

static void font(cairo_t *cr, double size, bool bold)
{
    cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
}

double draft_canvas_text_width(cairo_t *cr, const char *text, double size, bool bold)
{
    cairo_text_extents_t extents;
    font(cr, size, bold);
    cairo_text_extents(cr, checked(text), &extents);
    return extents.x_advance;
}

void draft_canvas_text(cairo_t *cr, const char *text, double x, double y, double size, bool bold, double align)
{
    double width = draft_canvas_text_width(cr, text, size, bold);
    cairo_move_to(cr, x - align * width, y);
    cairo_show_text(cr, checked(text));
    cairo_new_path(cr);
}

double draft_canvas_wrap(cairo_t *cr, const char *text, double x, double y, double width, double size)
{
    char line[512] = "";
    double top = y, high = size * 1.4;
    text = checked(text);
    while (*text) {
        char longer[512];
        size_t word = strcspn(text, " ");
        snprintf(longer, sizeof longer, "%s%s%.*s", line, *line ? " " : "", (int)word, text);
        if (*line && draft_canvas_text_width(cr, longer, size, false) > width) {
            draft_canvas_text(cr, line, x, y, size, false, 0);
            y += high;
            line[0] = 0;
            continue;
        }
        memcpy(line, longer, sizeof line);
        text += word + (text[word] == ' ');
    }
    if (*line) {
        draft_canvas_text(cr, line, x, y, size, false, 0);
        y += high;
    }
    return y - top;
}
