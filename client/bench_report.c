/* What `draft bench` says: a table of phases for people, an object for scripts. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/atomic_file.h"
#include "bench.h"
#include "json_message.h"
#include "table.h"
#include "text.h"

/* What was run, in a line: the settings that time depends on. */
static void describe(const draft_job *job, char *out, size_t size)
{
    const Draftd__V1__JobSpec *s = job->spec;
    const Draftd__V1__Sampling *sampling = s->sampling;
    bool guided = sampling->guidance_opt_case == DRAFTD__V1__SAMPLING__GUIDANCE_OPT__NOT_SET || sampling->guidance > 1;
    char reward[160] = "";
    for (size_t i = 0; i < s->n_rewards; i++)
        snprintf(reward + strlen(reward), sizeof reward - strlen(reward), "%s%s", i ? " + " : "", s->rewards[i]->kind);
    snprintf(out, size, "%dx%d pixels, batch %d (%d at a time), T = %d, K = %d, guidance %s, KL %s, reward %s",
             job->picture_width, job->picture_height, s->length->global_batch, s->length->micro_batch, sampling->steps,
             sampling->truncation_steps ? sampling->truncation_steps : 1, guided ? "on" : "off",
             draft_job_kl_coeff(job) > 0 ? "on" : "off", reward);
}

static void phase(struct draft_table *table, const char *name, double seconds, double step, const char *about)
{
    char text[32];
    draft_table_row(table);
    draft_table_cell(table, "%s", name);
    draft_table_cell(table, "%s", draft_format_fixed(seconds, step < 1 ? 4 : step < 100 ? 2 : 1, text, sizeof text));
    if (isnan(seconds) || isnan(step))
        draft_table_cell(table, "-");
    else
        draft_table_cell(table, "%.0f %%", 100 * seconds / step);
    draft_table_cell(table, "%s", about);
}

static void line(FILE *out, const char *name, const char *text)
{
    fprintf(out, "%-11s%s\n", name, text);
}

void draft_bench_print(const struct draft_bench_numbers *n, const draft_job *job, const struct draft_terminal *terminal)
{
    static const struct draft_column columns[] = {{.title = "phase"},
                                                  {.title = "seconds", .right = true},
                                                  {.title = "share", .right = true},
                                                  {.title = "what it is", .cut = true}};
    FILE *out = terminal->out;
    char text[512], a[32], b[32];
    int rows, width;
    const char *slash = strrchr(job->spec->model, '/');
    line(out, "model", slash ? slash + 1 : job->spec->model);
    describe(job, text, sizeof text);
    line(out, "job", text);
    snprintf(text, sizeof text, "%s: %s; precision %s", n->device, n->description, n->precision);
    line(out, "device", text);
    fputc('\n', out);

    struct draft_table *table = draft_table_create(columns, sizeof columns / sizeof columns[0]);
    double rest = n->step - n->sample - n->forward - n->backward - n->optimizer;
    phase(table, "sampling", n->sample, n->step, "denoising steps without gradient");
    phase(table, "forward", n->forward, n->step, "the last K steps, the frozen prediction, decoding, the reward");
    phase(table, "backward", n->backward, n->step, "from the reward back to the adapter");
    phase(table, "optimizer", n->optimizer, n->step, "clipping and AdamW");
    phase(table, "between", rest > 0 ? rest : isnan(rest) ? NAN : 0, n->step, "daemon, reports");
    snprintf(text, sizeof text, "mean of %d step%s; evaluation off", n->steps, n->steps == 1 ? "" : "s");
    phase(table, "a step", n->step, n->step, text);
    draft_terminal_size(terminal, &rows, &width);
    draft_table_print(table, terminal->tty ? width : 0, draft_ink(terminal, DRAFT_BOLD),
                      draft_ink(terminal, DRAFT_PLAIN), out);
    draft_table_free(table);

    fputc('\n', out);
    snprintf(text, sizeof text, "%s it/s (denoising steps of one picture), %s samples/s",
             draft_format_number(n->it_per_second, a, sizeof a),
             draft_format_number(n->samples_per_second, b, sizeof b));
    line(out, "speed", text);
    snprintf(text, sizeof text, "%s at the peak (estimated: %s)",
             isnan(n->peak_bytes) ? "-" : draft_format_bytes((uint64_t)n->peak_bytes, a, sizeof a),
             isnan(n->estimated_bytes) ? "-" : draft_format_bytes((uint64_t)n->estimated_bytes, b, sizeof b));
    line(out, "memory", text);
    snprintf(text, sizeof text, "%s s to open the models; the first step, which prepares weights, took %s s",
             draft_format_number(n->opening, a, sizeof a), draft_format_number(n->first_step, b, sizeof b));
    line(out, "once", text);
}

/* JSON has no NaN: what is unknown is null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

bool draft_bench_write_json(const struct draft_bench_numbers *n, const draft_job *job, const char *path,
                            struct draft_error *err)
{
    json_t *seconds = json_object(), *root = json_object();
    json_object_set_new(seconds, "step", number(n->step));
    json_object_set_new(seconds, "sampling", number(n->sample));
    json_object_set_new(seconds, "forward", number(n->forward));
    json_object_set_new(seconds, "backward", number(n->backward));
    json_object_set_new(seconds, "optimizer", number(n->optimizer));
    json_object_set_new(seconds, "opening", number(n->opening));
    json_object_set_new(seconds, "first_step", number(n->first_step));
    json_object_set_new(root, "device", json_string(n->device));
    json_object_set_new(root, "machine", json_string(n->description));
    json_object_set_new(root, "precision", json_string(n->precision));
    json_object_set_new(root, "steps", json_integer(n->steps));
    json_object_set_new(root, "seconds", seconds);
    json_object_set_new(root, "it_per_second", number(n->it_per_second));
    json_object_set_new(root, "samples_per_second", number(n->samples_per_second));
    json_object_set_new(root, "memory_peak_bytes", number(n->peak_bytes));
    json_object_set_new(root, "memory_estimated_bytes", number(n->estimated_bytes));
    json_object_set_new(root, "spec", draft_message_to_json(&job->spec->base));
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!text)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %s", path);
    bool good = draft_atomic_write_file(path, text, strlen(text), err);
    free(text);
    return good;
}
