/*
 * What the programs share that time one part of a model by itself: the machine, the case (inputs, and PyTorch's results
 * of them; made by tests/peers/parts.py in torch's layouts), repetitions, and one JSON line with the peer's keys.
 *
 *   bench_PART MODEL CASE [--runs N] [--threads N] [--isa NAME] [--precision fp32|bf16]
 *
 * Reading the case and comparing are golden_check's (tests/golden/golden.h).
 */
#ifndef DRAFT_BENCH_PART_H
#define DRAFT_BENCH_PART_H

#include "../golden/golden.h"
#include "backend/backend.h"
#include "program.h"

struct bench_part {
    struct golden t; /* backend, arenas, graph */
    const char *model, *case_path;
    struct draft_safetensors *file;
    int runs;
    double since; /* when loading began */
    double load_seconds;
    char differences[2048]; /* JSON members: relative differences of the first run's results */
};

/* Reads the command line, makes the machine, opens the case. False: said on stderr, exit with 1. */
bool bench_part_open(struct bench_part *part, int argc, char **argv);

/* Whether the case has this tensor: what a case holds decides what is run. */
bool bench_part_has(const struct bench_part *part, const char *name);
/* Of the first run: beside the case's tensor `name`. NULL values: the result is missing. */
void bench_part_compare(struct bench_part *part, const char *name, const float *values);

/* One part: `open` its weights; `begin` puts the inputs into an empty step arena, untimed; `run` is timed. All have set
 * the part's or the graph's error when they return false. */
struct bench_part_calls {
    bool (*open)(void *context), (*begin)(void *context), (*run)(void *context);
    void (*compare)(void *context); /* looks at the first run's results */
    void *context;
};
/* Opens, runs once to compare and to prepare weights, then part->runs times, prints the line, closes. The exit status.
 */
int bench_part_time(struct bench_part *part, const struct bench_part_calls *calls);

#endif
