#include "profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "private_daemon.h"

struct worker {
    pid_t pid;
    FILE *to, *from;
};

static bool start(const char *program, struct worker *worker, struct draft_status *st)
{
    int in[2], out[2];
    if (pipe(in) != 0 || pipe(out) != 0)
        return draft_status_fail(st, DRAFT_STATUS_RESOURCE_EXHAUSTED, "cannot start draft-engine: %s", strerror(errno));
    worker->pid = fork();
    if (worker->pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        for (int i = 0; i < 2; i++) {
            close(in[i]);
            close(out[i]);
        }
        execl(program, program, "profile", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    worker->to = fdopen(in[1], "w");
    worker->from = fdopen(out[0], "r");
    return worker->pid > 0 && worker->to && worker->from
               ? true
               : draft_status_fail(st, DRAFT_STATUS_RESOURCE_EXHAUSTED, "cannot start draft-engine");
}

static void send_spec(FILE *to, const Draftd__V1__JobSpec *spec)
{
    size_t size = draftd__v1__job_spec__get_packed_size(spec);
    uint8_t *bytes = malloc(size + 1);
    if (!bytes)
        abort();
    draftd__v1__job_spec__pack(spec, bytes);
    fwrite(bytes, 1, size, to);
    fclose(to);
    free(bytes);
}

json_t *draft_profile_fetch(const Draftd__V1__JobSpec *spec, struct draft_status *st)
{
    char program[4200];
    struct worker worker = {0};
    json_error_t wrong;
    int status = 0;
    draft_program_beside("draft-engine", program, sizeof program);
    if (!program[0]) {
        draft_status_fail(st, DRAFT_STATUS_NOT_FOUND,
                          "there is no draft-engine beside this program; build or install it in the same folder");
        return NULL;
    }
    if (!start(program, &worker, st))
        return NULL;
    send_spec(worker.to, spec);
    json_t *told = json_loadf(worker.from, 0, &wrong);
    fclose(worker.from);
    waitpid(worker.pid, &status, 0);
    if (told && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return told;
    json_decref(told);
    if (WIFSIGNALED(status))
        draft_status_fail(st, DRAFT_STATUS_INTERNAL, "draft-engine was ended by signal %d", WTERMSIG(status));
    else
        draft_status_fail(st, DRAFT_STATUS_INTERNAL, "the job could not be profiled; draft-engine says why above");
    return NULL;
}
