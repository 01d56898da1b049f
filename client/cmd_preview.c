#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "command.h"
#include "interrupt.h"
#include "jobs.h"
#include "picture_grid.h"
#include "preview_options.h"

static const struct draft_option own_options[] = {
    {.name = "output",
     .letter = 'o',
     .value = DRAFT_VALUE_STRING,
     .metavar = "DIR",
     .help = "folder for the pictures, made if need be (default: here)"},
    {.name = "grid",
     .value = DRAFT_VALUE_STRING,
     .metavar = "FILE",
     .help = "one labelled PNG instead: rows are seeds, columns prompts"},
    {.name = "scale",
     .value = DRAFT_VALUE_DOUBLE,
     .metavar = "X",
     .path = "lora_scale",
     .help = "strength of the LoRA (default 1; 0: the base model)"},
    {.name = "checkpoint",
     .value = DRAFT_VALUE_INT,
     .metavar = "STEP",
     .path = "checkpoint_step",
     .help = "of a paused or ended job: the checkpoint of this step (default: the newest)"},
    {.name = "aig",
     .value = DRAFT_VALUE_STRING,
     .metavar = "KIND",
     .path = "aig",
     .help = "annealed importance guidance between base and tuned: base, linear, power_2, step_0.6, draft"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {own_options, draft_preview_options, NULL};

/* Before the pictures are drawn, which may take minutes. */
static bool make_folder(const char *folder, struct draft_error *err)
{
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return draft_fail_errno(err, "cannot make the folder %s", folder);
    return access(folder, W_OK | X_OK) == 0 || draft_fail_errno(err, "cannot write into %s", folder);
}

static bool write_pictures(const struct draft_pictures *pictures, const char *folder, struct draft_error *err)
{
    const char *prompt = "";
    int number = 0;
    for (int i = 0; i < pictures->count; i++) {
        const struct draft_picture *p = &pictures->items[i];
        char path[4096];
        number += i == 0 || strcmp(prompt, p->prompt) != 0;
        prompt = p->prompt;
        snprintf(path, sizeof path, "%s/%s-%lld-%d-%llu.png", folder, pictures->preview->job_id,
                 (long long)pictures->preview->step, number, (unsigned long long)p->seed);
        if (!draft_atomic_write_file(path, p->png, p->bytes, err))
            return false;
        printf("%s\n", path);
    }
    return true;
}

static bool write_grid(const struct draft_pictures *pictures, const char *path, struct draft_error *err)
{
    int per_prompt = pictures->preview->spec && pictures->preview->spec->count > 0 ? pictures->preview->spec->count : 1;
    int prompts = (pictures->count + per_prompt - 1) / per_prompt;
    char title[200];
    struct draft_grid grid = {.title = title};
    snprintf(title, sizeof title, "%s, step %lld", pictures->preview->job_id, (long long)pictures->preview->step);
    draft_grid_init(&grid, per_prompt, prompts);
    for (int i = 0; i < pictures->count; i++) {
        const struct draft_picture *p = &pictures->items[i];
        struct draft_grid_cell *cell = draft_grid_at(&grid, i % per_prompt, i / per_prompt);
        cell->png = p->png;
        cell->bytes = p->bytes;
        snprintf(cell->caption, sizeof cell->caption, "%.2f", p->reward);
        snprintf(grid.row_labels[i % per_prompt].text, sizeof grid.row_labels[0].text, "seed %llu",
                 (unsigned long long)p->seed);
        snprintf(grid.column_labels[i / per_prompt].text, sizeof grid.column_labels[0].text, "%s", p->prompt);
    }
    bool good = draft_grid_png(&grid, path, err);
    draft_grid_clear(&grid);
    if (good)
        printf("%s\n", path);
    return good;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    char id[DRAFT_ID_BYTES];
    struct draft_error err = {0};
    struct draft_status st = {0};
    struct draft_pictures pictures;
    struct draft_preview_line line = {.block.terminal = &cx->err};
    Draftd__V1__PreviewSpec *spec = draft_preview_spec(arguments, &err);
    const char *grid = draft_arguments_string(arguments, "grid", NULL),
               *folder = draft_arguments_string(arguments, "output", ".");
    if (!spec || !(grid ? draft_atomic_possible(grid, &err) : make_folder(folder, &err))) {
        draft_free_message(spec);
        return draft_report_error(cx, &err);
    }
    draft_interrupt_install();
    line.what = draft_job_id(arguments->operands[0], id);
    bool good = draft_preview_run(draft_connect(cx), id, spec, draft_preview_line, &line, &pictures, &st);
    draft_block_clear(&line.block);
    draft_free_message(spec);
    if (!good)
        return draft_report(cx, &st);
    if (grid)
        good = write_grid(&pictures, grid, &err);
    else
        good = write_pictures(&pictures, folder, &err);
    draft_pictures_clear(&pictures);
    return good ? DRAFT_EXIT_OK : draft_report_error(cx, &err);
}

const struct draft_command draft_command_preview = {
    .name = "preview",
    .group = DRAFT_GROUP_PICTURES,
    .summary = "pictures of a job, also while it trains",
    .words = "sample generate image images",
    .usage = "JOB [options]",
    .about =
        "A running job draws them at its next step boundary, without disturbing its training; a paused or ended one "
        "from a checkpoint. A seed gives the picture that diffusers gives for it. Files are named "
        "<job>-<step>-<prompt number>-<seed>.png and hold prompt and settings as text (the key \"parameters\", as "
        "other tools write it). stdout gets their names.",
    .examples = "  draft preview job-3\n"
                "  draft preview job-3 -p \"an owl\" -p \"a lion\" -n 4 --seed 100 -o pictures\n"
                "  draft preview job-3 -p \"an owl\" -n 8 --grid owls.png\n"
                "  draft preview job-3 --scale 0         the base model\n"
                "  draft preview job-3 --scale 0.5       half way between base and tuned\n",
    .options = tables,
    .least = 1,
    .most = 1,
    .run = run,
};
