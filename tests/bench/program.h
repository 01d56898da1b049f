/* What every benchmark program needs: its options, a clock, a median. */
#ifndef DRAFT_BENCH_PROGRAM_H
#define DRAFT_BENCH_PROGRAM_H

#include <stdbool.h>

/* --NAME VALUE into one of these, whichever is not NULL; `flag` takes no value. */
struct bench_option {
    const char *name;
    int *number;
    double *real;
    const char **text;
    bool *flag;
};
/* `options` ends with a NULL name. The operands are argv[optind ...]. False: a wrong option. */
bool bench_read_options(int argc, char **argv, const struct bench_option *options);
/* "fp32" or "bf16"; false: neither. */
bool bench_read_precision(const char *text, bool *bf16);

double bench_seconds(void);                     /* monotonic */
double bench_median(double *values, int count); /* sorts them */

#endif
