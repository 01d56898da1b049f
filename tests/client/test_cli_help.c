/* How the program helps whoever holds it wrong or for the first time: help, completion, manual page, refusals. */
#include "cli_program.h"

/* "draftd &" and the first command, pasted together. */
static void test_cli_help__a_daemon_that_is_just_starting_is_waited_for(void **state)
{
    (void)state;
    assert_int_equal(system("{ sleep 0.3; ln -s d.sock late.sock; } & " DRAFT " jobs --socket late.sock >out 2>err"),
                     0);
}

static void test_cli_help__what_is_to_be_pasted_names_the_program_there_is(void **state)
{
    (void)state;
    assert_int_equal(system("export PATH=/usr/bin:/bin; " DRAFT " jobs --socket no 2>err; cd " BUILD
                            "; ./draft jobs --socket no 2>>$OLDPWD/err; PATH=" BUILD
                            ":$PATH; draft jobs --socket no 2>>$OLDPWD/err"),
                     7 << 8);
    slurp("err", errors, sizeof errors);
    assert_non_null(strstr(errors, "`" DRAFT "d &`"));
    assert_non_null(strstr(errors, "`./draftd &`"));
    assert_non_null(strstr(errors, "`draftd &`"));
}

static void test_cli_help__a_demo_without_a_place_says_why(void **state)
{
    (void)state;
    assert_int_equal(system("mkdir -p taken/state && : > file"), 0);
    assert_int_equal(draft("demo --dir file"), 1);
    assert_non_null(strstr(errors, "cannot make the folder file: File exists"));
    pid_t other = fork();
    if (other == 0) {
        execl(DRAFTD, DRAFTD, "--state-dir", "taken/state", "--socket", "taken.sock", "--worker", WORKER, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 20 && draft("jobs --socket taken.sock") != 0; i++)
        continue;
    assert_int_equal(draft("demo --dir taken"), 1);
    kill(other, SIGTERM);
    waitpid(other, NULL, 0);
    assert_non_null(strstr(errors, "draft: draftd cannot start: another draftd (pid "));
    assert_null(strstr(errors, "level="));
}

static void test_cli_help__every_command_has_help(void **state)
{
    static const char *const names[] = {"demo",        "bench",  "submit", "jobs",    "show",    "cancel",  "pause",
                                        "resume",      "delete", "watch",  "metrics", "plot",    "preview", "grid",
                                        "checkpoints", "export", "merge",  "devices", "version", "help"};
    (void)state;
    assert_int_equal(draft("--help"), 0);
    char *overview = kept();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_non_null(strstr(overview, names[i]));
        assert_int_equal(draft("%s --help", names[i]), 0);
        assert_non_null(strstr(out, "Usage: draft"));
        assert_non_null(strstr(out, "Examples:"));
    }
    free(overview);
    assert_int_equal(draft("help exit-codes"), 0);
    assert_non_null(strstr(out, "130"));
}

/* What Tab offers after these words, the last one being typed. */
static const char *completed(const char *words)
{
    char line[1400];
    snprintf(line, sizeof line,
             DRAFT " completion bash > draft.bash && bash -c '. ./draft.bash; COMP_WORDS=(%s); "
                   "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _draft; echo \"${COMPREPLY[*]}\"' > out 2>err",
             words);
    assert_int_equal(system(line), 0);
    slurp("err", errors, sizeof errors);
    assert_string_equal(errors, "");
    slurp("out", out, sizeof out);
    return out;
}

static void test_cli_help__bash_completes_commands_options_values_and_jobs(void **state)
{
    char id[32];
    (void)state;
    snprintf(id, sizeof id, "%s", submit("", 1));
    assert_string_equal(completed(DRAFT " su"), "submit\n");
    assert_string_equal(completed(DRAFT " submit --sam"), "--sampling-steps --sampler\n");
    assert_string_equal(completed(DRAFT " submit --train \"\""), "lora full\n");
    assert_string_equal(completed(DRAFT " export job-1 -f merged-"), "merged-single\n");
    assert_string_equal(completed(DRAFT " submit --model \"\""), "\n"); /* files: left to bash */
    assert_non_null(strstr(completed(DRAFT " show \"\""), id));
}

static void test_cli_help__the_manual_page_has_every_command_and_no_stray_request(void **state)
{
    char *heading;
    (void)state;
    assert_int_equal(draft("help man"), 0);
    char *page = kept();
    assert_non_null(strstr(page, ".TH DRAFT 1"));
    for (const char *const *name = (const char *const[]){"submit", "watch", "export", NULL}; *name; name++) {
        assert_true(asprintf(&heading, "\n.SS draft %s ", *name) > 0);
        assert_non_null(strstr(page, heading));
        free(heading);
    }
    assert_non_null(strstr(page, "\\-\\-kl\\-coeff \\fIX\\fR"));
    for (const char *at = page; (at = strstr(at, "\n.")); at++)
        if (!strchr("TSPBInf", at[2]))
            fail_msg("no request of man(7): %.40s", at + 1);
    free(page);
}

static void test_cli_help__a_wrong_command_line_is_answered_with_what_is_right(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"sumbit", "did you mean \"submit\"?"},
        {"rm job-1", "did you mean \"delete\"?"},
        {"list", "did you mean \"jobs\"?"},
        {"help exprot", "did you mean \"export\"?"},
        {"jobs --limit 0", "expected 1 or more"},
        {"--socket d.sock jobs", "options stand behind the command: draft COMMAND --socket"},
        {"show", "an argument is missing: draft show JOB..."},
        {"show job-1 extra --jsn", "unknown option --jsn; did you mean --json?"},
        {"jobs --state over",
         "expected queued, preparing, running, paused, cancelling, succeeded, failed or cancelled"},
        {"jobs --limit many", "expected a whole number"},
        {"submit", "the model to tune is missing (--model)"},
        {"submit --model model --dataset prompts.txt --reward beauty:model --steps 2", "use clip, pickscore"},
        {"submit --model model --dataset prompts.txt --reward clip:model --steps 2 --epochs 1", "give one"},
        {"plot", "an argument is missing: draft plot JOB... [options]"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(draft("%s", wrong[i][0]), 2);
        if (!strstr(errors, wrong[i][1]))
            fail_msg("draft %s: expected \"%s\", got: %s", wrong[i][0], wrong[i][1], errors);
    }
    assert_int_equal(draft("submit --model nowhere"), 3);
    assert_non_null(strstr(errors, "(--model)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_help__a_daemon_that_is_just_starting_is_waited_for),
        cmocka_unit_test(test_cli_help__what_is_to_be_pasted_names_the_program_there_is),
        cmocka_unit_test(test_cli_help__a_demo_without_a_place_says_why),
        cmocka_unit_test(test_cli_help__every_command_has_help),
        cmocka_unit_test(test_cli_help__bash_completes_commands_options_values_and_jobs),
        cmocka_unit_test(test_cli_help__the_manual_page_has_every_command_and_no_stray_request),
        cmocka_unit_test(test_cli_help__a_wrong_command_line_is_answered_with_what_is_right),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
