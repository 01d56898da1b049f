/* Where an axis has its marks: multiples of 1, 2 or 5 times a power of ten. */
#ifndef DRAFT_CLIENT_TICKS_H
#define DRAFT_CLIENT_TICKS_H

#include <stdbool.h>
#include <stddef.h>

struct draft_ticks {
    double first, step;
    int count;
    int decimals; /* that tell two neighbours apart */
};

/* Marks inside [low, high], about `wanted` of them (at least 2 where the range has any width). `whole`: no fractions.
 */
struct draft_ticks draft_ticks(double low, double high, int wanted, bool whole);
double draft_tick(const struct draft_ticks *ticks, int index);
char *draft_tick_label(const struct draft_ticks *ticks, int index, char *out, size_t size);

#endif
