/* draftd.v1.CheckpointService */
#include "message.h"
#include "rpc/file_stream.h"
#include "rpc/services.h"

#include <stdlib.h>
#include <unistd.h>

DRAFTD_CALL(draftd_rpc_list_checkpoints)
{
    const Draftd__V1__ListCheckpointsRequest *in = (const void *)request;
    Draftd__V1__ListCheckpointsResponse *out;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_list_checkpoints(draftd_call_context(call), in->job_id, &out, err))
        return false;
    *reply = &out->base;
    return true;
}

DRAFTD_CALL(draftd_rpc_create_checkpoint)
{
    const Draftd__V1__CreateCheckpointRequest *in = (const void *)request;
    Draftd__V1__Checkpoint *checkpoint;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_create_checkpoint(draftd_call_context(call), in->job_id, draftd_call_patience(call), &checkpoint, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__create_checkpoint_response__descriptor, &checkpoint->base);
    return true;
}

struct reading {
    struct draftd_file_stream *file;
    Draftd__V1__Checkpoint *checkpoint; /* goes into the first message; NULL afterwards */
};

DRAFTD_OPEN(draftd_rpc_read_checkpoint)
{
    const Draftd__V1__ReadCheckpointRequest *in = (const void *)request;
    Draftd__V1__Checkpoint *checkpoint;
    char *path;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_read_checkpoint(draftd_call_context(call), in, &path, &checkpoint, err))
        return false;
    struct draftd_file_stream *file = draftd_file_stream_open(path, err);
    free(path);
    if (file == NULL) {
        draftd_message_free(checkpoint);
        return false;
    }
    struct reading *reading = draftd_new(sizeof *reading);
    *reading = (struct reading){file, checkpoint};
    draftd_call_set_user(call, reading);
    return true;
}

DRAFTD_NEXT(draftd_rpc_checkpoint_next)
{
    struct reading *reading = draftd_call_user(call);
    Draftd__V1__ReadCheckpointResponse *out = draftd_message_new(&draftd__v1__read_checkpoint_response__descriptor);
    out->total_bytes = draftd_file_stream_total(reading->file);
    out->checkpoint = reading->checkpoint;
    reading->checkpoint = NULL;
    bool ok = draftd_file_stream_next(reading->file, &out->data, end, err);
    *message = &out->base;
    return ok;
}

DRAFTD_CLOSE(draftd_rpc_checkpoint_close)
{
    struct reading *reading = draftd_call_user(call);
    draftd_file_stream_close(reading->file);
    draftd_message_free(reading->checkpoint);
    free(reading);
}

struct export
{
    struct draftd_file_stream *file;
    char *name; /* goes into the first message; NULL afterwards */
};

DRAFTD_OPEN(draftd_rpc_export_lora)
{
    const Draftd__V1__ExportLoraRequest *in = (const void *)request;
    char *path, *name;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_export_lora(draftd_call_context(call), in, draftd_call_patience(call), &path, &name, err))
        return false;
    if (in->path[0]) { /* a merged model: it stays where it is */
        free(name);
        struct export *made = draftd_new(sizeof *made);
        *made = (struct export){NULL, path};
        draftd_call_set_user(call, made);
        return true;
    }
    struct draftd_file_stream *file = draftd_file_stream_open(path, err);
    unlink(path); /* the open descriptor is enough; nothing stays behind, whatever happens to the client */
    free(path);
    if (file == NULL) {
        free(name);
        return false;
    }
    struct export *export = draftd_new(sizeof *export);
    *export = (struct export){file, name};
    draftd_call_set_user(call, export);
    return true;
}

DRAFTD_NEXT(draftd_rpc_export_next)
{
    struct export *export = draftd_call_user(call);
    Draftd__V1__ExportLoraResponse *out = draftd_message_new(&draftd__v1__export_lora_response__descriptor);
    if (export->file != NULL)
        out->total_bytes = draftd_file_stream_total(export->file);
    if (export->name != NULL)
        out->file_name = export->name;
    export->name = NULL;
    bool ok = true;
    if (export->file != NULL)
        ok = draftd_file_stream_next(export->file, &out->data, end, err);
    else
        *end = true;
    *message = &out->base;
    return ok;
}

DRAFTD_CLOSE(draftd_rpc_export_close)
{
    struct export *export = draftd_call_user(call);
    if (export->file != NULL)
        draftd_file_stream_close(export->file);
    free(export->name);
    free(export);
}
