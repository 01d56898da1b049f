#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "runner.h"

/* Of this schema, which README.md describes: up by one with every change that a reader must know of. */
enum { SCHEMA = 1 };

bool run_failed(const struct run *run)
{
    for (int i = 0; i < run->count; i++)
        if (outcome_is_bad(run->part[i].outcome))
            return true;
    return false;
}

/* "model name : AMD EPYC ..." of /proc/cpuinfo */
static void processor(char *name, size_t size)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
            snprintf(name, size, "%s", strchr(line, ':') + 2);
            name[strcspn(name, "\n")] = 0;
            break;
        }
    if (file)
        fclose(file);
}

static json_t *host_of(void)
{
    char name[256];
    struct utsname system = {.release = ""};
    processor(name, sizeof name);
    uname(&system);
    return json_pack("{ss si sI ss}", "processor", name, "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "memory_bytes",
                     (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), "kernel", system.release);
}

static json_t *part_of(const struct finished *f)
{
    json_t *o = json_pack("{ss ss ss ss sf sf si si}", "name", f->part->name, "group", f->part->group, "shows",
                          f->part->shows, "result", outcome_name(f->outcome), "seconds", f->seconds, "limit_seconds",
                          f->limit, "status", f->status, "signal", f->signal);
    if (f->why[0])
        json_object_set_new(o, "why", json_stringn_nocheck(f->why, strlen(f->why)));
    if (f->outcome != PASSED && f->tail[0])
        json_object_set_new(o, "tail", json_stringn_nocheck(f->tail, strlen(f->tail)));
    if (f->data)
        json_object_set(o, "data", f->data);
    if (f->items)
        json_object_set(o, "items", f->items);
    return o;
}

/* NaN: that part did not run, or does not say. */
static double number_of(const struct run *run, const char *part, const char *key)
{
    for (int i = 0; part && i < run->count; i++)
        if (!strcmp(run->part[i].part->name, part) && run->part[i].outcome == PASSED)
            return json_is_number(json_object_get(run->part[i].data, key))
                       ? json_number_value(json_object_get(run->part[i].data, key))
                       : NAN;
    return NAN;
}

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static bool reached(double value, double goal, bool smaller)
{
    return smaller ? value <= goal : value >= goal;
}

/* "met": all of its goals that could be judged are reached; null when none could be. */
static json_t *benchmark_of(const struct run *run, const struct benchmark *b)
{
    double ours = number_of(run, b->part, b->key), peer = number_of(run, b->peer, b->key),
           compiled = number_of(run, b->compiled, b->key);
    const double value[] = {ours, ours / peer, ours / compiled}, goal[] = {b->goal, b->over_peer, b->over_compiled};
    json_t *met = json_null();
    for (int i = 0; i < 3; i++)
        if (goal[i] > 0 && isfinite(value[i]) && !json_is_false(met))
            met = json_boolean(reached(value[i], goal[i], b->smaller));
    return json_pack("{ss ss so so so so so so so so so}", "name", b->name, "unit", b->unit, "ours", real_or_null(ours),
                     "eager", real_or_null(peer), "compiled", real_or_null(compiled), "ratio",
                     real_or_null(ours / peer), "ratio_compiled", real_or_null(ours / compiled), "goal",
                     real_or_null(b->goal > 0 ? b->goal : NAN), "goal_ratio",
                     real_or_null(b->over_peer > 0 ? b->over_peer : NAN), "goal_ratio_compiled",
                     real_or_null(b->over_compiled > 0 ? b->over_compiled : NAN), "met", met);
}

json_t *report_of(const struct run *run)
{
    json_t *list = json_array(), *numbers = json_array();
    bool any = false;
    for (int i = 0; i < run->count; i++) {
        json_array_append_new(list, part_of(&run->part[i]));
        any |= run->part[i].outcome == PASSED;
    }
    for (int i = 0; !run->host && i < benchmark_count; i++)
        json_array_append_new(numbers, benchmark_of(run, &benchmarks[i]));
    return json_pack("{si ss ss sb ss sf so sO? so so}", "schema", SCHEMA, "program", "draftd " DRAFT_VERSION,
                     "started", run->started, "over_fakes", run->host, "result",
                     run_failed(run) ? "failed"
                     : any           ? "passed"
                                     : "skipped",
                     "seconds", run->seconds, "host", host_of(), "device", run->device, "parts", list, "benchmarks",
                     numbers);
}
