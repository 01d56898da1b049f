#include "manual.h"

#include <string.h>

#include "command.h"

/* Text as roff takes it: hyphens stay what a shell understands, no line begins a request. Spaces in a row are kept
 * where the lines are (.nf); an empty line begins a paragraph where they are not. */
static void print_text(const char *text, FILE *out)
{
    bool line_begins = true;
    for (; *text; text++) {
        if (line_begins && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        if (text[0] == '\n' && text[1] == '\n') {
            fputs("\n.PP\n", out);
            text++;
        } else if (*text == '\\') {
            fputs("\\e", out);
        } else if (*text == '-') {
            fputs("\\-", out);
        } else {
            fputc(*text, out);
        }
        line_begins = *text == '\n';
    }
}

static void print_options(const struct draft_option *table, FILE *out)
{
    for (const struct draft_option *o = table; o->name; o++) {
        if (!*o->name) {
            fputs(".PP\n", out);
            print_text(o->help, out);
            fputs(":\n", out);
            continue;
        }
        fputs(".TP\n.B ", out);
        if (o->letter)
            fprintf(out, "\\-%c, ", o->letter);
        fputs("\\-\\-", out);
        print_text(o->name, out);
        if (o->value != DRAFT_VALUE_NONE)
            fprintf(out, " \\fI%s\\fR", o->metavar);
        fputc('\n', out);
        print_text(o->help, out);
        fputc('\n', out);
    }
}

static void print_lines(const char *text, FILE *out)
{
    fputs(".PP\n.nf\n", out);
    print_text(text, out);
    fputs(".fi\n", out);
}

static void print_command(const struct draft_command *command, FILE *out)
{
    fputs(".SS draft ", out);
    print_text(command->name, out);
    fputs(" ", out);
    print_text(command->usage, out);
    fputs("\n", out);
    print_text(command->summary, out);
    fputs(".\n.PP\n", out);
    print_text(command->about, out);
    fputs("\n", out);
    for (const struct draft_option *const *table = command->options; table && *table; table++)
        print_options(*table, out);
    print_lines(command->examples, out);
}

void draft_print_manual(FILE *out)
{
    fputs(".TH DRAFT 1 \"\" \"draftd " DRAFT_VERSION "\" \"User Commands\"\n"
          ".SH NAME\n"
          "draft \\- fine\\-tune text\\-to\\-image diffusion models with DRaFT+, through the daemon draftd\n"
          ".SH SYNOPSIS\n"
          ".B draft\n.I COMMAND\n[\\fIarguments\\fR] [\\fIoptions\\fR]\n"
          ".SH DESCRIPTION\n"
          "A job samples pictures from a model, scores them with a differentiable reward and trains the model towards "
          "it,\nless a KL term that keeps it near the frozen base.\n"
          ".B draftd\nkeeps and runs jobs; this program submits and follows them, asks for pictures and fetches what "
          "was trained.\n.SH COMMANDS\n",
          out);
    for (const struct draft_command *const *c = draft_commands; *c; c++)
        print_command(*c, out);
    fputs(".SH OPTIONS\n", out);
    print_options(draft_common_options, out);
    fputs(".PP\nCommands that print numbers or messages also take\n.BR \\-\\-json .\n.SH EXIT STATUS\n.nf\n", out);
    draft_print_exit_codes(out);
    fputs(".fi\n.SH ENVIRONMENT\n"
          ".TP\n.B DRAFTD_SOCKET\nthe daemon's unix socket\n"
          ".TP\n.B XDG_RUNTIME_DIR, XDG_STATE_HOME\nwhere the socket is looked for without it\n"
          ".TP\n.B NO_COLOR\nset: no colours\n"
          ".SH SEE ALSO\n.BR draftd ,\nwhose\n.B \\-\\-help\ndescribes the daemon\n",
          out);
}
