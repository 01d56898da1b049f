/* draftd.v1.MetricService */
#include "rpc/services.h"

DRAFTD_CALL(draftd_rpc_list_metrics)
{
    const Draftd__V1__ListMetricsRequest *in = (const void *)request;
    Draftd__V1__ListMetricsResponse *out;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_list_metrics(draftd_call_context(call), in->job_id, &out, err))
        return false;
    *reply = &out->base;
    return true;
}

DRAFTD_CALL(draftd_rpc_query_metrics)
{
    const Draftd__V1__QueryMetricsRequest *in = (const void *)request;
    Draftd__V1__QueryMetricsResponse *out;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_query_metrics(draftd_call_context(call), in, &out, err))
        return false;
    *reply = &out->base;
    return true;
}
