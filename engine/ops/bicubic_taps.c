#include "ops/bicubic_taps.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static bool allocate(struct draft_graph *g, struct draft_taps *t)
{
    t->first = draft_note(g, (size_t)t->out * sizeof *t->first);
    t->count = draft_note(g, (size_t)t->out * sizeof *t->count);
    t->weight = draft_note(g, (size_t)(t->out * t->width) * sizeof *t->weight);
    if (draft_graph_ok(g))
        memset(t->weight, 0, (size_t)(t->out * t->width) * sizeof *t->weight); /* what a destination does not use */
    return draft_graph_ok(g);
}

bool draft_bicubic_taps(struct draft_graph *g, int64_t in, int64_t out, struct draft_taps *t)
{
    double scale = (double)in / (double)out, stretch = scale > 1 ? scale : 1, support = 2 * stretch;
    *t = (struct draft_taps){.out = out, .width = (int64_t)ceil(support) * 2 + 1};
    if (!allocate(g, t))
        return false;
    for (int64_t i = 0; i < out; i++) {
        double center = scale * ((double)i + 0.5), sum = 0;
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        first = first > 0 ? first : 0;
        end = end < in ? end : in;
        float *weight = t->weight + i * t->width;
        assert(end - first <= t->width);
        for (int64_t j = first; j < end; j++)
            sum += cubic(((double)j + 0.5 - center) / stretch);
        for (int64_t j = first; j < end; j++)
            weight[j - first] = (float)(cubic(((double)j + 0.5 - center) / stretch) / sum);
        t->first[i] = (int32_t)first;
        t->count[i] = (int32_t)(end - first);
    }
    return true;
}

/* Windows move to the right only, so those that hold a source are neighbours. */
bool draft_bicubic_taps_back(struct draft_graph *g, int64_t in, int64_t out, struct draft_taps *t)
{
    struct draft_taps of;
    *t = (struct draft_taps){.out = in};
    if (!draft_bicubic_taps(g, in, out, &of))
        return false;
    int64_t begin = 0, end = 0;
    for (int64_t j = 0; j < in; j++) {
        while (begin < out && of.first[begin] + of.count[begin] <= j)
            begin++;
        while (end < out && of.first[end] <= j)
            end++;
        t->width = end - begin > t->width ? end - begin : t->width;
    }
    if (!allocate(g, t))
        return false;
    begin = end = 0;
    for (int64_t j = 0; j < in; j++) {
        while (begin < out && of.first[begin] + of.count[begin] <= j)
            begin++;
        while (end < out && of.first[end] <= j)
            end++;
        t->first[j] = (int32_t)begin;
        t->count[j] = (int32_t)(end - begin);
        for (int64_t i = begin; i < end; i++)
            t->weight[j * t->width + i - begin] = of.weight[i * of.width + j - of.first[i]];
    }
    return true;
}
