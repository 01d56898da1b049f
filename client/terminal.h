/*
 * What stdout and stderr can show. Colour only on a terminal without NO_COLOR, TERM=dumb or --no-color; block and
 * braille characters only where the locale is UTF-8.
 */
#ifndef DRAFT_CLIENT_TERMINAL_H
#define DRAFT_CLIENT_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

enum draft_colour {
    DRAFT_PLAIN,
    DRAFT_BOLD,
    DRAFT_DIM,
    DRAFT_RED,
    DRAFT_GREEN,
    DRAFT_YELLOW,
    DRAFT_BLUE,
    DRAFT_MAGENTA,
    DRAFT_CYAN,
};

struct draft_terminal {
    FILE *out;
    bool tty;    /* lines may be redrawn */
    bool colour; /* escape sequences for colour are welcome */
    bool utf8;
};

/* Call setlocale() first. */
struct draft_terminal draft_terminal_of(FILE *out, bool no_colour);
void draft_terminal_size(const struct draft_terminal *terminal, int *rows, int *columns); /* 24 x 80 when unknown */

/* The escape sequence of a colour, or "" where colour is off. draft_ink(t, DRAFT_PLAIN) ends it. */
const char *draft_ink(const struct draft_terminal *terminal, enum draft_colour colour);

/*
 * A block of lines redrawn in place at the bottom of a terminal. It survives a resize (the rows that the old lines now
 * take are counted anew) and never wraps: lines are cut at the terminal's width.
 */
enum { DRAFT_BLOCK_LINES = 16, DRAFT_BLOCK_BYTES = 1024 };
struct draft_block {
    const struct draft_terminal *terminal;
    int lines;
    int widths[DRAFT_BLOCK_LINES]; /* columns of what is on the screen */
};
void draft_block_draw(struct draft_block *block, char lines[][DRAFT_BLOCK_BYTES], int count);
/* Takes the block off the screen, so that ordinary lines can be printed; the next draw puts it below them. */
void draft_block_clear(struct draft_block *block);

#endif
