#include "demo.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "interrupt.h"
#include "json_message.h"
#include "model_grid.h"
#include "request_id.h"
#include "shown_path.h"
#include "spec.h"
#include "table.h"
#include "text.h"

/* --- The place -----------------------------------------------------------------------------------------------------
 */

static bool holds_model(const char *folder)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/emoji-sd/model_index.json", folder) < (int)sizeof path &&
           access(path, R_OK) == 0;
}

bool draft_demo_model(const char *given, char *path, size_t size, struct draft_status *st)
{
    char beside[4096], installed[PATH_MAX] = "", shown[PATH_MAX];
    draft_program_beside("draftd", beside, sizeof beside);
    char *slash = strrchr(beside, '/');
    if (slash)
        snprintf(installed, sizeof installed, "%.*s/../share/draftd/demo", (int)(slash - beside), beside);
    const char *places[] = {given, installed, DRAFT_SOURCE_DIR "/deploy/demo"};
    for (int i = given ? 0 : 1; i < (given ? 1 : 3); i++)
        if (holds_model(places[i])) {
            if (!realpath(places[i], shown) || snprintf(path, size, "%s", shown) >= (int)size)
                break;
            return true;
        }
    return draft_status_fail(
        st, DRAFT_STATUS_NOT_FOUND,
        "the demo model (a folder with emoji-sd/, emoji-clip/, emoji-lpips/) is not in %s%s%s; name it "
        "with --demo-dir",
        given ? given : installed, given ? "" : " or ", given ? "" : places[2]);
}

static bool make_folder(const char *path, struct draft_status *st)
{
    struct stat info;
    if (mkdir(path, 0755) != 0 && !(errno == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode)))
        return draft_status_fail(st, DRAFT_STATUS_INTERNAL, "cannot make the folder %s: %s", path, strerror(errno));
    return access(path, W_OK | X_OK) == 0 ||
           draft_status_fail(st, DRAFT_STATUS_INTERNAL, "cannot write into %s: %s", path, strerror(errno));
}

bool draft_demo_open(struct draft_demo *demo, const char *dir, const char *model, struct draft_status *st)
{
    char shown[PATH_MAX];
    if (!draft_demo_model(model, demo->model, sizeof demo->model, st) || !make_folder(dir, st))
        return false;
    if (!realpath(dir, shown) || snprintf(demo->dir, sizeof demo->dir, "%s", shown) >= (int)sizeof demo->dir)
        return draft_status_fail(st, DRAFT_STATUS_INVALID_ARGUMENT, "the path of %s is too long", dir);
    fprintf(demo->cx->out.out,
            "a daemon of its own starts in %s, where its log is too, and tries a step of the model\n",
            draft_shown_path(demo->dir, shown, sizeof shown));
    fflush(demo->cx->out.out);
    return draft_private_daemon_start(&demo->daemon, draft_demo_path(demo, "state"), demo->model,
                                      draft_demo_path(demo, "draftd.log"), &demo->rpc, st);
}

void draft_demo_close(struct draft_demo *demo)
{
    draft_rpc_close(demo->rpc);
    demo->rpc = NULL;
    draft_private_daemon_stop(&demo->daemon);
}

const char *draft_demo_path(const struct draft_demo *demo, const char *name)
{
    static char paths[4][4096];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", demo->dir, name);
    return path;
}

void draft_demo_protocol(const struct draft_demo *demo, char *out, size_t size)
{
    const struct draft_demo_settings *s = demo->settings;
    snprintf(
        out, size,
        "Prompt \"%s\", 64x64 pixels, DDIM %d steps, guidance %g; DRaFT-%d, batch %d, LoRA rank %d, learning rate %g. "
        "Evaluation: %d fixed seeds; diversity is their mean pairwise LPIPS (demo LPIPS net: comparable only with "
        "itself); reward is the demo CLIP model's score.",
        s->prompt, s->sampling_steps, s->guidance, s->truncation_steps, s->batch, s->rank, s->learning_rate,
        s->eval_seeds);
}

int draft_demo_report(const struct draft_demo *demo, const struct draft_status *st)
{
    return draft_interrupted() ? DRAFT_EXIT_INTERRUPTED : draft_report(demo->cx, st);
}

/* --- Jobs ----------------------------------------------------------------------------------------------------------
 */

static char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *format_text(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        abort();
    va_end(args);
    return text;
}

static ProtobufCMessage *child(const ProtobufCMessageDescriptor *descriptor)
{
    return draft_message_new(descriptor);
}

static Draftd__V1__JobSpec *make_spec(const struct draft_demo *demo, const char *name, double kl_coeff)
{
    const struct draft_demo_settings *s = demo->settings;
    Draftd__V1__JobSpec *spec = draft_spec_new();
    spec->display_name = format_text("%s", name);
    spec->model = format_text("%s/emoji-sd", demo->model);
    spec->dataset = format_text("%s", draft_demo_path(demo, "prompts.txt"));
    spec->kl_coeff_opt_case = DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF;
    spec->kl_coeff = kl_coeff;
    spec->seed_opt_case = DRAFTD__V1__JOB_SPEC__SEED_OPT_SEED;
    spec->seed = s->seed;
    spec->rewards = calloc(1, sizeof *spec->rewards);
    if (!spec->rewards)
        abort();
    spec->n_rewards = 1;
    spec->rewards[0] = (Draftd__V1__Reward *)child(&draftd__v1__reward__descriptor);
    spec->rewards[0]->kind = format_text("clip");
    spec->rewards[0]->path = format_text("%s/emoji-clip", demo->model);
    spec->sampling = (Draftd__V1__Sampling *)child(&draftd__v1__sampling__descriptor);
    spec->sampling->steps = s->sampling_steps;
    spec->sampling->truncation_steps = s->truncation_steps;
    spec->sampling->guidance_opt_case = DRAFTD__V1__SAMPLING__GUIDANCE_OPT_GUIDANCE;
    spec->sampling->guidance = s->guidance;
    spec->lora = (Draftd__V1__Lora *)child(&draftd__v1__lora__descriptor);
    spec->lora->rank = s->rank;
    spec->optimizer = (Draftd__V1__Optimizer *)child(&draftd__v1__optimizer__descriptor);
    spec->optimizer->learning_rate = s->learning_rate;
    spec->optimizer->warmup_steps_opt_case = DRAFTD__V1__OPTIMIZER__WARMUP_STEPS_OPT_WARMUP_STEPS;
    spec->optimizer->warmup_steps = s->warmup;
    spec->length = (Draftd__V1__Length *)child(&draftd__v1__length__descriptor);
    spec->length->steps = s->steps;
    spec->length->micro_batch = s->micro_batch;
    spec->length->global_batch = s->batch;
    spec->evaluation = (Draftd__V1__Evaluation *)child(&draftd__v1__evaluation__descriptor);
    spec->evaluation->every = s->eval_every;
    spec->evaluation->seeds = s->eval_seeds;
    spec->evaluation->lpips = format_text("%s/emoji-lpips", demo->model);
    spec->checkpoint_every = 10;
    return spec;
}

/* Equal as bytes: protobuf-c packs fields in one order. */
static bool same_spec(const Draftd__V1__JobSpec *a, const Draftd__V1__JobSpec *b)
{
    size_t na = protobuf_c_message_get_packed_size(&a->base), nb = protobuf_c_message_get_packed_size(&b->base);
    if (na != nb)
        return false;
    uint8_t *pa = malloc(na + 1), *pb = malloc(nb + 1);
    if (!pa || !pb)
        abort();
    protobuf_c_message_pack(&a->base, pa);
    protobuf_c_message_pack(&b->base, pb);
    bool same = memcmp(pa, pb, na) == 0;
    free(pa);
    free(pb);
    return same;
}

static bool reusable(const draft_job *job, const Draftd__V1__JobSpec *spec, bool finished)
{
    if (!job->spec || !same_spec(job->spec, spec))
        return false;
    switch (job->state) {
    case DRAFTD__V1__JOB__STATE__STATE_CANCELLING:
    case DRAFTD__V1__JOB__STATE__STATE_CANCELLED:
    case DRAFTD__V1__JOB__STATE__STATE_FAILED:
        return false;
    case DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED:
        return finished;
    default:
        return true;
    }
}

static bool find_job(struct draft_demo *demo, const Draftd__V1__JobSpec *spec, bool finished, char id[DRAFT_ID_BYTES],
                     struct draft_status *st)
{
    Draftd__V1__ListJobsRequest request = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    request.page_size = 1000;
    id[0] = 0;
    Draftd__V1__ListJobsResponse *reply = draft_rpc_list_jobs(demo->rpc, &request, st);
    if (!reply)
        return false;
    for (size_t i = 0; i < reply->n_jobs && !*id; i++)
        if (reusable(reply->jobs[i], spec, finished))
            draft_job_id(reply->jobs[i]->id, id);
    draft_free_message(reply);
    return true;
}

static bool submit(struct draft_demo *demo, Draftd__V1__JobSpec *spec, char id[DRAFT_ID_BYTES], struct draft_status *st)
{
    char request_id[DRAFT_REQUEST_ID_BYTES];
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    draft_request_id(request_id);
    request.spec = spec;
    request.request_id = request_id;
    Draftd__V1__CreateJobResponse *reply = draft_rpc_create_job(demo->rpc, &request, st);
    if (!reply)
        return false;
    draft_job_id(reply->job->id, id);
    draft_free_message(reply);
    return true;
}

bool draft_demo_job(struct draft_demo *demo, const char *name, double kl_coeff, bool finished, char id[DRAFT_ID_BYTES],
                    bool *fresh, struct draft_status *st)
{
    char prompts[256];
    struct draft_error err = {0};
    int length = snprintf(prompts, sizeof prompts, "%s\n", demo->settings->prompt);
    if (!draft_atomic_write_file(draft_demo_path(demo, "prompts.txt"), prompts, (size_t)length, &err))
        return draft_status_take(st, &err);
    Draftd__V1__JobSpec *spec = make_spec(demo, name, kl_coeff);
    bool good = find_job(demo, spec, finished, id, st);
    *fresh = good && !*id;
    if (*fresh)
        good = submit(demo, spec, id, st);
    draft_free_message(spec);
    return good;
}

/* --- Following -----------------------------------------------------------------------------------------------------
 */

struct following {
    struct draft_live *live;
    bool (*half)(void *, const draft_job *);
    void (*event)(void *, const Draftd__V1__JobEvent *);
    void *context;
    bool half_told;
};

static bool update(void *context, const draft_job *job, const Draftd__V1__JobEvent *event)
{
    struct following *f = context;
    draft_live_update(f->live, job, event);
    const Draftd__V1__Progress *p = job->progress;
    bool running = job->state == DRAFTD__V1__JOB__STATE__STATE_RUNNING;
    if (f->half && !f->half_told && running && p && p->total_steps > 0 && 2 * p->step >= p->total_steps)
        f->half_told = f->half(f->context, job);
    if (f->event && event)
        f->event(f->context, event);
    return true;
}

static void tick(void *context)
{
    draft_live_tick(((struct following *)context)->live);
}

static void connection(void *context, bool lost)
{
    draft_live_connection(((struct following *)context)->live, lost);
}

static bool wake_up(struct draft_demo *demo, const char *id, struct draft_status *st)
{
    draft_job *job = draft_get_job(demo->rpc, id, st);
    if (!job)
        return false;
    if (job->state == DRAFTD__V1__JOB__STATE__STATE_PAUSED) {
        Draftd__V1__ResumeJobRequest request = DRAFTD__V1__RESUME_JOB_REQUEST__INIT;
        request.job_id = (char *)(uintptr_t)id;
        Draftd__V1__ResumeJobResponse *reply = draft_rpc_resume_job(demo->rpc, &request, st);
        draft_free_message(reply);
    }
    draft_free_message(job);
    return st->code == DRAFT_STATUS_OK;
}

bool draft_demo_follow(struct draft_demo *demo, const char *id, bool (*half)(void *, const draft_job *),
                       void (*event)(void *, const Draftd__V1__JobEvent *), void *context, struct draft_status *st)
{
    struct following f = {.half = half, .event = event, .context = context};
    struct draft_follow follow = {
        .context = &f, .update = update, .tick = tick, .connection = connection, .patience_seconds = 15};
    if (!wake_up(demo, id, st))
        return false;
    f.live = demo->live = draft_live_create(&demo->cx->out, demo->rpc, id);
    draft_job *job = draft_follow_job(demo->rpc, id, &follow, st);
    draft_live_close(f.live, true);
    demo->live = NULL;
    if (job && job->state != DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED)
        draft_status_fail(st, DRAFT_STATUS_INTERNAL, "%s %s: %s (logs: %s)", id, draft_state_name(job->state),
                          job->reason, draft_demo_path(demo, "draftd.log"));
    draft_free_message(job);
    return st->code == DRAFT_STATUS_OK;
}

/* --- Results -------------------------------------------------------------------------------------------------------
 */

static const struct draft_column table_columns[] = {
    {.title = ""},
    {.title = "reward", .right = true},
    {.title = "KL", .right = true},
    {.title = "LPIPS", .right = true},
    {.title = "LPIPS at equal reward", .right = true},
};

struct draft_table *draft_demo_table(void)
{
    return draft_table_create(table_columns, 5);
}

void draft_demo_table_row(struct draft_table *table, const struct draft_run *run, double level)
{
    char text[32];
    static const char *const names[] = {"eval/reward", "eval/kl", "eval/lpips"};
    static const int decimals[] = {2, 4, 3};
    draft_table_row(table);
    draft_table_cell(table, "%s", run->label);
    for (int i = 0; i < 3; i++)
        draft_table_cell(table, "%s",
                         draft_format_fixed(draft_series_last(draft_series_find(&run->set, names[i])), decimals[i],
                                            text, sizeof text));
    double where = isnan(level) ? NAN : draft_series_where(&run->set, "eval/reward", level, "eval/lpips");
    draft_table_cell(table, "%s", draft_format_fixed(where, 3, text, sizeof text));
}

bool draft_demo_grid(struct draft_demo *demo, const char *const *ids, const double *kl_coeffs, int count,
                     const char *name, struct draft_status *st)
{
    const struct draft_demo_settings *s = demo->settings;
    struct draft_model_column *columns = calloc((size_t)count + 1, sizeof *columns);
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    char *prompts[] = {(char *)(uintptr_t)s->prompt};
    char title[160], note[512];
    struct draft_error err = {0};
    if (!columns)
        abort();
    spec.prompts = prompts;
    spec.n_prompts = 1;
    spec.seed_opt_case = DRAFTD__V1__PREVIEW_SPEC__SEED_OPT_SEED;
    spec.seed = 1;
    spec.count = s->grid_seeds;
    for (int c = 0; c <= count; c++) {
        snprintf(columns[c].job_id, sizeof columns[c].job_id, "%s", ids[c ? c - 1 : 0]);
        columns[c].lora_scale = c ? 1 : 0;
        columns[c].checkpoint_step = -1;
        if (c == 0)
            snprintf(columns[c].label, sizeof columns[c].label, "base");
        else if (count == 1)
            snprintf(columns[c].label, sizeof columns[c].label, "tuned");
        else
            snprintf(columns[c].label, sizeof columns[c].label, "kl %g", kl_coeffs[c - 1]);
        if (c && kl_coeffs[c - 1] == 0)
            snprintf(columns[c].more, sizeof columns[c].more, "vanilla DRaFT");
    }
    snprintf(title, sizeof title, "\"%s\": base and tuned, seed by seed", s->prompt);
    snprintf(
        note, sizeof note,
        "Rows: seeds, the same noise in every column. Columns: the base model and %s. Below each picture: its reward. "
        "64x64 pixels, DDIM %d steps, guidance %g, %d updates.",
        count == 1 ? "the tuned one" : "one tuned model per kl_coeff", s->sampling_steps, s->guidance, s->steps);
    bool good = draft_model_grid_fetch(demo->rpc, columns, count + 1, &spec, &demo->cx->err, st);
    if (good)
        good = draft_model_grid_png(columns, count + 1, title, note, draft_demo_path(demo, name), &err) ||
               draft_status_take(st, &err);
    draft_model_grid_clear(columns, count + 1);
    free(columns);
    return good;
}
