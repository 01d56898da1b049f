#include "table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

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

void draft_table_print(const struct draft_table *table, int width, const char *bold, const char *plain, FILE *out)
{
    int widths[64], total = 0, giving = -1;
    assert(table->count <= 64);
    for (int c = 0; c < table->count; c++) {
        widths[c] = draft_text_width(table->columns[c].title);
        for (int r = 0; r < table->rows; r++) {
            const char *cell = table->cells[r * table->count + c];
            int wide = cell ? draft_text_width(cell) : 0;
            widths[c] = wide > widths[c] ? wide : widths[c];
        }
        total += widths[c] + (c > 0 ? 2 : 0);
        if (table->columns[c].cut)
            giving = c;
    }
    if (width > 0 && total > width && giving >= 0) {
        int less = widths[giving] - (total - width), title = draft_text_width(table->columns[giving].title);
        widths[giving] = less > title ? less : title;
    }
    fputs(bold, out);
    for (int c = 0; c < table->count; c++)
        print_cell(table->columns[c].title, widths[c], table->columns[c].right, c + 1 == table->count, out);
    fprintf(out, "%s\n", plain);
    for (int r = 0; r < table->rows; r++) {
        for (int c = 0; c < table->count; c++) {
            const char *cell = table->cells[r * table->count + c];
            print_cell(cell ? cell : "", widths[c], table->columns[c].right, c + 1 == table->count, out);
        }
        fputc('\n', out);
    }
}
