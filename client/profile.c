#include "profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "private_daemon.h"
#include "table.h"
#include "text.h"

/* --- The worker -----------------------------------------------------------------------------------------------------
 */

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

/* --- The page -------------------------------------------------------------------------------------------------------
 */

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

/* Where a row stands below the roofline: the share of what its FLOPs or its bytes, whichever take longer, would allow.
 */
struct bound {
    const char *by;
    double share;
};

static struct bound bound_of(const json_t *profile, double seconds, double flops, double bytes)
{
    double arithmetic = flops / number(profile, "flops_per_second"),
           memory = bytes / number(profile, "bytes_per_second");
    double least = arithmetic > memory ? arithmetic : memory;
    struct bound bound = {.by = arithmetic > memory ? "FLOPs" : "bytes", .share = seconds > 0 ? least / seconds : 0};
    if (bound.share < 0.1)
        bound.by = "neither"; /* overheads: launches, small shapes, a poor kernel */
    return bound;
}

static void cells(struct draft_table *table, const json_t *profile, const json_t *row)
{
    double seconds = number(row, "seconds"), flops = number(row, "flops"), bytes = number(row, "bytes");
    struct bound bound = bound_of(profile, seconds, flops, bytes);
    draft_table_cell(table, "%.3f", 1e3 * seconds);
    draft_table_cell(table, "%.1f %%", 100 * seconds / number(profile, "step_seconds"));
    draft_table_cell(table, "%.4g", number(row, "calls"));
    draft_table_cell(table, "%.4g", number(row, "launches"));
    draft_table_cell(table, "%.4g", flops / 1e9);
    draft_table_cell(table, "%.4g", bytes / 1e6);
    draft_table_cell(table, "%.4g", seconds > 0 ? flops / seconds / 1e9 : 0);
    draft_table_cell(table, "%.4g", seconds > 0 ? bytes / seconds / 1e9 : 0);
    draft_table_cell(table, "%s", bound.by);
    draft_table_cell(table, "%.0f %%", 100 * bound.share);
}

/* Rows summed by one key's value, in the order of their time. */
static json_t *summed(const json_t *profile, const char *key)
{
    static const char *const keys[] = {"calls", "launches", "seconds", "flops", "bytes"};
    json_t *sums = json_object(), *list = json_array();
    size_t i;
    json_t *row;
    json_array_foreach (json_object_get(profile, "rows"), i, row) {
        char name[128];
        snprintf(name, sizeof name, "%s", text(row, key));
        if (!strcmp(key, "op")) { /* its shapes away, its direction on */
            name[strcspn(name, " ")] = 0;
            if (json_is_true(json_object_get(row, "backward")))
                strncat(name, " backward", sizeof name - strlen(name) - 1);
        }
        json_t *sum = json_object_get(sums, name);
        if (!sum) {
            sum = json_pack("{ss}", "op", name);
            json_object_set_new(sums, name, sum);
            json_array_append(list, sum);
        }
        for (int k = 0; k < 5; k++)
            json_object_set_new(sum, keys[k], json_real(number(sum, keys[k]) + number(row, keys[k])));
    }
    json_decref(sums);
    return list;
}

static int longest_first(const void *a, const void *b)
{
    double x = number(*(json_t *const *)a, "seconds"), y = number(*(json_t *const *)b, "seconds");
    return (x < y) - (x > y);
}

static void print_rows(const json_t *profile, const json_t *rows, const char *title, int most,
                       const struct draft_terminal *terminal)
{
    const struct draft_column columns[] = {{.title = title},
                                           {.title = "ms", .right = true},
                                           {.title = "share", .right = true},
                                           {.title = "calls", .right = true},
                                           {.title = "launches", .right = true},
                                           {.title = "GFLOP", .right = true},
                                           {.title = "MB", .right = true},
                                           {.title = "GFLOP/s", .right = true},
                                           {.title = "GB/s", .right = true},
                                           {.title = "bound by"},
                                           {.title = "of it", .right = true}};
    struct draft_table *table = draft_table_create(columns, sizeof columns / sizeof columns[0]);
    size_t count = json_array_size(rows), i;
    json_t *row, **sorted = calloc(count + 1, sizeof(json_t *));
    if (!sorted)
        abort();
    json_array_foreach (rows, i, row)
        sorted[i] = row;
    qsort(sorted, count, sizeof *sorted, longest_first);
    for (i = 0; i < count && (most == 0 || i < (size_t)most); i++) {
        draft_table_row(table);
        draft_table_cell(table, "%s%s", text(sorted[i], "op"),
                         json_is_true(json_object_get(sorted[i], "backward")) ? ", backward" : "");
        cells(table, profile, sorted[i]);
    }
    draft_table_print(table, 0, draft_ink(terminal, DRAFT_BOLD), draft_ink(terminal, DRAFT_PLAIN), terminal->out);
    if (i < count)
        fprintf(terminal->out, "and %zu more, all of them with --json\n", count - i);
    fputc('\n', terminal->out);
    draft_table_free(table);
    free(sorted);
}

void draft_profile_print(const json_t *profile, int most, const struct draft_terminal *terminal)
{
    FILE *out = terminal->out;
    const json_t *phases = json_object_get(profile, "phases");
    double step = number(profile, "step_seconds"), in_ops = 0;
    size_t i;
    json_t *row, *by_phase = summed(profile, "phase"), *by_op = summed(profile, "op");
    json_array_foreach (json_object_get(profile, "rows"), i, row)
        in_ops += number(row, "seconds");
    fprintf(out, "a step took %.4g s with every op timed (%s); %.4g s of it in ops, %.4g s in the optimizer\n", step,
            text(profile, "precision"), in_ops, number(phases, "optimizer"));
    fprintf(out, "the machine reaches %.4g GFLOP/s in a large product and %.4g GB/s in a large copy, just measured\n\n",
            number(profile, "flops_per_second") / 1e9, number(profile, "bytes_per_second") / 1e9);
    print_rows(profile, by_phase, "phase", 0, terminal);
    print_rows(profile, by_op, "op", 0, terminal);
    print_rows(profile, json_object_get(profile, "rows"), "call", most, terminal);
    fprintf(out,
            "bound by: whichever of its FLOPs and bytes takes longer at what the machine reaches; of it: how much of\n"
            "the time that explains. \"neither\" is under a tenth: launches, small shapes or a poor kernel; above 100 "
            "%%: data\n"
            "in the cache, or fewer operations than are counted (Winograd).\n");
    json_decref(by_phase);
    json_decref(by_op);
}
