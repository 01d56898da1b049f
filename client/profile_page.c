#include "profile_page.h"

#include <string.h>

#include "table.h"

enum { MOST_OPS = 24 }; /* the others take next to no time */

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

/* --- Tables ------------------------------------------------------------------------------------------------------- */

static void cells(struct draft_table *table, const json_t *profile, const json_t *row)
{
    double seconds = number(row, "seconds"), flops = number(row, "flops"), bytes = number(row, "bytes");
    bool backward = json_is_true(json_object_get(row, "backward"));
    const char *phase = text(row, "phase");
    draft_table_row(table);
    draft_table_cell(table, "%s%s%s%s", phase, *phase ? ": " : "", text(row, "op"),
                     backward && !*phase ? ", backward" : "");
    draft_table_cell(table, "%.3f", 1e3 * seconds);
    draft_table_cell(table, "%.1f %%", 100 * seconds / number(profile, "step_seconds"));
    draft_table_cell(table, "%.4g", number(row, "calls"));
    if (number(row, "launches") > 0)
        draft_table_cell(table, "%.4g", number(row, "launches"));
    else
        draft_table_cell(table, "-");
    draft_table_cell(table, "%.4g", flops / 1e9);
    draft_table_cell(table, "%.4g", bytes / 1e6);
    draft_table_cell(table, "%.4g", seconds > 0 ? flops / seconds / 1e9 : 0);
    draft_table_cell(table, "%.4g", seconds > 0 ? bytes / seconds / 1e9 : 0);
    draft_table_cell(table, "%s", text(row, "bound"));
    draft_table_cell(table, "%.0f %%", 100 * number(row, "share"));
}

static void print_rows(const json_t *profile, const char *key, const char *title, int most, const char *bold,
                       const char *plain, FILE *out)
{
    const struct draft_column columns[] = {{.title = title},
                                           {.title = "ms", .right = true},
                                           {.title = "share", .right = true},
                                           {.title = "calls", .right = true},
                                           {.title = "launches", .right = true},
                                           {.title = "GFLOP", .right = true},
                                           {.title = "MB", .right = true},
                                           {.title = "GFLOP/s", .right = true},
                                           {.title = "GB/s", .right = true},
                                           {.title = "bound by"},
                                           {.title = "of it", .right = true}};
    struct draft_table *table = draft_table_create(columns, sizeof columns / sizeof columns[0]);
    const json_t *row, *rows = json_object_get(profile, key);
    size_t i, count = json_array_size(rows), shown = most == 0 || count < (size_t)most ? count : (size_t)most;
    json_array_foreach (rows, i, row)
        if (i < shown)
            cells(table, profile, row);
    draft_table_print(table, 0, bold, plain, out);
    size_t left = count - shown + (strcmp(key, "rows") == 0 ? (size_t)number(profile, "left_out") : 0);
    if (left > 0)
        fprintf(out, "and %zu more\n", left);
    fputc('\n', out);
    draft_table_free(table);
}

/* --- What to make of it ------------------------------------------------------------------------------------------- */

/* Of the rows bound by it; NULL: of all. */
static double seconds_of(const json_t *rows, const char *bound)
{
    size_t i;
    const json_t *row;
    double sum = 0;
    json_array_foreach (rows, i, row)
        if (!bound || strcmp(text(row, "bound"), bound) == 0)
            sum += number(row, "seconds");
    return sum;
}

/* Of the rows bound by one thing: their time, and what could be saved of it at most. */
static void advise(const json_t *profile, FILE *out)
{
    static const struct {
        const char *bound, *text;
    } advice[] = {
        {"FLOPs", "goes into arithmetic (FLOPs): less of it is a lower precision, fewer steps, a smaller picture"},
        {"bytes", "goes into moving numbers (bytes): ops that one kernel could do together"},
        {"launches", "goes into starting kernels that have little to do (launches): fewer ops, or a larger batch"},
        {"nothing", "goes into none of the three: small shapes, a poor kernel, or the host"},
    };
    const json_t *rows = json_object_get(profile, "by_op"), *row;
    const double all = seconds_of(rows, NULL);
    const json_t *worst = NULL;
    double most = 0;
    size_t k;
    fprintf(out, "Of the time in ops\n");
    for (int i = 0; i < 4; i++) {
        double seconds = seconds_of(rows, advice[i].bound);
        if (seconds >= 0.005 * all && seconds > 0)
            fprintf(out, "  %3.0f %%  %s\n", 100 * seconds / all, advice[i].text);
    }
    json_array_foreach (rows, k, row) {
        double share = number(row, "share"), lost = number(row, "seconds") * (share < 1 ? 1 - share : 0);
        if (lost > most) {
            most = lost;
            worst = row;
        }
    }
    if (worst)
        fprintf(out, "Look first at %s%s: at what this machine reaches it would take %.3g ms instead of %.3g.\n\n",
                text(worst, "op"), json_is_true(json_object_get(worst, "backward")) ? ", backward" : "",
                1e3 * (number(worst, "seconds") - most), 1e3 * number(worst, "seconds"));
}

void draft_profile_print(const json_t *profile, int most, const char *bold, const char *plain, FILE *out)
{
    double launch = number(profile, "launch_seconds"), replayed = number(profile, "replayed_seconds");
    fprintf(out, "A step took %.4g s with every op timed (%s): %.4g s in ops, %.4g s in the optimizer.\n",
            number(profile, "step_seconds"), text(profile, "precision"),
            seconds_of(json_object_get(profile, "by_phase"), NULL),
            number(json_object_get(profile, "phases"), "optimizer"));
    if (replayed > 0)
        fprintf(
            out,
            "A job's step, whose launches are recorded, takes %.4g s: what the rows below have more is the host's.\n",
            replayed);
    fprintf(out, "This machine, just measured, reaches %.4g GFLOP/s in a large product and %.4g GB/s in a large copy",
            number(profile, "flops_per_second") / 1e9, number(profile, "bytes_per_second") / 1e9);
    fprintf(out, launch > 0 ? ";\na launch of next to nothing takes it %.3g us.\n\n" : ".\n\n", 1e6 * launch);
    advise(profile, out);
    print_rows(profile, "by_phase", "phase", 0, bold, plain, out);
    print_rows(profile, "by_op", "op", MOST_OPS, bold, plain, out);
    print_rows(profile, "rows", "call", most, bold, plain, out);
    fprintf(out, "share: of the step. bound by: which of its FLOPs, bytes and launches takes longest at what the "
                 "machine reaches;\n"
                 "of it: how much of the row's time that explains (a roofline). Near 100 %%, only less of it makes the "
                 "row faster;\n"
                 "far below, a better kernel would. Under a tenth it is bound by nothing of this. Above 100 %%: data "
                 "in the cache,\n"
                 "or fewer operations than are counted (Winograd).\n");
}
