#include "profiling.h"

#include <stdlib.h>
#include <string.h>

#include "autograd/profile.h"
#include "backend/backend.h"
#include "state.h"

/* --- JSON --------------------------------------------------------------------------------------------------------- */

/* The means of the steps' "seconds/...". */
static json_t *phases_of(const struct draft_report *sum, double steps)
{
    json_t *phases = json_object();
    for (int i = 0; i < sum->count; i++)
        if (strncmp(sum->metric[i].name, "seconds/", 8) == 0)
            json_object_set_new(phases, sum->metric[i].name + 8, json_real(sum->metric[i].value / steps));
    return phases;
}

static json_t *list_of(const struct draft_profile_row *rows, int count, double steps,
                       const struct draft_roofline *reached)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        const struct draft_profile_row *r = &rows[i];
        double share;
        const char *bound = draft_profile_bound_name(draft_profile_bound(reached, r, &share));
        json_array_append_new(list,
                              json_pack("{ss sb ss sf sf sf sf sf ss sf}", "op", r->what, "backward", r->backward,
                                        "phase", r->phase, "calls", (double)r->calls / steps, "launches",
                                        (double)r->launches / steps, "seconds", r->seconds / steps, "flops",
                                        r->flops / steps, "bytes", r->bytes / steps, "bound", bound, "share", share));
    }
    return list;
}

static json_t *told(struct draft_engine *e, const struct draft_report *sum, int64_t steps, int most,
                    const struct draft_roofline *reached, struct draft_error *err)
{
    const struct draft_profile_row *rows;
    int count;
    struct draft_profile_row *sums = malloc(DRAFT_PROFILE_ROWS * sizeof *sums);
    json_t *report = NULL;
    if (sums == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a profile");
    } else if (draft_profile_rows(e->profile, &rows, &count, err)) {
        const double n = (double)steps;
        const int shown = most == 0 || count < most ? count : most;
        report =
            json_pack("{ss sI sf so sf sf sf si}", "precision",
                      e->config.precision == DRAFT_PRECISION_BF16 ? "bf16" : "fp32", "steps", (json_int_t)steps,
                      "step_seconds", sum->seconds / n, "phases", phases_of(sum, n), "flops_per_second", reached->flops,
                      "bytes_per_second", reached->bytes, "launch_seconds", reached->launch, "left_out", count - shown);
        json_object_set_new(report, "by_phase", list_of(sums, draft_profile_by_phase(rows, count, sums), n, reached));
        json_object_set_new(report, "by_op", list_of(sums, draft_profile_by_op(rows, count, sums), n, reached));
        json_object_set_new(report, "rows", list_of(rows, shown, n, reached));
    }
    free(sums);
    return report;
}

/* --- The steps ---------------------------------------------------------------------------------------------------- */

static bool reach(struct draft_engine *e, struct draft_roofline *reached, struct draft_error *err)
{
    draft_graph_reset(&e->graph, NULL);
    bool ok = draft_profile_roofline(&e->graph, reached) ||
              draft_fail(err, e->graph.error.code, "measuring what the machine reaches: %s", e->graph.error.message);
    draft_graph_reset(&e->graph, NULL);
    return ok;
}

static bool train(struct draft_engine *e, int64_t steps, struct draft_report *sum, struct draft_error *err)
{
    *sum = (struct draft_report){0};
    for (int64_t i = 0; i < steps; i++) {
        struct draft_report report;
        if (!draft_engine_step(e, &report, err))
            return false;
        sum->seconds += report.seconds;
        sum->count = report.count;
        for (int k = 0; k < report.count; k++) {
            memcpy(sum->metric[k].name, report.metric[k].name, sizeof sum->metric[k].name);
            sum->metric[k].value += report.metric[k].value;
        }
    }
    return true;
}

/* A step as a job takes it, which is replayed from the third one on. 0: nothing is recorded here. */
static bool replay(struct draft_engine *e, double *seconds, struct draft_error *err)
{
    struct draft_report sum = {0};
    bool ok = !draft_backend_records(e->backend) || (train(e, 2, &sum, err) && train(e, 1, &sum, err));
    *seconds = draft_backend_records(e->backend) ? sum.seconds : 0;
    return ok;
}

json_t *draft_engine_profile(struct draft_engine *e, int64_t steps, int most, struct draft_error *err)
{
    struct draft_report sum;
    struct draft_roofline reached;
    double replayed;
    if (!replay(e, &replayed, err) || !reach(e, &reached, err) ||
        (!e->profile && !(e->profile = draft_profile_create(e->backend, err))))
        return NULL;
    draft_profile_clear(e->profile);
    e->graph.profile = e->profile;
    bool ok = train(e, steps, &sum, err);
    e->graph.profile = NULL;
    json_t *report = ok ? told(e, &sum, steps, most, &reached, err) : NULL;
    if (report && replayed > 0)
        json_object_set_new(report, "replayed_seconds", json_real(replayed));
    return report;
}
