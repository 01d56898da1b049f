/*
 * The commands of `draft`: one line each in commands.def, one file each (cmd_<name>.c), which defines
 * `const struct draft_command draft_command_<name>`. main.c finds the command, parses its options and runs it.
 */
#ifndef DRAFT_CLIENT_COMMAND_H
#define DRAFT_CLIENT_COMMAND_H

#include <stdbool.h>

#include "arguments.h"
#include "rpc/rpc.h"
#include "status.h"
#include "terminal.h"

struct draft_context {
    struct draft_terminal out, err; /* stdout: data; stderr: messages */
    bool json;                      /* --json */
    char socket[512];
    struct draft_rpc *rpc; /* NULL until draft_connect() */
};

enum draft_group { DRAFT_GROUP_START, DRAFT_GROUP_JOBS, DRAFT_GROUP_WATCH, DRAFT_GROUP_PICTURES, DRAFT_GROUP_OTHER };

struct draft_command {
    const char *name;
    enum draft_group group;
    const char *summary;                       /* one line for `draft --help` */
    const char *words;                         /* what else people call it, a space between them, or NULL: suggested */
    const char *usage;                         /* "JOB... [options]" */
    const char *about;                         /* paragraphs */
    const char *examples;                      /* lines, each indented by two */
    const struct draft_option *const *options; /* NULL-terminated tables, or NULL */
    int least, most;                           /* operands; most < 0: any number */
    bool json;                                 /* understands --json */
    int (*run)(struct draft_context *cx, const struct draft_arguments *arguments);
};

#define COMMAND(name) extern const struct draft_command draft_command_##name;
#include "commands.def"

/* All of them, NULL-terminated, in the order of commands.def. */
extern const struct draft_command *const draft_commands[];
const struct draft_command *draft_command_find(const char *name);
/* The one that was probably meant by a name that is none: by its other words or by a likeness of letters; or NULL. */
const struct draft_command *draft_command_meant(const char *name);

/* The daemon, connected lazily. Never NULL. */
struct draft_rpc *draft_connect(struct draft_context *cx);

extern const struct draft_option draft_common_options[]; /* of every command */

/* All that a command takes: its own, those of every command, --json where it is understood; NULL-terminated. */
enum { DRAFT_TABLES = 16 };
void draft_command_tables(const struct draft_command *command, const struct draft_option *tables[DRAFT_TABLES]);

/* Prints "draft: <sentence>" on stderr; returns the exit code. */
int draft_report(const struct draft_context *cx, const struct draft_status *st);
int draft_report_error(const struct draft_context *cx, const struct draft_error *err);

/* Runs the whole program on a command line; returns the exit code. */
int draft_main(int argc, char **argv);

void draft_print_overview(FILE *out);
void draft_print_help(const struct draft_command *command, const struct draft_terminal *terminal);
void draft_print_exit_codes(FILE *out);

#endif
