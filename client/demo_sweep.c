/* `draft demo --sweep`: several KL weights and none, and the article's figures from them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "demo.h"
#include "shown_path.h"
#include "table.h"
#include "text.h"

enum { MOST = 16 };

struct sweep {
    struct draft_demo *demo;
    int count;
    char ids[MOST][DRAFT_ID_BYTES];
    struct draft_run runs[MOST];
};

static void label_run(struct draft_run *run, double kl_coeff, int index, int count)
{
    snprintf(run->label, sizeof run->label, kl_coeff == 0 ? "kl_coeff 0 (vanilla DRaFT)" : "kl_coeff %g", kl_coeff);
    run->mark = kl_coeff == 0 ? 3 : index % 3;
    /* The weights have an order, so their colours do; the run without any stands out. */
    run->colour = kl_coeff == 0 ? draft_palette(1) : draft_ramp(count > 2 ? (double)index / (count - 2) : 0);
}

static bool run_jobs(struct sweep *sweep, struct draft_status *st)
{
    struct draft_demo *demo = sweep->demo;
    const struct draft_demo_settings *s = demo->settings;
    FILE *out = demo->cx->out.out;
    char takes[32];
    int kept = 0;
    for (int i = 0; i < sweep->count; i++) {
        char name[64];
        bool fresh;
        snprintf(name, sizeof name, "sweep kl %g", s->sweep[i]);
        if (!draft_demo_job(demo, name, s->sweep[i], true, sweep->ids[i], &fresh, st))
            return false;
        kept += !fresh;
    }
    fprintf(out, "%d jobs of %d updates, one after another; about %s each on 2 cores%s\n", sweep->count, s->steps,
            draft_format_duration(60 * s->minutes, takes, sizeof takes),
            kept ? "; jobs of an earlier run in this folder are taken up" : "");
    for (int i = 0; i < sweep->count; i++) {
        char left[32];
        double begin = (double)draft_now_us();
        fprintf(out, "\n%d of %d: kl_coeff %g\n", i + 1, sweep->count, s->sweep[i]);
        fflush(out);
        if (!draft_demo_follow(demo, sweep->ids[i], NULL, NULL, NULL, st))
            return false;
        double took = ((double)draft_now_us() - begin) / 1e6;
        if (i + 1 < sweep->count && took > 30)
            fprintf(out, "about %s to go\n", draft_format_duration(took * (sweep->count - 1 - i), left, sizeof left));
    }
    return true;
}

/* One panel as a figure of its own. */
static bool draw(struct sweep *sweep, const char *y, const char *x, const char *title, const char *name,
                 struct draft_status *st)
{
    static struct draft_figure figure;
    static struct draft_curve_memory memory;
    struct draft_error err = {0};
    char note[512];
    figure = (struct draft_figure){.title = title, .note = note, .count = 1};
    draft_demo_protocol(sweep->demo, note, sizeof note);
    draft_curves_fill(&figure.axes[0], sweep->runs, sweep->count, y, x, &memory);
    double base_x = 0, base_y = NAN;
    for (int i = 0; i < sweep->count && isnan(base_y); i++) {
        base_y = draft_series_at(draft_series_find(&sweep->runs[i].set, y), 0);
        if (x)
            base_x = draft_series_at(draft_series_find(&sweep->runs[i].set, x), 0);
    }
    if (figure.axes[0].count < DRAFT_PLOT_LINES)
        figure.axes[0].lines[figure.axes[0].count++] = (struct draft_line){.label = "base model",
                                                                           .x = &base_x,
                                                                           .y = &base_y,
                                                                           .count = 1,
                                                                           .colour = {0.1, 0.1, 0.1},
                                                                           .mark = 4,
                                                                           .style = DRAFT_MARKS};
    bool good = draft_figure_png(&figure, draft_demo_path(sweep->demo, name), &err) || draft_status_take(st, &err);
    int rows, columns;
    draft_terminal_size(&sweep->demo->cx->out, &rows, &columns);
    figure.axes[0].title = title;
    figure.axes[0].count--; /* the base is every line's first point */
    fputc('\n', sweep->demo->cx->out.out);
    draft_axes_print(&figure.axes[0], &sweep->demo->cx->out, columns < 100 ? columns : 100, 14);
    draft_curve_memory_free(&memory);
    return good;
}

static bool draw_figures(struct sweep *sweep, struct draft_status *st)
{
    return draw(sweep, "eval/lpips", NULL, "Diversity while training", "diversity-over-steps.png", st) &&
           draw(sweep, "eval/reward", NULL, "Reward while training", "reward-over-steps.png", st) &&
           draw(sweep, "eval/reward", "eval/lpips", "Reward against diversity", "reward-vs-diversity.png", st);
}

/* A reward that most runs reach: half of what the best of them gains. */
static double common_level(const struct sweep *sweep)
{
    double base = NAN, best = -INFINITY;
    for (int i = 0; i < sweep->count; i++) {
        const struct draft_series *reward = draft_series_find(&sweep->runs[i].set, "eval/reward");
        base = isnan(base) ? draft_series_first(reward) : base;
        best = fmax(best, draft_series_last(reward));
    }
    return base + 0.5 * (best - base);
}

static void print_summary(struct sweep *sweep)
{
    static const char *const files[][2] = {
        {"diversity-over-steps.png", "diversity over the steps, a line per kl_coeff"},
        {"reward-over-steps.png", "reward over the steps"},
        {"reward-vs-diversity.png", "one against the other: higher and further right is better"},
        {"seeds-x-models.png", "rows: seeds; columns: base and models"},
    };
    FILE *out = sweep->demo->cx->out.out;
    char shown[4096];
    double level = common_level(sweep);
    struct draft_table *table = draft_demo_table();
    struct draft_run base = {.label = "base model"};
    static struct draft_series first[3];
    static const char *const names[] = {"eval/reward", "eval/kl", "eval/lpips"};
    for (int i = 0; i < 3; i++) {
        const struct draft_series *series = draft_series_find(&sweep->runs[0].set, names[i]);
        if (series)
            first[i] = *series;
        first[i].count = series && series->count ? 1 : 0;
        snprintf(first[i].name, sizeof first[i].name, "%s", names[i]);
    }
    base.set = (struct draft_series_set){.count = 3, .series = first};
    draft_demo_table_row(table, &base, NAN);
    for (int i = 0; i < sweep->count; i++)
        draft_demo_table_row(table, &sweep->runs[i], level);
    fputc('\n', out);
    draft_table_print(table, 0, draft_ink(&sweep->demo->cx->out, DRAFT_BOLD),
                      draft_ink(&sweep->demo->cx->out, DRAFT_PLAIN), out);
    draft_table_free(table);
    fprintf(out, "(equal reward: %.2f, half of the largest gain; \"-\": not reached)\n\nIn %s:\n", level,
            draft_shown_path(sweep->demo->dir, shown, sizeof shown));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        fprintf(out, "  %-25s %s\n", files[i][0], files[i][1]);
}

int draft_demo_run_sweep(struct draft_demo *demo)
{
    static struct sweep sweep;
    struct draft_status st = {0};
    const char *ids[MOST];
    sweep.demo = demo;
    sweep.count = demo->settings->sweep_count < MOST ? demo->settings->sweep_count : MOST;
    bool good = run_jobs(&sweep, &st);
    for (int i = 0; i < sweep.count && good; i++) {
        ids[i] = sweep.ids[i];
        label_run(&sweep.runs[i], demo->settings->sweep[i], i, sweep.count);
        good = draft_series_fetch(demo->rpc, ids[i], NULL, 0, 0, 2000, &sweep.runs[i].set, &st);
    }
    good = good && draw_figures(&sweep, &st) &&
           draft_demo_grid(demo, ids, demo->settings->sweep, sweep.count, "seeds-x-models.png", &st);
    if (good)
        print_summary(&sweep);
    for (int i = 0; i < sweep.count; i++)
        draft_series_clear(&sweep.runs[i].set);
    return good ? DRAFT_EXIT_OK : draft_demo_report(demo, &st);
}
