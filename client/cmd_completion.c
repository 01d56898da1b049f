/* `draft completion`: what a shell completes, written from the tables that the command line itself is read with. */
#include <stdio.h>
#include <string.h>

#include "command.h"

/* Commands may come and options may be renamed; the script holds words only, so that Tab needs no daemon but for jobs.
 */
static const char begin[] =
    "# Completion of draft(1) for bash. Written by `draft completion bash`.\n"
    "_draft_jobs() {\n"
    "    local i socket=()\n"
    "    for ((i = 2; i + 1 < ${#COMP_WORDS[@]}; i++)); do\n"
    "        [ \"${COMP_WORDS[i]}\" != --socket ] || socket=(--socket \"${COMP_WORDS[i + 1]}\")\n"
    "    done\n"
    "    timeout 2 \"${COMP_WORDS[0]/#~\\//$HOME/}\" jobs -q -n 200 \"${socket[@]}\" 2>/dev/null\n"
    "}\n"
    "_draft() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} options= words=\n"
    "    COMPREPLY=()\n";
static const char end[] = "    if [ $COMP_CWORD -gt 1 ] && [[ $current == -* ]]; then\n"
                          "        words=$options\n"
                          "    fi\n"
                          "    [ -z \"$words\" ] || COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
                          "}\n"
                          "complete -o bashdefault -o default -F _draft draft\n"; /* no words: names of files */

static void print_names(FILE *out)
{
    for (const struct draft_command *const *c = draft_commands; *c; c++)
        fprintf(out, "%s%s", c == draft_commands ? "" : " ", (*c)->name);
}

static void print_options(const struct draft_option *const *tables, FILE *out)
{
    const char *space = "";
    for (; *tables; tables++)
        for (const struct draft_option *o = *tables; o->name; o++)
            if (*o->name) {
                fprintf(out, "%s--%s", space, o->name);
                space = " ";
            }
}

/* After an option that takes a value: its words, or files and what else a shell thinks of. */
static void print_values(const struct draft_option *const *tables, FILE *out)
{
    for (; *tables; tables++)
        for (const struct draft_option *o = *tables; o->name; o++)
            if (*o->name && o->value != DRAFT_VALUE_NONE) {
                fprintf(out, "        --%s", o->name);
                if (o->letter)
                    fprintf(out, " | -%c", o->letter);
                fprintf(out, ") words='%s' options= ;;\n", o->words ? o->words : "");
            }
}

static void print_command(const struct draft_command *command, FILE *out)
{
    const struct draft_option *tables[DRAFT_TABLES];
    draft_command_tables(command, tables);
    fprintf(out, "    %s)\n        options='", command->name);
    print_options(tables, out);
    fputs("'\n", out);
    if (!strncmp(command->usage, "JOB", 3) || !strncmp(command->usage, "[JOB", 4))
        fputs("        [[ $current == -* ]] || words=$(_draft_jobs)\n", out);
    if (!strcmp(command->name, "help")) {
        fputs("        words='", out);
        print_names(out);
        fputs(" exit-codes man'\n", out);
    }
    if (!strcmp(command->name, "completion"))
        fputs("        words='bash zsh'\n", out);
    fputs("        case $previous in\n", out);
    print_values(tables, out);
    fputs("        esac\n        ;;\n", out);
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    const char *shell = arguments->operands[0];
    if (strcmp(shell, "bash") != 0 && strcmp(shell, "zsh") != 0) {
        fprintf(cx->err.out, "draft: no completion for \"%s\"; there is one for bash and one for zsh\n", shell);
        return DRAFT_EXIT_USAGE;
    }
    if (!strcmp(shell, "zsh"))
        printf("autoload -U +X compinit bashcompinit && compinit && bashcompinit\n");
    printf("%s    if [ $COMP_CWORD -eq 1 ]; then\n        words='", begin);
    print_names(stdout);
    printf(" --help --version'\n    else case ${COMP_WORDS[1]} in\n");
    for (const struct draft_command *const *c = draft_commands; *c; c++)
        print_command(*c, stdout);
    printf("    esac; fi\n%s", end);
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_completion = {
    .name = "completion",
    .group = DRAFT_GROUP_OTHER,
    .summary = "what bash or zsh completes commands, options and jobs with",
    .words = "completions complete shell",
    .usage = "SHELL",
    .about = "SHELL is bash or zsh. Where draft was installed by `cmake --install`, bash finds its script by itself.",
    .examples = "  draft completion bash > ~/.local/share/bash-completion/completions/draft\n"
                "  source <(draft completion bash)            for this shell alone\n"
                "  echo 'source <(draft completion zsh)' >> ~/.zshrc\n",
    .least = 1,
    .most = 1,
    .run = run,
};
