/* A table for people: a header and rows of text cells, columns as wide as their widest cell. */
#ifndef DRAFT_CLIENT_TABLE_H
#define DRAFT_CLIENT_TABLE_H

#include <stdbool.h>
#include <stdio.h>

struct draft_table;

struct draft_column {
    const char *title;
    bool right; /* align to the right: numbers */
    bool cut;   /* its cells may be cut when the line is too wide: the widest such column first */
    bool spare; /* left out, the last such one first, when cutting would leave less than 16 columns of a cell */
};

/* `columns` is kept, not copied. */
struct draft_table *draft_table_create(const struct draft_column *columns, int count);
void draft_table_free(struct draft_table *table);
/* Starts a row; cells follow in order and are copied. Missing cells stay empty. Tabs and newlines become spaces. */
void draft_table_row(struct draft_table *table);
void draft_table_cell(struct draft_table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
int draft_table_rows(const struct draft_table *table);
/* width 0: nothing is cut. bold/plain are escape sequences around the header, or "". */
void draft_table_print(const struct draft_table *table, int width, const char *bold, const char *plain, FILE *out);

#endif
