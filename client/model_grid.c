#include "model_grid.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "picture_grid.h"
#include "preview_options.h"

bool draft_model_grid_fetch(struct draft_rpc *rpc, struct draft_model_column *columns, int count,
                            const Draftd__V1__PreviewSpec *spec, const struct draft_terminal *terminal,
                            struct draft_status *st)
{
    for (int c = 0; c < count; c++) {
        struct draft_model_column *column = &columns[c];
        Draftd__V1__PreviewSpec own = *spec;
        struct draft_preview_line line = {.block.terminal = terminal, .what = column->label};
        own.lora_scale_opt_case = DRAFTD__V1__PREVIEW_SPEC__LORA_SCALE_OPT_LORA_SCALE;
        own.lora_scale = column->lora_scale;
        if (column->checkpoint_step >= 0) {
            own.checkpoint_step_opt_case = DRAFTD__V1__PREVIEW_SPEC__CHECKPOINT_STEP_OPT_CHECKPOINT_STEP;
            own.checkpoint_step = column->checkpoint_step;
        }
        if (column->aig)
            own.aig = (char *)(uintptr_t)column->aig;
        bool good = draft_preview_run(rpc, column->job_id, &own, draft_preview_line, &line, &column->pictures, st);
        draft_block_clear(&line.block);
        if (!good)
            return false;
    }
    return true;
}

void draft_model_grid_clear(struct draft_model_column *columns, int count)
{
    for (int c = 0; c < count; c++)
        draft_pictures_clear(&columns[c].pictures);
}

bool draft_model_grid_png(const struct draft_model_column *columns, int count, const char *title, const char *note,
                          const char *path, struct draft_error *err)
{
    struct draft_grid grid = {.title = title, .note = note};
    int rows = 0;
    for (int c = 0; c < count; c++)
        rows = columns[c].pictures.count > rows ? columns[c].pictures.count : rows;
    if (rows == 0)
        return draft_fail(err, DRAFT_NOT_FOUND, "there are no pictures to put into %s", path);
    draft_grid_init(&grid, rows, count);
    for (int c = 0; c < count; c++) {
        const struct draft_pictures *pictures = &columns[c].pictures;
        snprintf(grid.column_labels[c].text, sizeof grid.column_labels[c].text, "%s", columns[c].label);
        snprintf(grid.column_labels[c].more, sizeof grid.column_labels[c].more, "%s", columns[c].more);
        for (int r = 0; r < pictures->count; r++) {
            const struct draft_picture *picture = &pictures->items[r];
            struct draft_grid_cell *cell = draft_grid_at(&grid, r, c);
            bool several = pictures->count > 1 &&
                           strcmp(pictures->items[0].prompt, pictures->items[pictures->count - 1].prompt) != 0;
            cell->png = picture->png;
            cell->bytes = picture->bytes;
            if (isfinite(picture->reward))
                snprintf(cell->caption, sizeof cell->caption, "%.2f", picture->reward);
            if (c == 0)
                snprintf(grid.row_labels[r].text, sizeof grid.row_labels[r].text,
                         several ? "%.60s, seed %llu" : "%.0sseed %llu", picture->prompt,
                         (unsigned long long)picture->seed);
        }
    }
    bool good = draft_grid_png(&grid, path, err);
    draft_grid_clear(&grid);
    return good;
}
