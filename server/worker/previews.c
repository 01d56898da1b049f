#include "worker/previews.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "worker/png.h"

enum { MAX_PICTURES = 256 };

/* One preview in hand, with every default filled in. */
struct order {
    struct draftd_work *work;
    struct draft_engine *engine;
    const char *job;
    const Draftd__Worker__Preview *preview;
    const char *const *prompts;
    int prompt_count, count;
    uint64_t seed;
    struct draft_sample_request request; /* without prompt and seed */
    int calls;                           /* of the network, for one picture */
};

static void send(struct draftd_work *work, const Draftd__Worker__Preview *preview,
                 Draftd__Worker__PreviewReport *picture)
{
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    picture->preview_id = preview->preview_id;
    picture->step = work->step;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_PREVIEW;
    report.preview = picture;
    draftd_line_send(work->line, &report);
}

void draftd_preview_refuse(struct draftd_work *work, const Draftd__Worker__Preview *preview,
                           const struct draft_error *err)
{
    Draftd__Worker__PreviewReport report = DRAFTD__WORKER__PREVIEW_REPORT__INIT;
    report.done = true;
    report.code = err->code;
    report.message = (char *)(uintptr_t)err->message;
    send(work, preview, &report);
}

bool draftd_aig_parse(const char *text, enum draft_aig *aig, double *power)
{
    static const struct {
        const char *name;
        enum draft_aig aig;
        bool number;
    } kinds[] = {{"", DRAFT_AIG_DRAFT, false},      {"draft", DRAFT_AIG_DRAFT, false},
                 {"base", DRAFT_AIG_BASE, false},   {"linear", DRAFT_AIG_LINEAR, false},
                 {"power_", DRAFT_AIG_POWER, true}, {"step_", DRAFT_AIG_STEP, true}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i].name);
        if (kinds[i].number ? strncmp(text, kinds[i].name, n) != 0 : strcmp(text, kinds[i].name) != 0)
            continue;
        *aig = kinds[i].aig;
        *power = 0;
        if (!kinds[i].number)
            return true;
        char *end;
        *power = strtod(text + n, &end);
        return end != text + n && !*end && *power >= 0 && *power <= 100;
    }
    return false;
}

/* The request's fields against the job's defaults. */
static bool prepare(struct order *o, struct draft_error *err)
{
    const Draftd__V1__PreviewSpec *spec = o->preview->spec;
    const struct draft_job_config *config = draft_engine_config(o->engine);
    if (!spec)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the preview has no spec");
    o->prompt_count = draft_engine_evaluation_prompts(o->engine, &o->prompts);
    if (spec->n_prompts > 0) {
        o->prompts = (const char *const *)spec->prompts;
        o->prompt_count = spec->n_prompts <= MAX_PICTURES ? (int)spec->n_prompts : MAX_PICTURES + 1;
    }
    o->count = spec->count > 0 ? spec->count : 1;
    if (spec->count < 0 || o->count > MAX_PICTURES || o->prompt_count * o->count > MAX_PICTURES)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.count",
                                "%d prompts times %d pictures; a preview has at most %d", o->prompt_count, spec->count,
                                MAX_PICTURES);
    for (int i = 0; i < o->prompt_count; i++)
        if (!draft_utf8_valid(o->prompts[i], strlen(o->prompts[i]), NULL))
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.prompts", "prompt %d is not UTF-8", i + 1);
    if (!draft_utf8_valid(spec->negative_prompt, strlen(spec->negative_prompt), NULL))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.negative_prompt", "negative_prompt is not UTF-8");
    if (spec->seed_opt_case == DRAFTD__V1__PREVIEW_SPEC__SEED_OPT_SEED)
        o->seed = spec->seed;

    struct draft_sample_request *r = &o->request;
    r->negative = spec->negative_prompt[0] ? spec->negative_prompt : config->negative_prompt;
    r->sampler = spec->sampler[0] ? spec->sampler : config->sampler;
    r->steps = spec->steps != 0 ? spec->steps : config->sampling_steps;
    r->guidance = config->guidance;
    if (spec->guidance_opt_case == DRAFTD__V1__PREVIEW_SPEC__GUIDANCE_OPT_GUIDANCE)
        r->guidance = spec->guidance;
    if (!(r->guidance >= 0))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.guidance", "guidance is %g; it must not be negative",
                                r->guidance);
    r->lora_scale = 1;
    if (spec->lora_scale_opt_case == DRAFTD__V1__PREVIEW_SPEC__LORA_SCALE_OPT_LORA_SCALE)
        r->lora_scale = spec->lora_scale;
    r->ema = spec->ema;
    r->height = spec->height != 0 ? spec->height : config->height;
    r->width = spec->width != 0 ? spec->width : config->width;
    if (!draftd_aig_parse(spec->aig, &r->aig, &r->aig_power))
        return draft_fail_field(
            err, DRAFT_INVALID_ARGUMENT, "spec.aig",
            "there is no guidance annealing \"%.40s\"; use draft, base, linear, power_2 or step_0.6 "
            "(any number)",
            spec->aig);
    return true;
}

/* What A1111 and ComfyUI show of a picture; malloc'd. */
static char *parameters(const struct draft_sample_request *r, const char *sampler)
{
    char *text = NULL;
    if (asprintf(&text,
                 "%s\n%s%s%sSteps: %d, Sampler: %s, CFG scale: %g, Seed: %" PRIu64 ", Size: %dx%d, LoRA scale: %g",
                 r->prompt, r->negative[0] ? "Negative prompt: " : "", r->negative, r->negative[0] ? "\n" : "",
                 r->steps, sampler, r->guidance, r->seed, r->width, r->height, r->lora_scale) < 0)
        return NULL;
    return text;
}

static char *details(const struct order *o, const struct draft_picture *picture)
{
    json_t *json = json_pack("{s:s, s:I, s:f, s:f, s:s}", "job", o->job, "step", (json_int_t)o->work->step,
                             "lora_scale", o->request.lora_scale, "kl_coeff", draft_engine_config(o->engine)->kl_coeff,
                             "aig", o->preview->spec->aig[0] ? o->preview->spec->aig : "draft");
    if (o->request.ema)
        json_object_set_new(json, "weights", json_string("average"));
    json_object_set_new(json, "reward", isfinite(picture->reward) ? json_real(picture->reward) : json_null());
    char *text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9));
    json_decref(json);
    return text;
}

static bool write_picture(const struct order *o, int index, const struct draft_sample_request *request,
                          const struct draft_picture *picture, uint64_t *bytes, struct draft_error *err)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%d.png", o->preview->folder, index) >= sizeof path)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the preview's folder has too long a name");
    char *text = parameters(request, picture->sampler), *json = details(o, picture);
    bool ok = text && json;
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a picture's description");
    ok = ok && draftd_png_write(path, picture->rgb, picture->height, picture->width, text, json, bytes, err);
    free(text);
    free(json);
    return ok;
}

static bool one_picture(struct order *o, int index, struct draft_error *err)
{
    struct draft_sample_request request = o->request;
    request.prompt = o->prompts[index / o->count];
    request.seed = o->seed + (uint64_t)(index % o->count);
    struct draft_picture picture;
    if (!draft_engine_sample(o->engine, &request, &picture, err))
        return false;
    uint64_t bytes = 0;
    bool ok = write_picture(o, index, &request, &picture, &bytes, err);
    free(picture.rgb);
    if (!ok)
        return false;
    o->work->preview_done += o->calls;

    Draftd__Worker__PreviewReport report = DRAFTD__WORKER__PREVIEW_REPORT__INIT;
    report.phase_done = o->work->preview_done;
    report.phase_total = o->work->preview_total;
    report.has_picture = true;
    report.index = index;
    report.prompt = (char *)(uintptr_t)request.prompt;
    report.seed = request.seed;
    report.height = picture.height;
    report.width = picture.width;
    report.reward = picture.reward;
    report.bytes = bytes;
    send(o->work, o->preview, &report);
    return true;
}

void draftd_preview_run(struct draftd_work *work, struct draft_engine *engine, const char *job,
                        const Draftd__Worker__Preview *preview)
{
    struct order o = {.work = work, .engine = engine, .job = job, .preview = preview};
    struct draft_error err = {0};
    bool ok = prepare(&o, &err);
    ok = ok && draft_engine_sample_calls(engine, &o.request, &o.calls, &err);
    if (ok && mkdir(preview->folder, 0700) < 0 && errno != EEXIST)
        ok = draft_fail_errno(&err, "the folder %s cannot be made", preview->folder);
    if (ok) {
        work->preview_id = preview->preview_id;
        work->preview_done = 0;
        work->preview_total = (int64_t)o.prompt_count * o.count * o.calls;
        for (int i = 0; ok && i < o.prompt_count * o.count; i++)
            ok = one_picture(&o, i, &err);
        work->preview_id = NULL;
    }
    if (!ok) {
        draftd_preview_refuse(work, preview, &err);
        return;
    }
    Draftd__Worker__PreviewReport report = DRAFTD__WORKER__PREVIEW_REPORT__INIT;
    report.phase_done = report.phase_total = work->preview_total;
    report.done = true;
    send(work, preview, &report);
}
