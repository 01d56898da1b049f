#include <string.h>

#include "command.h"
#include "manual.h"

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    if (arguments->operand_count == 0) {
        draft_print_overview(stdout);
        return DRAFT_EXIT_OK;
    }
    const char *topic = arguments->operands[0];
    const struct draft_command *command = draft_command_find(topic);
    if (command)
        draft_print_help(command, &cx->out);
    else if (!strcmp(topic, "exit-codes"))
        draft_print_exit_codes(stdout);
    else if (!strcmp(topic, "man"))
        draft_print_manual(stdout);
    else {
        const struct draft_command *meant = draft_command_meant(topic);
        fprintf(cx->err.out, "draft: no help on \"%s\"; ", topic);
        if (meant)
            fprintf(cx->err.out, "did you mean \"%s\"?\n", meant->name);
        else
            fprintf(cx->err.out, "`draft --help` lists the commands, `draft help exit-codes` the exit codes\n");
        return DRAFT_EXIT_USAGE;
    }
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_help = {
    .name = "help",
    .group = DRAFT_GROUP_OTHER,
    .summary = "explain a command, or exit-codes",
    .usage = "[COMMAND | exit-codes | man]",
    .about = "The same text as `draft COMMAND --help`; `draft help man` is all of it as the source of a manual page.",
    .examples = "  draft help submit\n"
                "  draft help exit-codes\n"
                "  draft help man | man -l -\n",
    .least = 0,
    .most = 1,
    .run = run,
};
