#include "ticks.h"

#include <math.h>
#include <stdio.h>

struct draft_ticks draft_ticks(double low, double high, int wanted, bool whole)
{
    struct draft_ticks ticks = {.first = low, .step = 1, .count = 1};
    if (!(high > low) || !isfinite(high - low) || wanted < 2)
        return ticks;
    static const double leads[] = {1, 2, 5, 10};
    double raw = (high - low) / wanted, power = pow(10, floor(log10(raw)));
    int lead = raw <= power ? 0 : raw <= 2 * power ? 1 : raw <= 5 * power ? 2 : 3;
    /* A little slack, or rounding would lose a mark that lies on the edge. */
    double slack = 1e-9 * (high - low);
    for (;; lead--) { /* an unlucky range holds only one multiple: a finer step then */
        if (lead < 0) {
            power /= 10;
            lead = 2;
        }
        ticks.step = leads[lead] * power;
        if (whole && ticks.step < 1)
            ticks.step = 1;
        ticks.first = ceil((low - slack) / ticks.step) * ticks.step;
        ticks.count = (int)floor((high + slack - ticks.first) / ticks.step) + 1;
        if (ticks.count >= 2 || (whole && ticks.step <= 1))
            break;
    }
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
