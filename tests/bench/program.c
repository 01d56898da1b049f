#include "program.h"

#include <assert.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool bench_read_options(int argc, char **argv, const struct bench_option *options)
{
    enum { MOST = 32 };
    struct option known[MOST + 1] = {0};
    for (int i = 0; options[i].name; i++) {
        assert(i < MOST);
        known[i] = (struct option){options[i].name, options[i].flag ? no_argument : required_argument, NULL, 0};
    }
    for (int found, index; (found = getopt_long(argc, argv, "", known, &index)) != -1;) {
        if (found != 0)
            return false;
        const struct bench_option *option = &options[index];
        if (option->number)
            *option->number = atoi(optarg);
        else if (option->real)
            *option->real = atof(optarg);
        else if (option->text)
            *option->text = optarg;
        else
            *option->flag = true;
    }
    return true;
}

bool bench_read_precision(const char *text, bool *bf16)
{
    *bf16 = strcmp(text, "bf16") == 0;
    return *bf16 || strcmp(text, "fp32") == 0;
}

double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}
