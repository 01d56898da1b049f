/* draftd.v1.SystemService */
#include "rpc/services.h"

DRAFTD_CALL(draftd_rpc_server_info)
{
    (void)request;
    Draftd__V1__GetServerInfoResponse *out;
    if (!draftd_server_info(draftd_call_context(call), &out, err))
        return false;
    *reply = &out->base;
    return true;
}
