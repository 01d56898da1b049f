#include "metric_rows.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_message.h"
#include "table.h"
#include "text.h"

/* Walks all series at once in order of step: calls row() with each series' index at that step, or -1. */
static void each_step(const struct draft_series_set *set, void (*row)(void *, int64_t, const long *), void *context)
{
    size_t *at = calloc((size_t)set->count + 1, sizeof *at);
    long *here = calloc((size_t)set->count + 1, sizeof *here);
    if (!at || !here)
        abort();
    for (;;) {
        int64_t step = INT64_MAX;
        bool any = false;
        for (int s = 0; s < set->count; s++)
            if (at[s] < set->series[s].count && (!any || set->series[s].steps[at[s]] < step)) {
                step = set->series[s].steps[at[s]];
                any = true;
            }
        if (!any)
            break;
        for (int s = 0; s < set->count; s++) {
            bool has = at[s] < set->series[s].count && set->series[s].steps[at[s]] == step;
            here[s] = has ? (long)at[s]++ : -1;
        }
        row(context, step, here);
    }
    free(at);
    free(here);
}

struct writing {
    const struct draft_series_set *set;
    struct draft_table *table;
    FILE *out;
};

static void table_row(void *context, int64_t step, const long *here)
{
    struct writing *w = context;
    char text[32];
    draft_table_row(w->table);
    draft_table_cell(w->table, "%lld", (long long)step);
    for (int s = 0; s < w->set->count; s++)
        draft_table_cell(w->table, "%s",
                         here[s] < 0 ? ""
                         : isnan(w->set->series[s].values[here[s]])
                             ? "NaN"
                             : draft_format_number(w->set->series[s].values[here[s]], text, sizeof text));
}

void draft_metrics_table(const struct draft_series_set *set, const struct draft_terminal *terminal)
{
    struct draft_column columns[64] = {{.title = "step", .right = true}};
    struct draft_series_set shown = *set;
    if (shown.count > 63)
        shown.count = 63;
    for (int s = 0; s < shown.count; s++)
        columns[1 + s] = (struct draft_column){.title = set->series[s].name, .right = true};
    struct writing w = {.set = &shown, .table = draft_table_create(columns, 1 + shown.count)};
    each_step(&shown, table_row, &w);
    draft_table_print(w.table, 0, draft_ink(terminal, DRAFT_BOLD), draft_ink(terminal, DRAFT_PLAIN), terminal->out);
    draft_table_free(w.table);
}

static void csv_text(const char *text, FILE *out)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

static void csv_row(void *context, int64_t step, const long *here)
{
    struct writing *w = context;
    fprintf(w->out, "%lld", (long long)step);
    for (int s = 0; s < w->set->count; s++) {
        double value = here[s] < 0 ? 0 : w->set->series[s].values[here[s]];
        if (here[s] < 0)
            fputc(',', w->out);
        else if (isnan(value)) /* printf could say "-nan" */
            fputs(",NaN", w->out);
        else if (isinf(value))
            fputs(value > 0 ? ",Infinity" : ",-Infinity", w->out);
        else
            fprintf(w->out, ",%.17g", value);
    }
    fputc('\n', w->out);
}

void draft_metrics_csv(const struct draft_series_set *set, FILE *out)
{
    struct writing w = {.set = set, .out = out};
    fputs("step", out);
    for (int s = 0; s < set->count; s++) {
        fputc(',', out);
        csv_text(set->series[s].name, out);
    }
    fputc('\n', out);
    each_step(set, csv_row, &w);
}

static json_t *numbers(const double *values, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, isnan(values[i])   ? json_string("NaN")
                                    : isinf(values[i]) ? json_string(values[i] > 0 ? "Infinity" : "-Infinity")
                                                       : json_real(values[i]));
    return list;
}

void draft_metrics_json(const struct draft_series_set *set, const char *job_id, FILE *out)
{
    json_t *all = json_object(),
           *root = json_pack("{s:s, s:I}", "job", job_id, "last_step", (json_int_t)set->last_step);
    for (int s = 0; s < set->count; s++) {
        const struct draft_series *series = &set->series[s];
        json_t *steps = json_array(), *attempts = json_array();
        for (size_t i = 0; i < series->count; i++) {
            json_array_append_new(steps, json_integer(series->steps[i]));
            json_array_append_new(attempts, json_integer(series->attempts[i]));
        }
        json_t *one = json_object();
        json_object_set_new(one, "steps", steps);
        json_object_set_new(one, "values", numbers(series->values, series->count));
        json_object_set_new(one, "min", numbers(series->low, series->count));
        json_object_set_new(one, "max", numbers(series->high, series->count));
        json_object_set_new(one, "attempts", attempts);
        json_object_set_new(all, series->name, one);
    }
    json_object_set_new(root, "series", all);
    draft_json_print(root, true, out);
    json_decref(root);
}
