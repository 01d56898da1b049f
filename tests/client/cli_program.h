/* What the tests of the program `draft` stand on: a real draftd with a worker that only pretends to train, in a folder
 * of its own, and the program's words, output and exit code. Each test program includes it once. */
#ifndef DRAFT_TESTS_CLI_PROGRAM_H
#define DRAFT_TESTS_CLI_PROGRAM_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define DRAFT  BUILD "/draft"
#define DRAFTD BUILD "/draftd"
#define WORKER BUILD "/tests/fakes/fake_worker"

static char folder[] = "/tmp/test_cli_XXXXXX";
static pid_t daemon_pid;
static char out[1 << 20], errors[1 << 16];

static void slurp(const char *name, char *text, size_t size)
{
    FILE *file = fopen(name, "r");
    size_t n = file ? fread(text, 1, size - 1, file) : 0;
    text[n] = 0;
    if (file)
        fclose(file);
}

/* What the last command printed, kept over the next ones. */
static char *kept(void)
{
    char *copy = strdup(out);
    assert_non_null(copy);
    return copy;
}

/* Runs `draft` with these words (a shell reads them); stdout is in `out`, stderr in `errors`. Returns the exit code. */
static int draft(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int draft(const char *format, ...)
{
    char words[1024], line[1400];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    snprintf(line, sizeof line, DRAFT " %s >out 2>err </dev/null", words);
    int how = system(line);
    slurp("out", out, sizeof out);
    slurp("err", errors, sizeof errors);
    return WIFEXITED(how) ? WEXITSTATUS(how) : 200;
}

/* Submits a job of the fake worker; its name tells the worker what to do. Returns its id. */
static const char *submit(const char *name, int steps)
{
    static char id[32];
    assert_int_equal(draft("submit -m model -d prompts.txt --reward clip:model --steps %d --name '%s'", steps, name),
                     0);
    assert_int_equal(sscanf(out, "%31s", id), 1);
    return id;
}

static int begin(void **state)
{
    (void)state;
    if (access(DRAFTD, X_OK) != 0 || access(WORKER, X_OK) != 0 || access(DRAFT, X_OK) != 0) {
        fprintf(stderr, "draft, draftd or the fake worker are not built: skipped\n");
        exit(77);
    }
    if (!mkdtemp(folder) || chdir(folder) != 0 || mkdir("model", 0755) != 0)
        return -1;
    FILE *weights = fopen("model/weights", "w"), *prompts = fopen("prompts.txt", "w");
    if (!weights || !prompts)
        return -1;
    fputs("1", weights);
    fputs("an owl\na lion\n", prompts);
    fclose(weights);
    fclose(prompts);
    setenv("DRAFTD_SOCKET", "d.sock", 1);
    setenv("FAKE_GPUS", "1", 1);
    daemon_pid = fork();
    if (daemon_pid == 0) {
        if (!freopen("draftd.log", "w", stderr))
            _exit(127);
        execl(DRAFTD, DRAFTD, "--state-dir", "state", "--socket", "d.sock", "--worker", WORKER, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 200; i++) {
        if (draft("jobs") == 0)
            return 0;
        usleep(50000);
    }
    return -1;
}

static int end(void **state)
{
    char line[64];
    (void)state;
    kill(daemon_pid, SIGTERM);
    waitpid(daemon_pid, NULL, 0);
    snprintf(line, sizeof line, "rm -rf %s", folder);
    return chdir("/") || system(line);
}

#endif
