/* `draft demo`: one job from base to tuned, with everything around it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "demo.h"
#include "export.h"
#include "picture_grid.h"
#include "previews.h"
#include "shown_path.h"
#include "table.h"
#include "text.h"

struct halfway {
    struct draft_demo *demo;
    char preview_id[80]; /* "" : not asked for yet */
    bool saved;
};

enum { HALFWAY_COLUMNS = 4, HALFWAY_PICTURES = 8 };

/* Asked while the job trains; the pictures come at its next step boundary. A failure here is no reason to stop. */
static bool ask_halfway(void *context, const draft_job *job)
{
    struct halfway *half = context;
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    struct draft_status st = {0};
    char *prompts[] = {(char *)(uintptr_t)half->demo->settings->prompt};
    spec.prompts = prompts;
    spec.n_prompts = 1;
    spec.count = HALFWAY_PICTURES;
    spec.seed_opt_case = DRAFTD__V1__PREVIEW_SPEC__SEED_OPT_SEED;
    spec.seed = 1;
    if (!draft_preview_create(half->demo->rpc, job->id, &spec, half->preview_id, &st)) {
        half->preview_id[0] = 0;
        fprintf(half->demo->cx->err.out, "no preview half-way: %s\n", st.message);
    }
    return true;
}

static bool save_halfway(struct halfway *half, struct draft_status *st)
{
    struct draft_pictures pictures;
    struct draft_grid grid = {.title = NULL};
    struct draft_error err = {0};
    char title[160];
    if (!draft_preview_fetch(half->demo->rpc, half->preview_id, &pictures, st))
        return false;
    snprintf(title, sizeof title, "\"%s\" after step %lld, while training", half->demo->settings->prompt,
             (long long)pictures.preview->step);
    grid.title = title;
    draft_grid_init(&grid, (pictures.count + HALFWAY_COLUMNS - 1) / HALFWAY_COLUMNS, HALFWAY_COLUMNS);
    for (int i = 0; i < pictures.count; i++) {
        struct draft_grid_cell *cell = draft_grid_at(&grid, i / HALFWAY_COLUMNS, i % HALFWAY_COLUMNS);
        cell->png = pictures.items[i].png;
        cell->bytes = pictures.items[i].bytes;
        snprintf(cell->caption, sizeof cell->caption, "seed %llu: %.2f", (unsigned long long)pictures.items[i].seed,
                 pictures.items[i].reward);
    }
    bool good =
        draft_grid_png(&grid, draft_demo_path(half->demo, "preview-halfway.png"), &err) || draft_status_take(st, &err);
    draft_grid_clear(&grid);
    draft_pictures_clear(&pictures);
    half->saved = good;
    return good;
}

static void on_event(void *context, const Draftd__V1__JobEvent *event)
{
    struct halfway *half = context;
    struct draft_status st = {0};
    char path[4096];
    if (half->saved || !*half->preview_id || event->kind != DRAFTD__V1__JOB_EVENT__KIND__KIND_PREVIEW ||
        strcmp(event->preview_id, half->preview_id) != 0)
        return;
    Draftd__V1__GetPreviewRequest request = DRAFTD__V1__GET_PREVIEW_REQUEST__INIT;
    request.preview_id = half->preview_id;
    Draftd__V1__GetPreviewResponse *reply = draft_rpc_get_preview(half->demo->rpc, &request, &st);
    if (reply && reply->preview && reply->preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED &&
        save_halfway(half, &st))
        draft_live_say(half->demo->live, "half-way: %d pictures of step %lld in %s", reply->preview->total,
                       (long long)reply->preview->step,
                       draft_shown_path(draft_demo_path(half->demo, "preview-halfway.png"), path, sizeof path));
    draft_free_message(reply);
}

static bool finish_halfway(struct halfway *half, struct draft_status *st)
{
    return half->saved || !*half->preview_id ||
           (draft_preview_wait(half->demo->rpc, half->preview_id, NULL, NULL, st) && save_halfway(half, st));
}

static void fill_figure(struct draft_figure *figure, const struct draft_run *run, struct draft_curve_memory *memory)
{
    static const char *const names[] = {"eval/reward", "eval/kl", "eval/lpips"};
    figure->count = 3;
    for (int i = 0; i < 3; i++) {
        figure->axes[i].title = draft_series_words(names[i]);
        draft_curves_fill(&figure->axes[i], run, 1, names[i], NULL, memory);
        for (int l = 0; l < figure->axes[i].count; l++) {
            figure->axes[i].lines[l].colour = draft_palette(0);
            figure->axes[i].lines[l].label = "evaluation set";
        }
        figure->axes[i].y_label = draft_series_short(names[i]);
    }
    /* The training batches' reward behind the evaluation's, faint: they are other pictures, so only the course counts.
     */
    const struct draft_series *reward = draft_series_find(&run->set, "reward");
    if (reward && reward->count) {
        draft_curves_fill(&figure->axes[0], run, 1, "reward", NULL, memory);
        struct draft_line *line = &figure->axes[0].lines[figure->axes[0].count - 1];
        line->label = "training batches";
        line->colour = draft_palette(6);
        figure->axes[0].title = "reward";
        figure->axes[0].y_label = "reward";
    }
}

static bool draw_curves(struct draft_demo *demo, const char *id, struct draft_run *run, struct draft_status *st)
{
    static struct draft_figure figure;
    static struct draft_curve_memory memory;
    struct draft_error err = {0};
    char note[512], kl[32];
    int rows, columns;
    if (!draft_series_fetch(demo->rpc, id, NULL, 0, 0, 2000, &run->set, st))
        return false;
    snprintf(run->label, sizeof run->label, "kl_coeff %s",
             draft_format_number(demo->settings->kl_coeff, kl, sizeof kl));
    fill_figure(&figure, run, &memory);
    draft_demo_protocol(demo, note, sizeof note);
    char title[160];
    snprintf(title, sizeof title, "DRaFT+ on \"%s\", kl_coeff %s", demo->settings->prompt, kl);
    figure.title = title;
    figure.note = note;
    draft_terminal_size(&demo->cx->out, &rows, &columns);
    for (int i = 0; i < 3; i++) {
        struct draft_axes shown = figure.axes[i];
        shown.count = shown.count > 1 ? 1 : shown.count; /* the evaluation alone: clearer on a terminal */
        draft_axes_print(&shown, &demo->cx->out, columns < 90 ? columns : 90, 8);
    }
    bool good = draft_figure_png(&figure, draft_demo_path(demo, "curve.png"), &err) || draft_status_take(st, &err);
    draft_curve_memory_free(&memory);
    return good;
}

static bool export_lora(struct draft_demo *demo, const char *id, struct draft_status *st)
{
    char saved[4096];
    uint64_t bytes;
    Draftd__V1__ExportLoraRequest request = DRAFTD__V1__EXPORT_LORA_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)id;
    return draft_export_file(demo->rpc, &request, draft_demo_path(demo, "lora.safetensors"), saved, sizeof saved,
                             &bytes, st);
}

/* Lines to paste. */
static void print_next(const struct draft_demo *demo, const char *id)
{
    FILE *out = demo->cx->out.out;
    char draftd[4096], draft[4096], state[4096], dir[4096];
    draft_shown_program("draftd", draftd, sizeof draftd);
    draft_shown_program("draft", draft, sizeof draft);
    draft_shown_path(demo->dir, dir, sizeof dir);
    draft_shown_path(draft_demo_path(demo, "state"), state, sizeof state);
    fprintf(out, "\nLook further at this job (`kill %%1` stops the daemon):\n");
    fprintf(out, "  %s --state-dir %s --socket %s/draftd.sock 2>>%s/draftd.log &\n", draftd, state, dir, dir);
    fprintf(out, "  %s show %s --socket %s/draftd.sock\n", draft, id, dir);
    fprintf(out, "  %s preview %s -p \"a bird\" -n 8 --grid birds.png --socket %s/draftd.sock\n", draft, id, dir);
    fprintf(out, "\nThen a model of your own (`%s submit --help` explains every option):\n", draft);
    fprintf(out, "  %s 2>draftd.log &\n", draftd);
    fprintf(out,
            "  %s submit --model sd15 --dataset prompts.txt --reward clip:clip-vit-large-patch14 --steps 200 --watch\n",
            draft);
}

static void print_summary(struct draft_demo *demo, const char *id, const struct draft_run *run, bool halfway)
{
    static const struct draft_column columns[] = {
        {.title = ""}, {.title = "base", .right = true}, {.title = "tuned", .right = true}};
    static const struct {
        const char *series, *words;
        int decimals;
    } rows[] = {{"eval/reward", "reward", 2}, {"eval/kl", "KL to the base", 4}, {"eval/lpips", "diversity (LPIPS)", 3}};
    static const char *const files[][2] = {
        {"curve.png", "reward, KL and diversity over the steps"},
        {"grid.png", "base and tuned, the same seeds"},
        {"preview-halfway.png", "pictures asked for while it trained"},
        {"lora.safetensors", "the LoRA, for diffusers, ComfyUI, A1111, stable-diffusion.cpp"},
    };
    FILE *out = demo->cx->out.out;
    char text[4096];
    struct draft_table *table = draft_table_create(columns, 3);
    for (int i = 0; i < 3; i++) {
        const struct draft_series *series = draft_series_find(&run->set, rows[i].series);
        draft_table_row(table);
        draft_table_cell(table, "%s", rows[i].words);
        draft_table_cell(table, "%s",
                         draft_format_fixed(draft_series_first(series), rows[i].decimals, text, sizeof text));
        draft_table_cell(table, "%s",
                         draft_format_fixed(draft_series_last(series), rows[i].decimals, text, sizeof text));
    }
    fputc('\n', out);
    draft_table_print(table, 0, draft_ink(&demo->cx->out, DRAFT_BOLD), draft_ink(&demo->cx->out, DRAFT_PLAIN), out);
    draft_table_free(table);
    fprintf(out, "\nIn %s:\n", draft_shown_path(demo->dir, text, sizeof text));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (halfway || i != 2)
            fprintf(out, "  %-20s %s\n", files[i][0], files[i][1]);
    fprintf(out, "  %-20s %s (%s)\n", "state/", "the daemon's database, pictures and checkpoints", id);
    print_next(demo, id);
}

int draft_demo_run_single(struct draft_demo *demo)
{
    static struct draft_run run;
    struct draft_status st = {0};
    struct halfway half = {.demo = demo};
    char id[DRAFT_ID_BYTES], takes[32];
    bool fresh;
    FILE *out = demo->cx->out.out;
    const struct draft_demo_settings *s = demo->settings;
    if (!draft_demo_job(demo, "demo", s->kl_coeff, false, id, &fresh, &st))
        return draft_demo_report(demo, &st);
    fprintf(out, "%s %s: %d updates of %d pictures for \"%s\", kl_coeff %g; about %s on 2 cores\n\n",
            fresh ? "submitted" : "going on with", id, s->steps, s->batch, s->prompt, s->kl_coeff,
            draft_format_duration(60 * s->minutes, takes, sizeof takes));
    fflush(out);
    if (!draft_demo_follow(demo, id, ask_halfway, on_event, &half, &st) || !finish_halfway(&half, &st))
        return draft_demo_report(demo, &st);
    const char *ids[] = {id};
    fputc('\n', out);
    bool good = draw_curves(demo, id, &run, &st) && draft_demo_grid(demo, ids, &s->kl_coeff, 1, "grid.png", &st) &&
                export_lora(demo, id, &st);
    if (good)
        print_summary(demo, id, &run, half.saved);
    draft_series_clear(&run.set);
    return good ? DRAFT_EXIT_OK : draft_demo_report(demo, &st);
}
