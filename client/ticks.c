#include "ticks.h"

#include <math.h>
#include <stdio.h>

struct draft_ticks draft_ticks(double low, double high, int wanted, bool whole)
{
    struct draft_ticks ticks = {.first = low, .step = 1, .count = 1};
    if (!(high > low) || !isfinite(high - low) || wanted < 2)
        return ticks;
    double raw = (high - low) / wanted, power = pow(10, floor(log10(raw))), part = raw / power;
    ticks.step = power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
    if (whole && ticks.step < 1)
        ticks.step = 1;
    /* A little slack, or rounding would lose a mark that lies on the edge. */
    double slack = 1e-9 * (high - low);
    ticks.first = ceil((low - slack) / ticks.step) * ticks.step;
    ticks.count = (int)floor((high + slack - ticks.first) / ticks.step) + 1;
    ticks.decimals = (int)ceil(-log10(ticks.step) - 1e-9);
    if (ticks.decimals < 0)
        ticks.decimals = 0;
    return ticks;
}

double draft_tick(const struct draft_ticks *ticks, int index)
{
    double value = ticks->first + index * ticks->step;
    return fabs(value) < 1e-9 * ticks->step ? 0 : value; /* no "-0" */
}

char *draft_tick_label(const struct draft_ticks *ticks, int index, char *out, size_t size)
{
    double value = draft_tick(ticks, index);
    if (ticks->decimals > 4 || fabs(value) >= 1e6)
        snprintf(out, size, "%.4g", value);
    else
        snprintf(out, size, "%.*f", ticks->decimals, value);
    return out;
}
