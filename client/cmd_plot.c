#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "command.h"
#include "curves.h"
#include "jobs.h"
#include "text.h"

static const struct draft_option options[] = {
    {.name = "y",
     .value = DRAFT_VALUE_STRING,
     .metavar = "SERIES",
     .help = "what to draw, a panel each (default: eval/reward, eval/kl and eval/lpips, else reward, kl and loss)",
     .repeat = true},
    {.name = "x", .value = DRAFT_VALUE_STRING, .metavar = "SERIES", .help = "over what (default: step)"},
    {.name = "png",
     .letter = 'o',
     .value = DRAFT_VALUE_STRING,
     .metavar = "FILE",
     .help = "write a PNG instead of drawing on the terminal"},
    {.name = "title", .value = DRAFT_VALUE_STRING, .metavar = "TEXT", .help = "title of the PNG"},
    {.name = "since", .value = DRAFT_VALUE_INT, .metavar = "STEP", .help = "from this step on"},
    {.name = "rows",
     .value = DRAFT_VALUE_INT,
     .metavar = "N",
     .help = "height of a panel on the terminal (default 14)"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

enum { RUNS = 16 };

static bool fetch_runs(struct draft_context *cx, const struct draft_arguments *arguments, struct draft_run *runs,
                       struct draft_status *st)
{
    for (int i = 0; i < arguments->operand_count; i++) {
        char id[DRAFT_ID_BYTES], kl[32];
        draft_job *job = draft_get_job(draft_connect(cx), draft_job_id(arguments->operands[i], id), st);
        if (!job)
            return false;
        snprintf(runs[i].label, sizeof runs[i].label, "%s %.60s (kl_coeff %s)", job->id, draft_job_title(job),
                 draft_format_number(draft_job_kl_coeff(job), kl, sizeof kl));
        runs[i].colour = draft_palette(i);
        runs[i].mark = i;
        draft_free_message(job);
        if (!draft_series_fetch(draft_connect(cx), id, NULL, 0, draft_arguments_int(arguments, "since", 0), 2000,
                                &runs[i].set, st))
            return false;
    }
    return true;
}

static bool any_has(const struct draft_run *runs, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (draft_series_find(&runs[i].set, name))
            return true;
    return false;
}

/* What is asked for by name must be there in one of the jobs at least. */
static bool check_names(struct draft_context *cx, const struct draft_arguments *arguments, const struct draft_run *runs,
                        struct draft_status *st)
{
    char id[DRAFT_ID_BYTES];
    draft_job_id(arguments->operands[0], id);
    for (int i = 0; i < arguments->count; i++) {
        const struct draft_argument *given = &arguments->given[i];
        bool series = !strcmp(given->option->name, "y") || !strcmp(given->option->name, "x");
        if (series && strcmp(given->text, "step") != 0 && !any_has(runs, arguments->operand_count, given->text) &&
            !draft_series_check(draft_connect(cx), id, &given->text, 1, st))
            return false;
    }
    return true;
}

static int choose(const struct draft_arguments *arguments, const struct draft_run *runs,
                  const char *names[DRAFT_PLOT_AXES])
{
    static const char *const evaluated[] = {"eval/reward", "eval/kl", "eval/lpips"}, *const trained[] = {"reward", "kl",
                                                                                                         "loss"};
    int n = 0;
    for (int i = 0; i < arguments->count && n < DRAFT_PLOT_AXES; i++)
        if (!strcmp(arguments->given[i].option->name, "y"))
            names[n++] = arguments->given[i].text;
    if (n > 0)
        return n;
    const char *const *usual = any_has(runs, arguments->operand_count, "eval/reward") ? evaluated : trained;
    for (int i = 0; i < 3; i++)
        if (any_has(runs, arguments->operand_count, usual[i]))
            names[n++] = usual[i];
    return n;
}

static int draw(struct draft_context *cx, const struct draft_arguments *arguments, const struct draft_run *runs)
{
    static struct draft_figure figure;
    static struct draft_curve_memory memory;
    const char *names[DRAFT_PLOT_AXES], *x = draft_arguments_string(arguments, "x", "step");
    const char *png = draft_arguments_string(arguments, "png", NULL);
    struct draft_error err = {0};
    int rows, columns, code = DRAFT_EXIT_OK;
    figure.count = choose(arguments, runs, names);
    x = strcmp(x, "step") ? x : NULL;
    for (int i = 0; i < figure.count; i++) {
        figure.axes[i].title = draft_series_words(names[i]);
        draft_curves_fill(&figure.axes[i], runs, arguments->operand_count, names[i], x, &memory);
        if (figure.count > 1)
            figure.axes[i].y_label = draft_series_short(names[i]);
    }
    if (png && figure.count > 0) {
        figure.title =
            draft_arguments_string(arguments, "title", figure.count == 1 ? figure.axes[0].y_label : "Training curves");
        if (figure.count == 1)
            figure.axes[0].title = NULL;
        if (!draft_figure_png(&figure, png, &err))
            code = draft_report_error(cx, &err);
        else
            printf("%s\n", png);
    } else {
        draft_terminal_size(&cx->out, &rows, &columns);
        columns = columns < 110 ? columns : 110;
        for (int i = 0; i < figure.count; i++)
            draft_axes_print(&figure.axes[i], &cx->out, columns, (int)draft_arguments_int(arguments, "rows", 14));
    }
    if (figure.count == 0) {
        fprintf(cx->err.out, "draft: there are no points yet; `draft watch` tells when a job begins\n");
        code = DRAFT_EXIT_PRECONDITION;
    }
    draft_curve_memory_free(&memory);
    return code;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    struct draft_status st = {0};
    struct draft_run *runs = calloc(RUNS, sizeof *runs);
    if (!runs)
        abort();
    bool good = fetch_runs(cx, arguments, runs, &st) && check_names(cx, arguments, runs, &st);
    int code = good ? draw(cx, arguments, runs) : draft_report(cx, &st);
    for (int i = 0; i < RUNS; i++)
        draft_series_clear(&runs[i].set);
    free(runs);
    return code;
}

const struct draft_command draft_command_plot = {
    .name = "plot",
    .group = DRAFT_GROUP_WATCH,
    .summary = "curves of one or several jobs, on the terminal or as a PNG",
    .words = "curve curves graph",
    .usage = "JOB... [options]",
    .about = "Draws metric series over the step, or one series over another. Several jobs share the panels. In a PNG, "
             "noisy series are drawn faint with their moving mean.",
    .examples = "  draft plot job-3\n"
                "  draft plot job-3 job-4 --y eval/reward --png reward.png\n"
                "  draft plot 3 4 5 --y eval/reward --x eval/lpips --png reward-vs-diversity.png\n",
    .options = tables,
    .least = 1,
    .most = RUNS,
    .run = run,
};
