#include <string.h>

#include "command.h"
#include "export.h"
#include "jobs.h"
#include "text.h"

static const struct draft_option options[] = {
    {.name = "output",
     .letter = 'o',
     .value = DRAFT_VALUE_STRING,
     .metavar = "FILE",
     .help = "file or folder to write (default: the daemon's name for it, here)"},
    {.name = "format",
     .letter = 'f',
     .value = DRAFT_VALUE_STRING,
     .metavar = "FORMAT",
     .words = "kohya diffusers merged merged-single",
     .help = "kohya (default: diffusers, ComfyUI, A1111 and stable-diffusion.cpp load it), diffusers "
             "(pytorch_lora_weights.safetensors), merged (the whole tuned model, as the new diffusers folder -o) or "
             "merged-single (the same as the new file -o, with the original names: ComfyUI, A1111)"},
    {.name = "step",
     .value = DRAFT_VALUE_INT,
     .metavar = "N",
     .help = "the checkpoint of step N (default: the newest)"},
    {.name = "f32", .help = "32-bit weights (default: 16-bit)"},
    {.name = "ema", .help = "the average of the trained weights, of jobs submitted with --ema-decay"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

static const struct {
    const char *name;
    Draftd__V1__ExportLoraRequest__Format format;
} formats[] = {
    {"kohya", DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_KOHYA},
    {"diffusers", DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_DIFFUSERS},
    {"merged", DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED},
    {"merged-single", DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED_SINGLE},
};

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    char id[DRAFT_ID_BYTES], saved[4096], size[32];
    uint64_t bytes;
    struct draft_status st = {0};
    Draftd__V1__ExportLoraRequest request = DRAFTD__V1__EXPORT_LORA_REQUEST__INIT;
    const char *format = draft_arguments_string(arguments, "format", "kohya");
    request.job_id = (char *)(uintptr_t)draft_job_id(arguments->operands[0], id);
    request.f32 = draft_arguments_has(arguments, "f32");
    request.ema = draft_arguments_has(arguments, "ema");
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(format, formats[i].name))
            request.format = formats[i].format;
    if (request.format == DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_UNSPECIFIED)
        draft_status_fail(&st, DRAFT_STATUS_INVALID_ARGUMENT,
                          "--format \"%s\": expected kohya, diffusers, merged or merged-single", format);
    if (draft_arguments_has(arguments, "step")) {
        request.step_opt_case = DRAFTD__V1__EXPORT_LORA_REQUEST__STEP_OPT_STEP;
        request.step = draft_arguments_int(arguments, "step", 0);
    }
    if (request.format >= DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED) {
        if (st.code != DRAFT_STATUS_OK ||
            !draft_export_model(draft_connect(cx), &request, draft_arguments_string(arguments, "output", NULL), saved,
                                sizeof saved, &st))
            return draft_report(cx, &st);
        printf("%s\n", saved);
        return DRAFT_EXIT_OK;
    }
    if (st.code != DRAFT_STATUS_OK ||
        !draft_export_file(draft_connect(cx), &request, draft_arguments_string(arguments, "output", NULL), saved,
                           sizeof saved, &bytes, &st))
        return draft_report(cx, &st);
    printf("%s\n", saved);
    fprintf(cx->err.out, "%s written\n", draft_format_bytes(bytes, size, sizeof size));
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_export = {
    .name = "export",
    .group = DRAFT_GROUP_PICTURES,
    .summary = "save a job's LoRA, or the tuned model, as other tools load it",
    .words = "save download lora",
    .usage = "JOB [-o FILE] [options]",
    .about = "Writes the LoRA of a checkpoint, whole or not at all, and prints the file's name. Equal checkpoints give "
             "equal bytes. The file names job, step, reward and KL weight in its metadata. A job that trained every "
             "weight (--train full) has no LoRA: export it as merged or merged-single.",
    .examples = "  draft export job-3 -o lora.safetensors\n"
                "  draft export job-3 --format diffusers -o my-lora/\n"
                "  draft export job-3 --step 100 --f32\n"
                "  draft export job-3 --format merged -o my-model/\n"
                "  draft export job-3 --format merged-single --ema -o my-model.safetensors\n",
    .options = tables,
    .least = 1,
    .most = 1,
    .run = run,
};
