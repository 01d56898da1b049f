#include "command.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define COMMAND(name) &draft_command_##name,
const struct draft_command *const draft_commands[] = {
#include "commands.def"
    NULL,
};

const struct draft_option draft_common_options[] = {
    {.name = "", .help = "Options of every command"},
    {.name = "socket",
     .value = DRAFT_VALUE_STRING,
     .metavar = "PATH",
     .help = "the daemon's unix socket (default: $DRAFTD_SOCKET, else $XDG_RUNTIME_DIR/draftd.sock, else draftd.sock "
             "in the state folder)"},
    {.name = "no-color", .help = "no colours (also: NO_COLOR set, TERM=dumb, or output that is not a terminal)"},
    {.name = "help", .letter = 'h', .help = "this text"},
    {.name = NULL},
};
static const struct draft_option json_option[] = {
    {.name = "json", .help = "machine-readable JSON on stdout"},
    {.name = NULL},
};

const struct draft_command *draft_command_find(const char *name)
{
    for (const struct draft_command *const *c = draft_commands; *c; c++)
        if (!strcmp((*c)->name, name))
            return *c;
    return NULL;
}

static bool has_word(const char *words, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = words; at && length && (at = strstr(at, name)); at++)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return true;
    return false;
}

const struct draft_command *draft_command_meant(const char *name)
{
    const char *names[64];
    int count = 0;
    for (const struct draft_command *const *c = draft_commands; *c; c++) {
        if (has_word((*c)->words, name))
            return *c;
        names[count++] = (*c)->name;
    }
    const char *near = draft_nearest(name, names, count);
    return near ? draft_command_find(near) : NULL;
}

struct draft_rpc *draft_connect(struct draft_context *cx)
{
    if (!cx->rpc)
        cx->rpc = draft_rpc_open(cx->socket);
    return cx->rpc;
}

int draft_report(const struct draft_context *cx, const struct draft_status *st)
{
    fprintf(cx->err.out, "%sdraft:%s ", draft_ink(&cx->err, DRAFT_RED), draft_ink(&cx->err, DRAFT_PLAIN));
    /* "job_id" adds nothing to "there is no job-3"; a field of a spec does. */
    if (strchr(st->field, '.') && !strstr(st->message, st->field))
        fprintf(cx->err.out, "%s: ", st->field);
    fprintf(cx->err.out, "%s\n", st->message);
    return draft_status_exit(st);
}

int draft_report_error(const struct draft_context *cx, const struct draft_error *err)
{
    struct draft_status st = {0};
    draft_status_take(&st, err);
    return draft_report(cx, &st);
}

void draft_print_exit_codes(FILE *out)
{
    static const struct {
        enum draft_exit code;
        const char *meaning;
    } codes[] = {
        {DRAFT_EXIT_OK, "done; with --watch: the job succeeded"},
        {DRAFT_EXIT_FAILED, "the job failed, or another error"},
        {DRAFT_EXIT_USAGE, "a wrong command line or a request the daemon finds invalid"},
        {DRAFT_EXIT_NOT_FOUND, "no such job, preview, checkpoint or file"},
        {DRAFT_EXIT_DENIED, "the daemon belongs to somebody else"},
        {DRAFT_EXIT_PRECONDITION, "right in itself, but not in the job's present state"},
        {DRAFT_EXIT_EXHAUSTED, "queue full, disk full or another limit reached"},
        {DRAFT_EXIT_UNREACHABLE, "the daemon is not running or does not answer"},
        {DRAFT_EXIT_DEADLINE, "no answer in time"},
        {DRAFT_EXIT_JOB_CANCELLED, "the watched job was cancelled"},
        {DRAFT_EXIT_INTERRUPTED, "interrupted with Ctrl-C; a watched job goes on"},
    };
    fputs("Exit codes:\n", out);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        fprintf(out, "  %3d  %s\n", codes[i].code, codes[i].meaning);
}

void draft_print_overview(FILE *out)
{
    static const char *const titles[] = {
        [DRAFT_GROUP_START] = "Start here", [DRAFT_GROUP_JOBS] = "Jobs",
        [DRAFT_GROUP_WATCH] = "Watching",   [DRAFT_GROUP_PICTURES] = "Pictures and weights",
        [DRAFT_GROUP_OTHER] = "Other",
    };
    fputs("draft fine-tunes text-to-image diffusion models with DRaFT+, through the daemon draftd.\n\n"
          "Usage: draft COMMAND [arguments] [options]\n",
          out);
    for (int group = DRAFT_GROUP_START; group <= DRAFT_GROUP_OTHER; group++) {
        fprintf(out, "\n%s:\n", titles[group]);
        for (const struct draft_command *const *c = draft_commands; *c; c++)
            if ((int)(*c)->group == group)
                fprintf(out, "  %-13s %s\n", (*c)->name, (*c)->summary);
    }
    fputs("\n`draft COMMAND --help` explains a command, with examples.\n"
          "`draft help exit-codes` lists what the program's exit codes mean.\n\n"
          "A first run:\n"
          "  draft demo                      everything at once, with a small built-in model\n"
          "  draftd &                        start a daemon of your own\n"
          "  draft submit --model sd15 --dataset prompts.txt --reward pickscore:PickScore_v1 --steps 200 --watch\n",
          out);
}

void draft_print_help(const struct draft_command *command, const struct draft_terminal *terminal)
{
    FILE *out = terminal->out;
    const char *bold = draft_ink(terminal, DRAFT_BOLD), *plain = draft_ink(terminal, DRAFT_PLAIN);
    int rows, columns;
    draft_terminal_size(terminal, &rows, &columns);
    int width = !terminal->tty || columns > 110 ? 100 : columns - 1;
    fprintf(out, "%sdraft %s%s: %s\n\n%sUsage:%s draft %s%s%s\n\n", bold, command->name, plain, command->summary, bold,
            plain, command->name, *command->usage ? " " : "", command->usage);
    draft_wrap(command->about, 0, 0, width, out);
    for (const struct draft_option *const *table = command->options; table && *table; table++) {
        if ((*table)->name && *(*table)->name)
            fprintf(out, "\n%sOptions:%s\n", bold, plain);
        draft_options_help(*table, width, out);
    }
    draft_options_help(draft_common_options, width, out);
    if (command->json)
        draft_options_help(json_option, width, out);
    fprintf(out, "\n%sExamples:%s\n%s", bold, plain, command->examples);
}

void draft_command_tables(const struct draft_command *command, const struct draft_option *tables[DRAFT_TABLES])
{
    int n = 0;
    for (const struct draft_option *const *t = command->options; t && *t && n < DRAFT_TABLES - 4; t++)
        tables[n++] = *t;
    tables[n++] = draft_common_options;
    if (command->json)
        tables[n++] = json_option;
    tables[n] = NULL;
}

static int usage_error(const struct draft_context *cx, const char *command, const char *text)
{
    fprintf(cx->err.out, "%sdraft:%s %s\nTry `draft %s%s--help`.\n", draft_ink(&cx->err, DRAFT_RED),
            draft_ink(&cx->err, DRAFT_PLAIN), text, command, *command ? " " : "");
    return DRAFT_EXIT_USAGE;
}

static int run(struct draft_context *cx, const struct draft_command *command, int argc, char **argv)
{
    static struct draft_arguments arguments; /* large; one command line a process */
    const struct draft_option *tables[DRAFT_TABLES];
    struct draft_error err = {0};
    draft_command_tables(command, tables);
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            draft_print_help(command, &cx->out);
            return DRAFT_EXIT_OK;
        }
    if (!draft_arguments_parse(tables, argc, argv, &arguments, &err))
        return usage_error(cx, command->name, err.message);
    if (arguments.operand_count < command->least) {
        char text[160];
        snprintf(text, sizeof text, "%s: draft %s %s",
                 arguments.operand_count ? "too few arguments" : "an argument is missing", command->name,
                 command->usage);
        return usage_error(cx, command->name, text);
    }
    if (command->most >= 0 && arguments.operand_count > command->most) {
        char text[240];
        snprintf(text, sizeof text, "unexpected argument \"%.80s\": draft %s %s", arguments.operands[command->most],
                 command->name, command->usage);
        return usage_error(cx, command->name, text);
    }
    draft_rpc_default_socket(cx->socket, sizeof cx->socket);
    if (draft_arguments_has(&arguments, "socket"))
        snprintf(cx->socket, sizeof cx->socket, "%s", draft_arguments_string(&arguments, "socket", ""));
    if (draft_arguments_has(&arguments, "no-color"))
        cx->out.colour = cx->err.colour = false;
    cx->json = command->json && draft_arguments_has(&arguments, "json");
    int code = command->run(cx, &arguments);
    draft_rpc_close(cx->rpc);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == DRAFT_EXIT_OK) {
        fprintf(stderr, "draft: cannot write to stdout\n");
        code = DRAFT_EXIT_FAILED;
    }
    return code;
}

int draft_main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    struct draft_context cx = {.out = draft_terminal_of(stdout, false), .err = draft_terminal_of(stderr, false)};
    if (argc < 2) {
        draft_print_overview(stderr);
        return DRAFT_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
        draft_print_overview(stdout);
        return DRAFT_EXIT_OK;
    }
    if (!strcmp(name, "--version") || !strcmp(name, "-V"))
        name = "version";
    const struct draft_command *command = draft_command_find(name);
    if (!command) {
        char text[256];
        const struct draft_command *meant = draft_command_meant(name);
        if (*name == '-')
            snprintf(text, sizeof text, "options stand behind the command: draft COMMAND %.60s", name);
        else
            snprintf(text, sizeof text,
                     meant ? "unknown command \"%.60s\"; did you mean \"%s\"?" : "unknown command \"%.60s\"", name,
                     meant ? meant->name : "");
        return usage_error(&cx, "", text);
    }
    return run(&cx, command, argc - 2, argv + 2);
}
