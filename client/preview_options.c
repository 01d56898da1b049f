#include "preview_options.h"

#include "fields.h"
#include "json_message.h"
#include "spec.h"
#include "text.h"

const struct draft_option draft_preview_options[] = {
    {.name = "", .help = "Pictures"},
    {.name = "prompt",
     .letter = 'p',
     .value = DRAFT_VALUE_STRING,
     .metavar = "TEXT",
     .path = "prompts",
     .help = "what to draw (default: the job's evaluation prompts); may be repeated",
     .repeat = true},
    {.name = "negative-prompt",
     .value = DRAFT_VALUE_STRING,
     .metavar = "TEXT",
     .path = "negative_prompt",
     .help = "the unconditional prompt"},
    {.name = "seed",
     .value = DRAFT_VALUE_UINT,
     .metavar = "N",
     .path = "seed",
     .help = "the first seed; pictures of a prompt take N, N + 1, ... (default 0)"},
    {.name = "count",
     .letter = 'n',
     .value = DRAFT_VALUE_INT,
     .metavar = "N",
     .path = "count",
     .help = "pictures of each prompt (default 1)"},
    {.name = "steps",
     .letter = 'T',
     .value = DRAFT_VALUE_INT,
     .metavar = "T",
     .path = "steps",
     .help = "denoising steps (default: the job's)"},
    {.name = "sampler",
     .value = DRAFT_VALUE_STRING,
     .metavar = "NAME",
     .path = "sampler",
     .words = DRAFT_SAMPLER_WORDS,
     .help = "ddim, pndm, euler, euler_karras, euler_a, dpmpp_2m or dpmpp_2m_karras (default: the job's)"},
    {.name = "guidance",
     .letter = 'g',
     .value = DRAFT_VALUE_DOUBLE,
     .metavar = "X",
     .path = "guidance",
     .help = "classifier-free guidance (default: the job's)"},
    {.name = "ema",
     .path = "ema",
     .help = "draw with the average of the trained weights, of jobs submitted with --ema-decay"},
    {.name = "size",
     .letter = 's',
     .value = DRAFT_VALUE_SIZE,
     .metavar = "HxW",
     .path = "",
     .help = "pixels (default: the job's)"},
    {.name = NULL},
};

Draftd__V1__PreviewSpec *draft_preview_spec(const struct draft_arguments *arguments, struct draft_error *err)
{
    ProtobufCMessage *spec = draft_message_new(&draftd__v1__preview_spec__descriptor);
    if (draft_fields_from_arguments(spec, arguments, err))
        return (Draftd__V1__PreviewSpec *)spec;
    draft_free_message(spec);
    return NULL;
}

void draft_preview_line(void *context, const Draftd__V1__Preview *preview, int64_t done, int64_t total)
{
    struct draft_preview_line *line = context;
    static char text[1][DRAFT_BLOCK_BYTES];
    char bar[256];
    if (!line->block.terminal->tty)
        return;
    if (preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED ||
        preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_FAILED) {
        draft_block_clear(&line->block);
        return;
    }
    if (total <= 0) {
        snprintf(text[0], DRAFT_BLOCK_BYTES, "%s: waiting for the next step boundary", line->what);
    } else {
        draft_bar((double)done / (double)total, 30, line->block.terminal->utf8, bar, sizeof bar);
        snprintf(text[0], DRAFT_BLOCK_BYTES, "%s: %s%s%s step %lld/%lld, %zu of %d pictures", line->what,
                 line->block.terminal->utf8 ? "▕" : "[", bar, line->block.terminal->utf8 ? "▏" : "]", (long long)done,
                 (long long)total, preview->n_pictures, preview->total);
    }
    draft_block_draw(&line->block, text, 1);
}
