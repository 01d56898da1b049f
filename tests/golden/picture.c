/* diffusers' pictures of a pipeline: <prompt>/<seed> -> floats [h, w, 3] in [0, 1]. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "golden.h"
#include "train/sample.h"

/* 99.9 % of a picture's values within 0.1/255. */
static const double CLOSE = 0.1 / 255, SHARE = 1e-3;

static double share_apart(const float *ours, const float *ref, int64_t n)
{
    int64_t apart = 0;
    for (int64_t i = 0; i < n; i++)
        apart += !(fabs((double)ours[i] - ref[i]) <= CLOSE);
    return (double)apart / (double)n;
}

static double worst(const float *ours, const float *ref, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)ours[i] - ref[i]));
    return most;
}

static bool one(struct golden *t, struct draft_pipeline *pipeline, struct draft_scoring *scoring,
                const struct draft_safetensors *file, const struct draft_safetensors_entry *entry,
                const json_t *prompts)
{
    unsigned prompt, seed;
    if (sscanf(entry->name, "%u/%u", &prompt, &seed) != 2 || entry->rank != 3)
        return draft_fail(&t->error, DRAFT_INVALID_ARGUMENT, "%s is not a picture", entry->name);
    const char *text = json_string_value(json_array_get(prompts, prompt));
    struct draft_sample_request request = {
        .prompt = text,
        .negative = "",
        .sampler = draft_safetensors_metadata(file, "sampler"), /* absent: DDIM */
        .seed = seed,
        .steps = atoi(draft_safetensors_metadata(file, "steps")),
        .guidance = strtod(draft_safetensors_metadata(file, "guidance_scale"), NULL),
        .lora_scale = 1,
        .aig = DRAFT_AIG_DRAFT,
        .height = (int)entry->dim[0],
        .width = (int)entry->dim[1],
    };
    if (text == NULL || request.steps < 1)
        return draft_fail(&t->error, DRAFT_INVALID_ARGUMENT, "no prompt or steps for %s in the metadata", entry->name);
    struct draft_picture picture;
    int64_t n;
    if (!draft_sample_picture(&t->g, pipeline, scoring, &request, NULL, &picture, &t->error))
        return false;
    float *ref = golden_plain(t, file, entry->name, &n);
    if (ref != NULL)
        golden_row(t, GOLDEN_OTHER, share_apart(picture.rgb, ref, n), SHARE,
                   "%s \"%s\", %s: share of values past 0.1/255", entry->name, text, picture.sampler);
    if (ref != NULL && t->options->verbose)
        golden_note("%-92s %9.2e  worst value %.2g/255", "relative error", golden_relative(picture.rgb, ref, n),
                    255 * worst(picture.rgb, ref, n));
    free(ref);
    free(picture.rgb);
    return true;
}

void golden_pictures(struct golden *t, const struct draft_safetensors *file)
{
    const char *folder = t->options->pipeline != NULL ? t->options->pipeline : DEMO "/emoji-sd";
    const char *list = draft_safetensors_metadata(file, "prompts");
    json_t *prompts = list != NULL ? json_loads(list, 0, NULL) : NULL;
    struct draft_pipeline pipeline = {0};
    struct draft_scoring scoring = {0};
    struct draft_reward_spec any = {.kind = "jpeg", .weight = 1}; /* a picture is scored as it is drawn */
    bool ok = draft_pipeline_open(&pipeline, folder, t->weights, NULL, &t->error) &&
              draft_scoring_open(&scoring, &any, 1, t->weights, &t->error);
    for (int i = 0; i < draft_safetensors_count(file) && ok; i++)
        ok = one(t, &pipeline, &scoring, file, draft_safetensors_at(file, i), prompts);
    golden_ok(t);
    draft_scoring_close(&scoring);
    draft_pipeline_close(&pipeline);
    json_decref(prompts);
}
