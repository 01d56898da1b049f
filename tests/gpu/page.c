/* The report as a page of text, from the JSON alone, so that the two cannot differ. */
#include <stdio.h>
#include <string.h>

#include "profile_page.h"
#include "runner.h"

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void head(FILE *out, const json_t *report)
{
    const json_t *device = json_object_get(report, "device"), *host = json_object_get(report, "host");
    fprintf(out, "%s on %s: %s\n\n", text(report, "program"),
            json_is_true(json_object_get(report, "over_fakes")) ? "the fakes, no GPU"
            : *text(device, "name")                             ? text(device, "name")
                                                                : "no GPU",
            text(report, "result"));
    fprintf(out, "started   %s, %.0f s\n", text(report, "started"), number(report, "seconds"));
    if (*text(device, "name"))
        fprintf(out, "device    %s, compute capability %s, %.0f GiB\n", text(device, "name"),
                text(device, "compute_capability"), number(device, "memory_bytes") / (1 << 30));
    fprintf(out, "host      %s, %.0f cores, %.0f GiB, Linux %s\n", text(host, "processor"), number(host, "cores"),
            number(host, "memory_bytes") / (1 << 30), text(host, "kernel"));
}

/* Items that are not in order, a line each. */
static void bad_items(FILE *out, const json_t *items)
{
    size_t i;
    const json_t *item;
    json_array_foreach (items, i, item)
        if (strcmp(text(item, "result"), "passed") != 0 && strcmp(text(item, "result"), "skipped") != 0)
            fprintf(out, "    %-24s %-10s %s\n", text(item, "name"), text(item, "result"), text(item, "why"));
}

static void parts_of(FILE *out, const json_t *report)
{
    size_t i;
    const json_t *part;
    fprintf(out, "\n%-24s %-10s %8s\n", "part", "result", "seconds");
    json_array_foreach (json_object_get(report, "parts"), i, part) {
        fprintf(out, "%-24s %-10s %8.1f", text(part, "name"), text(part, "result"), number(part, "seconds"));
        if (json_object_get(part, "items"))
            fprintf(out, "  %zu items", json_array_size(json_object_get(part, "items")));
        fprintf(out, "%s%s\n", *text(part, "why") ? "  " : "", text(part, "why"));
        bad_items(out, json_object_get(part, "items"));
    }
}

static void cell(FILE *out, const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    if (json_is_number(value))
        fprintf(out, " %10.4g", json_number_value(value));
    else
        fprintf(out, " %10s", "-");
}

static void benchmarks_of(FILE *out, const json_t *report)
{
    static const char *const keys[] = {"ours",       "goal",     "eager",          "ratio",
                                       "goal_ratio", "compiled", "ratio_compiled", "goal_ratio_compiled"};
    size_t i;
    const json_t *row, *all = json_object_get(report, "benchmarks");
    if (json_array_size(all) == 0)
        return;
    fprintf(out, "\n%-28s %-10s %10s %10s %10s %10s %10s %10s %10s %10s\n", "benchmark", "unit", "ours", "goal",
            "PyTorch", "ratio", "goal", "compiled", "ratio", "goal");
    json_array_foreach (all, i, row) {
        const json_t *met = json_object_get(row, "met");
        fprintf(out, "%-28s %-10s", text(row, "name"), text(row, "unit"));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            cell(out, row, keys[k]);
        fprintf(out, "  %s\n", json_is_true(met) ? "met" : json_is_false(met) ? "MISSED" : "");
    }
}

/* Where a benchmark's time goes. */
static void profiles_of(FILE *out, const json_t *report)
{
    size_t i;
    const json_t *part;
    json_array_foreach (json_object_get(report, "parts"), i, part) {
        const json_t *profile = json_object_get(json_object_get(part, "data"), "profile");
        if (!profile)
            continue;
        fprintf(out, "\n--- %s: where the time goes ---\n\n", text(part, "name"));
        draft_profile_print(profile, 0, "", "", out);
    }
}

char *page_of(const json_t *report)
{
    char *page = NULL;
    size_t size;
    FILE *out = open_memstream(&page, &size);
    if (!out)
        return NULL;
    head(out, report);
    parts_of(out, report);
    benchmarks_of(out, report);
    profiles_of(out, report);
    return fclose(out) == 0 ? page : NULL;
}
