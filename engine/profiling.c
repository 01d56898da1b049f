#include "profiling.h"

#include "state.h"

bool draft_engine_profile(struct draft_engine *e, struct draft_error *err)
{
    if (!e->profile && !(e->profile = draft_profile_create(e->backend, err)))
        return false;
    draft_profile_clear(e->profile);
    e->graph.profile = e->profile;
    return true;
}

bool draft_engine_profile_rows(struct draft_engine *e, const struct draft_profile_row **rows, int *count,
                               struct draft_error *err)
{
    *count = 0;
    return !e->profile || draft_profile_rows(e->profile, rows, count, err);
}

bool draft_engine_roofline(struct draft_engine *e, struct draft_roofline *reached, struct draft_error *err)
{
    draft_graph_reset(&e->graph, NULL);
    bool ok = draft_profile_roofline(&e->graph, reached);
    if (!ok)
        draft_fail(err, e->graph.error.code, "measuring what the machine reaches: %s", e->graph.error.message);
    draft_graph_reset(&e->graph, NULL);
    return ok;
}
