#include "terminal.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "text.h"

struct draft_terminal draft_terminal_of(FILE *out, bool no_colour)
{
    const char *term = getenv("TERM"), *off = getenv("NO_COLOR");
    bool dumb = !term || !*term || !strcmp(term, "dumb");
    struct draft_terminal terminal = {.out = out, .tty = isatty(fileno(out)) && !dumb};
    terminal.colour = terminal.tty && !no_colour && !(off && *off);
    terminal.utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
    return terminal;
}

void draft_terminal_size(const struct draft_terminal *terminal, int *rows, int *columns)
{
    struct winsize size;
    *rows = 24;
    *columns = 80;
    if (ioctl(fileno(terminal->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        *rows = size.ws_row > 0 ? size.ws_row : 24;
        *columns = size.ws_col;
    }
}

const char *draft_ink(const struct draft_terminal *terminal, enum draft_colour colour)
{
    static const char *const codes[] = {
        [DRAFT_PLAIN] = "\033[0m", [DRAFT_BOLD] = "\033[1m",     [DRAFT_DIM] = "\033[2m",
        [DRAFT_RED] = "\033[31m",  [DRAFT_GREEN] = "\033[32m",   [DRAFT_YELLOW] = "\033[33m",
        [DRAFT_BLUE] = "\033[34m", [DRAFT_MAGENTA] = "\033[35m", [DRAFT_CYAN] = "\033[36m",
    };
    return terminal->colour ? codes[colour] : "";
}

void draft_block_clear(struct draft_block *block)
{
    int rows, columns, up = 0;
    draft_terminal_size(block->terminal, &rows, &columns);
    for (int i = 0; i < block->lines; i++)
        up += block->widths[i] > columns ? (block->widths[i] + columns - 1) / columns : 1;
    if (up > 0)
        fprintf(block->terminal->out, "\033[%dA", up);
    if (block->lines > 0)
        fputs("\r\033[J", block->terminal->out);
    block->lines = 0;
    fflush(block->terminal->out);
}

void draft_block_draw(struct draft_block *block, char lines[][DRAFT_BLOCK_BYTES], int count)
{
    FILE *out = block->terminal->out;
    int rows, columns;
    draft_block_clear(block);
    draft_terminal_size(block->terminal, &rows, &columns);
    if (count > rows - 1)
        count = rows - 1;
    for (int i = 0; i < count && i < DRAFT_BLOCK_LINES; i++) {
        fwrite(lines[i], 1, draft_text_cut(lines[i], columns), out);
        fprintf(out, "%s\n", draft_ink(block->terminal, DRAFT_PLAIN));
        int width = draft_text_width(lines[i]);
        block->widths[block->lines++] = width < columns ? width : columns;
    }
    fflush(out);
}
