#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plot.h"
#include "text.h"
#include "ticks.h"

/*
 * A canvas of characters, each of 2 x 4 dots (braille) or, without UTF-8 or with several lines and no colour, of one
 * letter per line.
 */
struct canvas {
    int columns, rows;
    unsigned char *dots; /* braille bits of each cell */
    signed char *owner;  /* the line that drew there last; -1: none */
};

static const struct {
    enum draft_colour colour;
    char letter;
} pens[] = {{DRAFT_BLUE, 'a'},    {DRAFT_YELLOW, 'b'}, {DRAFT_GREEN, 'c'},
            {DRAFT_MAGENTA, 'd'}, {DRAFT_RED, 'e'},    {DRAFT_CYAN, 'f'}};

static int pen_of(int line)
{
    return line % (int)(sizeof pens / sizeof pens[0]);
}

static void dot(struct canvas *c, int x, int y, int line)
{
    static const unsigned char bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x < 0 || y < 0 || x >= 2 * c->columns || y >= 4 * c->rows)
        return;
    int cell = y / 4 * c->columns + x / 2;
    c->dots[cell] |= bits[y % 4][x % 2];
    c->owner[cell] = (signed char)(line < 127 ? line : 127);
}

static void stroke(struct canvas *c, int x0, int y0, int x1, int y1, int line)
{
    int steps = abs(x1 - x0) > abs(y1 - y0) ? abs(x1 - x0) : abs(y1 - y0);
    for (int i = 0; i <= steps; i++) {
        double f = steps ? (double)i / steps : 0;
        dot(c, (int)lround(x0 + f * (x1 - x0)), (int)lround(y0 + f * (y1 - y0)), line);
    }
}

static void draw_line(struct canvas *c, const struct draft_line *line, int number, const double range[4])
{
    bool joined = false;
    int px = 0, py = 0, right = 2 * c->columns - 1, bottom = 4 * c->rows - 1;
    for (size_t i = 0; i < line->count; i++) {
        if (!isfinite(line->x[i]) || !isfinite(line->y[i])) {
            joined = false;
            continue;
        }
        int x = (int)lround((line->x[i] - range[0]) / (range[1] - range[0]) * right);
        int y = (int)lround((range[3] - line->y[i]) / (range[3] - range[2]) * bottom);
        if (joined && line->style != DRAFT_MARKS)
            stroke(c, px, py, x, y, number);
        else
            dot(c, x, y, number);
        if (line->style == DRAFT_MARKS || line->style == DRAFT_LINE_MARKED)
            for (int d = 0; d < 4; d++)
                dot(c, x + (d & 1), y + (d >> 1), number);
        px = x;
        py = y;
        joined = true;
    }
}

static void print_cell(const struct canvas *c, int cell, const struct draft_terminal *t, bool letters, int *ink)
{
    int owner = c->owner[cell];
    if (owner < 0) {
        fputc(' ', t->out);
        return;
    }
    if (*ink != owner)
        fputs(draft_ink(t, pens[pen_of(owner)].colour), t->out);
    *ink = owner;
    if (letters) {
        fputc(pens[pen_of(owner)].letter, t->out);
        return;
    }
    unsigned code = 0x2800u + c->dots[cell];
    fprintf(t->out, "%c%c%c", (char)(0xe0 | code >> 12), (char)(0x80 | (code >> 6 & 63)), (char)(0x80 | (code & 63)));
}

static void print_legend(const struct draft_axes *axes, const struct draft_terminal *t, bool letters, int indent,
                         int columns)
{
    int used = indent;
    fprintf(t->out, "%*s", indent, "");
    for (int l = 0; l < axes->count; l++) {
        if (!axes->lines[l].label)
            continue;
        int wide = draft_text_width(axes->lines[l].label) + 5;
        if (used + wide > indent + columns && used > indent) {
            fprintf(t->out, "\n%*s", indent, "");
            used = indent;
        }
        used += wide;
        fprintf(t->out, "%s", draft_ink(t, pens[pen_of(l)].colour));
        if (letters)
            fprintf(t->out, "%c", pens[pen_of(l)].letter);
        else
            fputs("━━", t->out);
        fprintf(t->out, "%s %s  ", draft_ink(t, DRAFT_PLAIN), axes->lines[l].label);
    }
    fputc('\n', t->out);
}

static void print_x_axis(const struct draft_ticks *ticks, const double range[4], const struct draft_terminal *t,
                         int indent, int columns, const char *label)
{
    char line[512], text[32];
    int most = columns + 8 < (int)sizeof line ? columns + 8 : (int)sizeof line - 1;
    memset(line, ' ', (size_t)most);
    line[most] = 0;
    int free_from = 0;
    for (int i = 0; i < ticks->count; i++) {
        int at = (int)lround((draft_tick(ticks, i) - range[0]) / (range[1] - range[0]) * (columns - 1));
        draft_tick_label(ticks, i, text, sizeof text);
        int length = (int)strlen(text), from = at - length / 2 < 0 ? 0 : at - length / 2;
        if (from < free_from || from + length > most)
            continue;
        memcpy(line + from, text, (size_t)length);
        free_from = from + length + 1;
    }
    fprintf(t->out, "%*s%s\n", indent + 1, "", line);
    fprintf(t->out, "%*s%s\n", indent + 1 + (columns - draft_text_width(label)) / 2, "", label);
}

static void print_rows(const struct canvas *c, const struct draft_ticks *y, const double range[4],
                       const struct draft_terminal *t, int indent, bool letters)
{
    char text[32];
    for (int r = 0; r < c->rows; r++) {
        const char *mark = t->utf8 ? "│" : "|";
        text[0] = 0;
        for (int i = 0; i < y->count; i++)
            if ((int)lround((range[3] - draft_tick(y, i)) / (range[3] - range[2]) * (c->rows - 1)) == r) {
                draft_tick_label(y, i, text, sizeof text);
                mark = t->utf8 ? "┤" : "+";
            }
        int ink = -1;
        fprintf(t->out, "%s%*s%s%s", draft_ink(t, DRAFT_DIM), indent, text, mark, draft_ink(t, DRAFT_PLAIN));
        for (int col = 0; col < c->columns; col++)
            print_cell(c, r * c->columns + col, t, letters, &ink);
        fprintf(t->out, "%s\n", draft_ink(t, DRAFT_PLAIN));
    }
    fprintf(t->out, "%s%*s%s", draft_ink(t, DRAFT_DIM), indent, "", t->utf8 ? "└" : "+");
    for (int col = 0; col < c->columns; col++)
        fputs(t->utf8 ? "─" : "-", t->out);
    fprintf(t->out, "%s\n", draft_ink(t, DRAFT_PLAIN));
}

void draft_axes_print(const struct draft_axes *axes, const struct draft_terminal *t, int columns, int rows)
{
    enum { INDENT = 9 };
    double range[4];
    int labels = 0;
    fprintf(t->out, "%*s%s%s%s\n", INDENT + 1, "", draft_ink(t, DRAFT_BOLD), axes->title, draft_ink(t, DRAFT_PLAIN));
    if (!draft_axes_range(axes, 0.03, &range[0], &range[1], &range[2], &range[3])) {
        fprintf(t->out, "%*s(no points yet)\n", INDENT + 1, "");
        return;
    }
    struct canvas c = {.columns = columns - INDENT - 2 > 20 ? columns - INDENT - 2 : 20, .rows = rows > 4 ? rows : 4};
    if (c.columns > 400)
        c.columns = 400;
    c.dots = calloc((size_t)(c.columns * c.rows), 1);
    c.owner = malloc((size_t)(c.columns * c.rows));
    if (!c.dots || !c.owner)
        abort();
    memset(c.owner, -1, (size_t)(c.columns * c.rows));
    for (int l = 0; l < axes->count; l++) {
        draw_line(&c, &axes->lines[l], l, range);
        labels += axes->lines[l].label != NULL;
    }
    bool letters = !t->utf8 || (!t->colour && axes->count > 1);
    if (labels > 0 && axes->count > 1)
        print_legend(axes, t, letters, INDENT + 1, c.columns);
    struct draft_ticks y = draft_ticks(range[2], range[3], c.rows / 3 > 2 ? c.rows / 3 : 2, false);
    struct draft_ticks x = draft_ticks(range[0], range[1], c.columns / 14 > 2 ? c.columns / 14 : 2, axes->whole_x);
    print_rows(&c, &y, range, t, INDENT, letters);
    print_x_axis(&x, range, t, INDENT, c.columns, axes->x_label);
    free(c.dots);
    free(c.owner);
}
