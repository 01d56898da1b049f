#include "plot.h"

#include <math.h>

struct draft_rgb draft_palette(int index)
{
    static const struct draft_rgb colours[] = {
        {0.000, 0.447, 0.698}, /* blue */
        {0.835, 0.369, 0.000}, /* vermillion */
        {0.000, 0.620, 0.451}, /* bluish green */
        {0.800, 0.475, 0.655}, /* reddish purple */
        {0.902, 0.624, 0.000}, /* orange */
        {0.337, 0.706, 0.914}, /* sky blue */
        {0.350, 0.350, 0.350}, /* grey */
    };
    return colours[(unsigned)index % (sizeof colours / sizeof colours[0])];
}

struct draft_rgb draft_ramp(double t)
{
    /* viridis, without its last pale part, which is lost on white */
    static const struct draft_rgb stops[] = {
        {0.267, 0.005, 0.329}, {0.254, 0.265, 0.530}, {0.164, 0.471, 0.558},
        {0.135, 0.659, 0.518}, {0.478, 0.800, 0.318},
    };
    t = fmin(fmax(t, 0), 1) * 4;
    int i = t >= 4 ? 3 : (int)t;
    double f = t - i;
    return (struct draft_rgb){stops[i].r + f * (stops[i + 1].r - stops[i].r),
                              stops[i].g + f * (stops[i + 1].g - stops[i].g),
                              stops[i].b + f * (stops[i + 1].b - stops[i].b)};
}

static void widen(double value, double *low, double *high)
{
    if (isfinite(value)) {
        *low = fmin(*low, value);
        *high = fmax(*high, value);
    }
}

static bool with_margin(double margin, double *low, double *high)
{
    if (!(*high >= *low))
        return false;
    double width = *high - *low, least = 1e-6 * fmax(fabs(*high), 1e-6);
    double add = width > least ? margin * width : fmax(0.05 * fabs(*high), 0.5 * least);
    *low -= add;
    *high += add;
    return true;
}

bool draft_axes_range(const struct draft_axes *axes, double margin, double *x0, double *x1, double *y0, double *y1)
{
    *x0 = *y0 = INFINITY;
    *x1 = *y1 = -INFINITY;
    for (int l = 0; l < axes->count; l++) {
        const struct draft_line *line = &axes->lines[l];
        for (size_t i = 0; i < line->count; i++) {
            if (!isfinite(line->x[i]) || !isfinite(line->y[i]))
                continue;
            widen(line->x[i], x0, x1);
            widen(line->y[i], y0, y1);
            if (line->low && line->high) {
                widen(line->low[i], y0, y1);
                widen(line->high[i], y0, y1);
            }
        }
    }
    return with_margin(axes->whole_x ? 0 : margin, x0, x1) && with_margin(margin, y0, y1);
}
