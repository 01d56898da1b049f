/*
 * gpu_check NAME ...: one of the checks that tests/gpu/run makes (ops.c, job.c, tests/golden, tests/bench/step.c). They
 * are one program because each by itself would carry the engine again, 2 MB.
 */
#include "check.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} checks[] = {{"ops", check_ops}, {"golden", check_golden}, {"job", check_job}, {"bench", check_bench}};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof checks / sizeof *checks; i++)
        if (strcmp(argv[1], checks[i].name) == 0)
            return checks[i].run(argc - 1, argv + 1);
    fprintf(stderr, "usage: gpu_check ops|golden|job|bench ...\n");
    return 2;
}
