#include "part.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 1000 };
static const size_t ARENA_BYTES = (size_t)64 << 30; /* address space, not memory */

static bool parse(struct bench_part *part, int argc, char **argv, struct draft_backend_options *machine)
{
    const char *precision = "fp32";
    const struct bench_option options[] = {{"runs", .number = &part->runs},
                                           {"threads", .number = &machine->threads},
                                           {"isa", .text = &machine->isa},
                                           {"precision", .text = &precision},
                                           {NULL}};
    if (!bench_read_options(argc, argv, options) || !bench_read_precision(precision, &machine->bf16) ||
        argc - optind != 2 || part->runs < 1 || part->runs > MAX_RUNS)
        return false;
    part->model = argv[optind];
    part->case_path = argv[optind + 1];
    return true;
}

bool bench_part_open(struct bench_part *part, int argc, char **argv)
{
    *part = (struct bench_part){.runs = 3};
    struct golden *t = &part->t;
    struct draft_backend_options machine = {0};
    if (!parse(part, argc, argv, &machine)) {
        fprintf(stderr, "usage: %s MODEL CASE [--runs N] [--threads N] [--isa NAME] [--precision fp32|bf16]\n",
                argv[0]);
        return false;
    }
    part->since = bench_seconds();
    bool ok = (t->backend = draft_backend_create_cpu(&machine, &t->error)) &&
              (t->weights = draft_arena_create("weights", ARENA_BYTES, &t->error)) &&
              (t->step = draft_arena_create("step", ARENA_BYTES, &t->error)) &&
              draft_graph_init(&t->g, t->backend, t->step, &t->error) &&
              (part->file = draft_safetensors_open(part->case_path, &t->error));
    if (!ok)
        fprintf(stderr, "%s: %s\n", argv[0], t->error.message);
    return ok;
}

bool bench_part_has(const struct bench_part *part, const char *name)
{
    return draft_safetensors_find(part->file, name) != NULL;
}

void bench_part_compare(struct bench_part *part, const char *name, const float *values)
{
    int64_t count;
    float *reference = golden_numbers(&part->t, part->file, name, &count);
    size_t used = strlen(part->differences), room = sizeof part->differences - used;
    if (reference && values)
        snprintf(part->differences + used, room, "%s\"%s\": %.3e", used ? ", " : "", name,
                 golden_relative(values, reference, count));
    else
        golden_fail(&part->t, "%s: there is nothing of ours to compare", name);
    free(reference);
}

static void print(const struct bench_part *part, double first, double *seconds)
{
    printf("{\"seconds\": %.6f, \"runs\": [", bench_median(seconds, part->runs));
    for (int i = 0; i < part->runs; i++)
        printf("%s%.6f", i ? ", " : "", seconds[i]);
    printf("], \"first_seconds\": %.3f, \"load_seconds\": %.3f, \"difference\": {%s}, \"version\": \"%s\", "
           "\"threads\": %d}\n",
           first, part->load_seconds, part->differences, draft_backend_isa(part->t.backend),
           draft_backend_threads(part->t.backend));
}

int bench_part_time(struct bench_part *part, const struct bench_part_calls *calls)
{
    static double seconds[MAX_RUNS];
    struct golden *t = &part->t;
    double first = 0;
    bool ok = calls->open(calls->context);
    part->load_seconds = bench_seconds() - part->since;
    for (int i = -1; ok && i < part->runs; i++) {
        draft_graph_reset(&t->g, 0);
        if (!(ok = calls->begin(calls->context)))
            break;
        double start = bench_seconds();
        ok = calls->run(calls->context);
        double took = bench_seconds() - start;
        if (i >= 0)
            seconds[i] = took;
        else
            first = took;
        if (ok && i < 0)
            calls->compare(calls->context);
    }
    ok = ok && t->failures == 0;
    if (ok)
        print(part, first, seconds);
    else
        fprintf(stderr, "%s with %s: %s%s\n", part->model, part->case_path, t->error.message, t->g.error.message);
    draft_safetensors_close(part->file);
    golden_close(t);
    return ok ? 0 : 1;
}
