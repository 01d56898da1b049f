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

DRAFTD_CALL(draftd_rpc_probe_devices)
{
    const Draftd__V1__ProbeDevicesRequest *in = (const Draftd__V1__ProbeDevicesRequest *)request;
    Draftd__V1__ProbeDevicesResponse *out;
    if (!draftd_probe_devices(draftd_call_context(call), in->device, draftd_call_patience(call), &out, err))
        return false;
    *reply = &out->base;
    return true;
}
