#include "table.h"

#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { COLUMNS = 64, READABLE = 16 };

struct draft_table {
    const struct draft_column *columns;
    int count, rows, filled;
    char **cells; /* rows x count */
};

static void *need(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

struct draft_table *draft_table_create(const struct draft_column *columns, int count)
{
    struct draft_table *table = need(calloc(1, sizeof *table));
    table->columns = columns;
    table->count = count;
    return table;
}

void draft_table_free(struct draft_table *table)
{
    if (!table)
        return;
    for (int i = 0; i < table->rows * table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

void draft_table_row(struct draft_table *table)
{
    table->rows++;
    table->filled = 0;
    table->cells = need(realloc(table->cells, sizeof *table->cells * (size_t)table->rows * (size_t)table->count));
    for (int i = 0; i < table->count; i++)
        table->cells[(table->rows - 1) * table->count + i] = NULL;
}

void draft_table_cell(struct draft_table *table, const char *format, ...)
{
    char *text;
    va_list args;
    assert(table->rows > 0 && table->filled < table->count);
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20)
            *c = ' ';
    table->cells[(table->rows - 1) * table->count + table->filled++] = text;
}

int draft_table_rows(const struct draft_table *table)
{
    return table->rows;
}

static void print_cell(const char *text, int width, bool right, bool last, FILE *out)
{
    size_t bytes = draft_text_cut(text, width);
    bool cut = text[bytes] != 0;
    if (cut && width > 1)
        bytes = draft_text_cut(text, width - 1);
    int pad = width - draft_text_width(text);
    if (right && pad > 0)
        fprintf(out, "%*s", pad, "");
    fwrite(text, 1, bytes, out);
    if (cut && width > 1)
        fputs("~", out);
    if (!right && pad > 0 && !last)
        fprintf(out, "%*s", pad, "");
    if (!last)
        fputs("  ", out);
}

static void measure(const struct draft_table *table, int widths[COLUMNS])
{
    assert(table->count <= COLUMNS);
    for (int c = 0; c < table->count; c++) {
        widths[c] = draft_text_width(table->columns[c].title);
        for (int r = 0; r < table->rows; r++) {
            const char *cell = table->cells[r * table->count + c];
            int wide = cell ? draft_text_width(cell) : 0;
            widths[c] = wide > widths[c] ? wide : widths[c];
        }
    }
}

/* Of a whole line. A column of width 0 is left out; one that may be cut counts with at most `most`. */
static int line_width(const struct draft_table *table, const int widths[COLUMNS], int most)
{
    int total = 0;
    for (int c = 0; c < table->count; c++)
        if (widths[c] > 0)
            total += (total > 0 ? 2 : 0) + (table->columns[c].cut && widths[c] > most ? most : widths[c]);
    return total;
}

static void leave_out(const struct draft_table *table, int widths[COLUMNS], int width)
{
    for (int c = table->count - 1; c >= 0 && line_width(table, widths, READABLE) > width; c--)
        if (table->columns[c].spare)
            widths[c] = 0;
}

static void cut(const struct draft_table *table, int widths[COLUMNS], int width)
{
    for (int over = line_width(table, widths, INT_MAX) - width; over > 0; over--) {
        int widest = -1;
        for (int c = 0; c < table->count; c++)
            if (table->columns[c].cut && widths[c] > draft_text_width(table->columns[c].title) &&
                (widest < 0 || widths[c] >= widths[widest]))
                widest = c;
        if (widest < 0)
            return;
        widths[widest]--;
    }
}

void draft_table_print(const struct draft_table *table, int width, const char *bold, const char *plain, FILE *out)
{
    int widths[COLUMNS];
    measure(table, widths);
    if (width > 0) {
        leave_out(table, widths, width);
        cut(table, widths, width);
    }
    fputs(bold, out);
    for (int c = 0; c < table->count; c++)
        if (widths[c] > 0)
            print_cell(table->columns[c].title, widths[c], table->columns[c].right, c + 1 == table->count, out);
    fprintf(out, "%s\n", plain);
    for (int r = 0; r < table->rows; r++) {
        for (int c = 0; c < table->count; c++) {
            const char *cell = table->cells[r * table->count + c];
            if (widths[c] > 0)
                print_cell(cell ? cell : "", widths[c], table->columns[c].right, c + 1 == table->count, out);
        }
        fputc('\n', out);
    }
}
