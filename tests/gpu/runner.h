/*
 * gpu_run: the check on a GPU, part by part. Each part is a process of its own with a time limit, so that what hangs or
 * dies takes nothing else along; a table of them is in parts.c, what became of them in one JSON report and a page of
 * text (README.md has the report's schema).
 *
 * What a part says on stdout: anything, and as its last line a JSON object, its numbers. A part that is made of items
 * says for each "@ NAME begins" and then "@ NAME passed|failed|skipped TEXT"; when it dies in between it is started
 * again with --after NAME.
 */
#ifndef TESTS_GPU_RUNNER_H
#define TESTS_GPU_RUNNER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum outcome { NOT_RUN, PASSED, FAILED, SKIPPED, TIMED_OUT, CRASHED };
const char *outcome_name(enum outcome outcome); /* "timed out" */
bool outcome_is_bad(enum outcome outcome);      /* the report fails by it */

/* --- process.c ------------------------------------------------------------------------------------------------------
 */

enum { TAIL_BYTES = 3000, LINE_BYTES = 1 << 17 }; /* a profile is a line */

struct ended {
    enum outcome outcome;
    int status, signal; /* exit status, or what killed it */
    double seconds;
    char tail[TAIL_BYTES]; /* the end of what it said, stdout and stderr together */
};

double seconds_now(void); /* monotonic */
/* Runs argv in a process group of its own and kills the group after `limit` seconds; argv[0] is searched in PATH.
 * `line` is called with each line as it comes. */
void run_process(char *const *argv, double limit, void (*line)(void *context, const char *text), void *context,
                 struct ended *ended);

/* --- parts.c --------------------------------------------------------------------------------------------------------
 */

struct part {
    const char *name, *group;
    /* Words, the program first; {device}, {models} and {spoil} stand for what the run knows. NULL: not on this kind. */
    const char *command;
    const char *host; /* over the fakes, small */
    int limit;        /* seconds */
    bool items;
    const char *shows;
};
extern const struct part parts[];
extern const int part_count;

/* A number of section 3 of a run: from a part's JSON, beside PyTorch's and the goal. */
struct benchmark {
    const char *name, *unit, *part, *key;
    const char *peer, *compiled;     /* parts of the peer, NULL: none */
    double goal;                     /* 0: none */
    double over_peer, over_compiled; /* goals of the ratios to the peers, 0: none */
    bool smaller;                    /* is better */
};
extern const struct benchmark benchmarks[];
extern const int benchmark_count;

/* --- report.c -------------------------------------------------------------------------------------------------------
 */

enum { MAX_PARTS = 96 };
struct finished {
    const struct part *part;
    enum outcome outcome;
    double seconds, limit;
    int status, signal;
    char why[400]; /* "": passed */
    char tail[TAIL_BYTES];
    json_t *data, *items; /* NULL: none */
};

struct run {
    struct finished part[MAX_PARTS];
    int count;
    bool host; /* over the fakes */
    double seconds;
    const char *started; /* UTC, ISO 8601 */
    json_t *device;      /* as the part "device" said */
};

/* The whole report; the caller's reference. */
json_t *report_of(const struct run *run);
bool run_failed(const struct run *run);

/* page.c: the report as a page of text; malloc'd. */
char *page_of(const json_t *report);

#endif
