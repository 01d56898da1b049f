#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "export.h"
#include "jobs.h"
#include "tensor/lora_merge.h" /* files only: no engine is linked */
#include "text.h"

static const struct draft_option options[] = {
    {.name = "weights",
     .letter = 'w',
     .value = DRAFT_VALUE_STRING,
     .metavar = "W,W...",
     .help = "a weight for each, in order (default: 1 divided by their number, each)"},
    {.name = "out", .letter = 'o', .value = DRAFT_VALUE_STRING, .metavar = "FILE", .help = "the file to write"},
    {.name = "f32", .help = "32-bit weights (default: 16-bit)"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

/* What is merged: files as they are, jobs by way of an export into a temporary file. */
struct sources {
    char *path[DRAFT_LORA_MERGE_MAX];
    double weight[DRAFT_LORA_MERGE_MAX];
    bool temporary[DRAFT_LORA_MERGE_MAX];
    int count;
};

static bool read_weights(const char *text, struct sources *s, struct draft_status *st)
{
    for (int i = 0; i < s->count; i++)
        s->weight[i] = 1.0 / s->count;
    if (!text)
        return true;
    const char *p = text;
    for (int i = 0; i < s->count; i++) {
        char number[64];
        size_t length = strcspn(p, ",");
        snprintf(number, sizeof number, "%.*s", (int)length, p);
        bool last = p[length] == '\0';
        if (length >= sizeof number || !draft_parse_double(number, &s->weight[i]) || last != (i + 1 == s->count))
            return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT,
                                     "--weights \"%s\": expected %d numbers with commas between them", text, s->count);
        p += length + 1;
    }
    return true;
}

/* An existing file, or a job's newest checkpoint. */
static bool find_source(struct draft_context *cx, const char *operand, const char *out, struct sources *s,
                        struct draft_status *st)
{
    struct stat info;
    char id[DRAFT_ID_BYTES], saved[4096];
    uint64_t bytes;
    int place = s->count++;
    if (stat(operand, &info) == 0) {
        s->path[place] = strdup(operand);
        return s->path[place] || draft_status_fail(st, DRAFT_STATUS_RESOURCE_EXHAUSTED, "out of memory");
    }
    if (strchr(operand, '/') || strstr(operand, ".safetensors"))
        return draft_status_fail(st, DRAFT_STATUS_NOT_FOUND, "there is no file %s", operand);
    Draftd__V1__ExportLoraRequest request = DRAFTD__V1__EXPORT_LORA_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)draft_job_id(operand, id);
    request.format = DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_KOHYA;
    request.f32 = true;
    if (asprintf(&s->path[place], "%s.merging-%d-%d", out, (int)getpid(), place) < 0) {
        s->path[place] = NULL;
        return draft_status_fail(st, DRAFT_STATUS_RESOURCE_EXHAUSTED, "out of memory");
    }
    s->temporary[place] =
        draft_export_file(draft_connect(cx), &request, s->path[place], saved, sizeof saved, &bytes, st);
    return s->temporary[place];
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    const char *out = draft_arguments_string(arguments, "out", NULL);
    struct sources s = {0};
    struct draft_status st = {0};
    struct draft_error err = {0};
    bool good = true;
    if (!out || !*out)
        good = draft_status_fail(&st, DRAFT_STATUS_INVALID_ARGUMENT, "--out is missing: the file to write");
    else if (arguments->operand_count > DRAFT_LORA_MERGE_MAX)
        good = draft_status_fail(&st, DRAFT_STATUS_INVALID_ARGUMENT, "at most %d LoRAs can be merged at once",
                                 DRAFT_LORA_MERGE_MAX);
    for (int i = 0; good && i < arguments->operand_count; i++)
        good = find_source(cx, arguments->operands[i], out, &s, &st);
    good = good && read_weights(draft_arguments_string(arguments, "weights", NULL), &s, &st);
    if (good && !draft_lora_merge_files((const char *const *)s.path, s.weight, s.count, out,
                                        draft_arguments_has(arguments, "f32"), &err)) {
        draft_status_take(&st, &err);
        good = false;
    }
    for (int i = 0; i < s.count; i++) {
        if (s.temporary[i])
            unlink(s.path[i]);
        free(s.path[i]);
    }
    if (!good)
        return draft_report(cx, &st);
    printf("%s\n", out);
    return DRAFT_EXIT_OK;
}

const struct draft_command draft_command_merge = {
    .name = "merge",
    .group = DRAFT_GROUP_PICTURES,
    .summary = "sum LoRAs of jobs and files into one",
    .usage = "JOB|FILE... --out FILE [options]",
    .about =
        "Writes one LoRA with kohya's names whose effect is the weighted sum of the given ones: files with the names "
        "of kohya, diffusers or PEFT, or a job's newest checkpoint. The sum is exact: the ranks are laid side by "
        "side, so the new rank is the sum of the ranks.",
    .examples = "  draft merge job-3 job-4 --weights 0.5,0.5 --out both.safetensors\n"
                "  draft merge job-3 style.safetensors -w 1,0.6 -o styled.safetensors --f32\n",
    .options = tables,
    .least = 1,
    .most = -1,
    .run = run,
};
