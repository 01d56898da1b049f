#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "jobs.h"
#include "json_message.h"
#include "metric_rows.h"
#include "series.h"
#include "table.h"
#include "text.h"

static const struct draft_option options[] = {
    {.name = "names", .value = DRAFT_VALUE_STRING, .metavar = "A,B,...", .help = "the same as SERIES, with commas"},
    {.name = "since", .value = DRAFT_VALUE_INT, .metavar = "STEP", .help = "points from this step on"},
    {.name = "max-points",
     .value = DRAFT_VALUE_INT,
     .metavar = "N",
     .help = "at most N points a series, thinned to buckets (default 1000, at most 10000)"},
    {.name = "format",
     .letter = 'f',
     .value = DRAFT_VALUE_STRING,
     .metavar = "FORMAT",
     .words = "table csv json",
     .help = "table (default), csv or json"},
    {.name = "list", .letter = 'l', .help = "the series there are, with their last values"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

/* What fits a terminal and answers "how is it going": times, memory and single terms are there by name. */
static const char *const main_series[] = {"reward",        "kl",          "loss",    "grad_norm",
                                          "learning_rate", "eval/reward", "eval/kl", "eval/lpips"};
enum { MAIN_SERIES = sizeof main_series / sizeof main_series[0] };

static int list_series(struct draft_context *cx, const char *id)
{
    static const struct draft_column columns[] = {
        {.title = "SERIES"},
        {.title = "POINTS", .right = true},
        {.title = "STEPS", .right = true},
        {.title = "LAST", .right = true},
    };
    char value[32];
    struct draft_status st = {0};
    Draftd__V1__ListMetricsRequest request = DRAFTD__V1__LIST_METRICS_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)id;
    Draftd__V1__ListMetricsResponse *reply = draft_rpc_list_metrics(draft_connect(cx), &request, &st);
    if (!reply)
        return draft_report(cx, &st);
    if (cx->json) {
        draft_message_print(&reply->base, false, stdout);
    } else {
        struct draft_table *table = draft_table_create(columns, 4);
        for (size_t i = 0; i < reply->n_series; i++) {
            const Draftd__V1__ListMetricsResponse__Series *s = reply->series[i];
            draft_table_row(table);
            draft_table_cell(table, "%s", s->name);
            draft_table_cell(table, "%lld", (long long)s->points);
            draft_table_cell(table, "%lld..%lld", (long long)s->first_step, (long long)s->last_step);
            draft_table_cell(table, "%s", draft_format_number(s->last_value, value, sizeof value));
        }
        draft_table_print(table, 0, draft_ink(&cx->out, DRAFT_BOLD), draft_ink(&cx->out, DRAFT_PLAIN), stdout);
        draft_table_free(table);
    }
    draft_free_message(reply);
    return DRAFT_EXIT_OK;
}

/* "a,b,c" into at most 64 names, in place. */
static int split(char *text, const char *names[64])
{
    int count = 0;
    for (char *save, *name = strtok_r(text, ",", &save); name && count < 64; name = strtok_r(NULL, ",", &save))
        names[count++] = name;
    return count;
}

/* Operands and --names, with commas between; malloc'd. */
static char *names_asked_for(const struct draft_arguments *arguments)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        abort();
    for (int i = 1; i < arguments->operand_count; i++)
        fprintf(out, "%s,", arguments->operands[i]);
    fputs(draft_arguments_string(arguments, "names", ""), out);
    fclose(out);
    if (size && text[size - 1] == ',')
        text[size - 1] = '\0';
    return text;
}

static bool all_have_points(const struct draft_series_set *set, const char *const *names, int count)
{
    for (int i = 0; i < count; i++) {
        const struct draft_series *series = draft_series_find(set, names[i]);
        if (!series || series->count == 0)
            return false;
    }
    return true;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    char id[DRAFT_ID_BYTES];
    const char *names[64], *format = draft_arguments_string(arguments, "format", cx->json ? "json" : "table");
    struct draft_series_set set;
    struct draft_status st = {0};
    draft_job_id(arguments->operands[0], id);
    if (strcmp(format, "table") && strcmp(format, "csv") && strcmp(format, "json")) {
        draft_status_fail(&st, DRAFT_STATUS_INVALID_ARGUMENT, "--format \"%s\": expected table, csv or json", format);
        return draft_report(cx, &st);
    }
    if (draft_arguments_has(arguments, "list"))
        return list_series(cx, id);
    char *text = names_asked_for(arguments);
    int count = strcmp(text, "all") ? split(text, names) : 0, code = DRAFT_EXIT_OK;
    bool narrow = !*text && !strcmp(format, "table");
    if (!draft_series_fetch(draft_connect(cx), id,
                            narrow  ? main_series
                            : count ? names
                                    : NULL,
                            narrow ? MAIN_SERIES : count, draft_arguments_int(arguments, "since", 0),
                            (int)draft_arguments_int(arguments, "max-points", 0), &set, &st)) {
        code = draft_report(cx, &st);
    } else if (!all_have_points(&set, names, count) && !draft_series_check(draft_connect(cx), id, names, count, &st)) {
        code = draft_report(cx, &st);
        draft_series_clear(&set);
    } else {
        if (!strcmp(format, "csv"))
            draft_metrics_csv(&set, stdout);
        else if (!strcmp(format, "json"))
            draft_metrics_json(&set, id, stdout);
        else
            draft_metrics_table(&set, &cx->out);
        draft_series_clear(&set);
    }
    free(text);
    return code;
}

const struct draft_command draft_command_metrics = {
    .name = "metrics",
    .group = DRAFT_GROUP_WATCH,
    .summary = "a job's numbers as a table, csv or json",
    .words = "stats numbers",
    .usage = "JOB [SERIES...] [options]",
    .about =
        "One row a step, one column a series. Without SERIES a table shows the main ones, csv and json show all, which "
        "`all` asks for. Rows where a series has no point stay empty there; NaN is kept. "
        "reward, kl, loss and grad_norm are of training; eval/... of the fixed evaluation set, whose step 0 is the "
        "base model.",
    .examples = "  draft metrics job-3\n"
                "  draft metrics job-3 --list\n"
                "  draft metrics job-3 reward kl\n"
                "  draft metrics job-3 eval/reward eval/lpips --format csv > curve.csv\n"
                "  draft metrics job-3 --since 100 --format json | jq .series.reward\n",
    .options = tables,
    .least = 1,
    .most = -1,
    .json = true,
    .run = run,
};
