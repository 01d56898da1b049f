/* Fetching files from the daemon: LoRAs and checkpoints. */
#ifndef DRAFT_CLIENT_EXPORT_H
#define DRAFT_CLIENT_EXPORT_H

#include "rpc/rpc.h"

/* Streams the export to `path`, or under the daemon's name into the folder `path` when it is one ("" or NULL: here).
 * The file is there whole or not at all. saved[size] gets its path, *bytes its length. */
bool draft_export_file(struct draft_rpc *rpc, const Draftd__V1__ExportLoraRequest *request, const char *path,
                       char *saved, size_t size, uint64_t *bytes, struct draft_status *st);

/* The same for a checkpoint's own file, named <job>-step-<step>.safetensors and compared with its checksum before it
 * gets that name. */
bool draft_checkpoint_file(struct draft_rpc *rpc, const Draftd__V1__ReadCheckpointRequest *request, const char *path,
                           char *saved, size_t size, uint64_t *bytes, struct draft_status *st);

/* Has the daemon write the merged model as the new folder `path`, of which only the last part may be missing.
 * saved[size] gets its absolute path. */
bool draft_export_model(struct draft_rpc *rpc, Draftd__V1__ExportLoraRequest *request, const char *path, char *saved,
                        size_t size, struct draft_status *st);

#endif
