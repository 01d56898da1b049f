#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "command.h"
#include "interrupt.h"
#include "jobs.h"
#include "model_grid.h"
#include "preview_options.h"
#include "text.h"

static const struct draft_option own_options[] = {
    {.name = "output",
     .letter = 'o',
     .value = DRAFT_VALUE_STRING,
     .metavar = "FILE",
     .help = "the PNG to write (default: grid.png)"},
    {.name = "no-base", .help = "leave the base model's column out"},
    {.name = "aig",
     .help = "columns are one job's model under annealed importance guidance: base, draft, linear, power_2, step_0.6"},
    {.name = "title", .value = DRAFT_VALUE_STRING, .metavar = "TEXT", .help = "(default: the prompt)"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {own_options, draft_preview_options, NULL};

static bool fill_columns(struct draft_context *cx, const struct draft_arguments *arguments,
                         struct draft_model_column *columns, int *count, struct draft_status *st)
{
    *count = 0;
    for (int i = 0; i < arguments->operand_count; i++) {
        struct draft_model_column *column = &columns[(*count)++];
        char kl[32];
        draft_job_id(arguments->operands[i], column->job_id);
        if (i == 0 && !draft_arguments_has(arguments, "no-base")) {
            snprintf(column->label, sizeof column->label, "base");
            column->checkpoint_step = -1;
            draft_job_id(arguments->operands[i], columns[*count].job_id);
            column = &columns[(*count)++];
        }
        draft_job *job = draft_get_job(draft_connect(cx), column->job_id, st);
        if (!job)
            return false;
        column->lora_scale = 1;
        column->checkpoint_step = -1;
        snprintf(column->label, sizeof column->label, "%s", draft_job_title(job));
        snprintf(column->more, sizeof column->more, "%s, kl_coeff %s", job->id,
                 draft_format_number(draft_job_kl_coeff(job), kl, sizeof kl));
        draft_free_message(job);
    }
    return true;
}

/* From base to tuned, step by step of the sampling (Jena et al. 2024): how much of the reward's change each keeps. */
static const struct {
    const char *kind, *meaning;
} annealings[] = {{"base", "the base model"},
                  {"draft", "the tuned model"},
                  {"linear", "tuned by i/T"},
                  {"power_2", "tuned by (i/T)^2"},
                  {"step_0.6", "tuned from 0.6 T"}};
enum { ANNEALINGS = sizeof annealings / sizeof *annealings };

static bool fill_annealings(struct draft_context *cx, const struct draft_arguments *arguments,
                            struct draft_model_column *columns, int *count, char *title, size_t size,
                            struct draft_status *st)
{
    char id[DRAFT_ID_BYTES], kl[32];
    if (arguments->operand_count > 1)
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                 "--aig shows one job, and %d are named; make a grid of each",
                                 arguments->operand_count);
    draft_job *job = draft_get_job(draft_connect(cx), draft_job_id(arguments->operands[0], id), st);
    if (!job)
        return false;
    snprintf(title, size, "%.80s (%s, kl_coeff %s): ", draft_job_title(job), job->id,
             draft_format_number(draft_job_kl_coeff(job), kl, sizeof kl));
    draft_free_message(job);
    for (*count = 0; *count < ANNEALINGS; (*count)++) {
        struct draft_model_column *column = &columns[*count];
        snprintf(column->job_id, sizeof column->job_id, "%s", id);
        snprintf(column->label, sizeof column->label, "%s", annealings[*count].kind);
        snprintf(column->more, sizeof column->more, "%s", annealings[*count].meaning);
        column->lora_scale = 1;
        column->checkpoint_step = -1;
        column->aig = annealings[*count].kind;
    }
    return true;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    struct draft_error err = {0};
    struct draft_status st = {0};
    int count = 0;
    char title[512] = "";
    Draftd__V1__PreviewSpec *spec = draft_preview_spec(arguments, &err);
    const char *path = draft_arguments_string(arguments, "output", "grid.png");
    if (!spec || !draft_atomic_possible(path, &err)) {
        draft_free_message(spec);
        return draft_report_error(cx, &err);
    }
    if (spec->count == 0)
        spec->count = 4;
    draft_interrupt_install();
    struct draft_model_column *columns = calloc((size_t)arguments->operand_count + ANNEALINGS, sizeof *columns);
    if (!columns)
        abort();
    bool good = draft_arguments_has(arguments, "aig")
                    ? fill_annealings(cx, arguments, columns, &count, title, sizeof title, &st)
                    : fill_columns(cx, arguments, columns, &count, &st);
    good = good && draft_model_grid_fetch(draft_connect(cx), columns, count, spec, &cx->err, &st);
    if (good) {
        const struct draft_pictures *first = &columns[0].pictures;
        char *end = title + strlen(title);
        size_t room = sizeof title - strlen(title);
        if (first->count > spec->count)
            snprintf(end, room, "%d prompts, %d seeds each", first->count / spec->count, spec->count);
        else
            snprintf(end, room, "\"%.100s\": %d seeds", first->count ? first->items[0].prompt : "", spec->count);
        good = draft_model_grid_png(columns, count, draft_arguments_string(arguments, "title", title),
                                    "Rows: seeds, the same noise in every column. Below each picture: its reward.",
                                    path, &err) ||
               draft_status_take(&st, &err);
        if (good)
            printf("%s\n", path);
    }
    draft_model_grid_clear(columns, count);
    free(columns);
    draft_free_message(spec);
    return good ? DRAFT_EXIT_OK : draft_report(cx, &st);
}

const struct draft_command draft_command_grid = {
    .name = "grid",
    .group = DRAFT_GROUP_PICTURES,
    .summary = "one picture comparing the base and jobs, seed by seed",
    .usage = "JOB... [options]",
    .about =
        "Rows are seeds, columns the base model and the jobs. The pictures are made on the spot, with the same "
        "noise in every column; the base is the first job's model with its LoRA off. Small pictures are enlarged by "
        "a whole factor. With --aig the columns are one job's model under annealed importance guidance, which mixes "
        "the base's and the tuned prediction at each step.",
    .examples = "  draft grid job-3 -o grid.png\n"
                "  draft grid job-3 job-4 job-5 -p \"an animal\" -n 6 --seed 10 -o seeds-x-models.png\n"
                "  draft grid job-3 --aig -p \"an animal\" --sampler euler_a -o aig.png\n",
    .options = tables,
    .least = 1,
    .most = 32,
    .run = run,
};
