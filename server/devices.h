/*
 * Devices: the CPU, and the GPUs that a probe found. Each runs one job at a time. The daemon never touches a driver: a
 * probe is a worker process that lists the GPUs, or tries one, reports and ends; one that crashes or hangs has drained
 * its GPU, not ended the daemon.
 *
 *   listed at the start, and when asked                    -> UNPROBED
 *   UNPROBED (also after a worker of it was lost) -- probe -> FIT | DRAINED, with the reason
 *   DRAINED -- a minute later, or when asked               -> UNPROBED
 *
 * Needs the daemon's lock, like all of server/; probes are started by the daemon's thread.
 */
#ifndef DRAFTD_DEVICES_H
#define DRAFTD_DEVICES_H

#include "worker.h"

void draftd_devices_open(struct draftd *d);
/* Starts the probe that is due, if none runs; lowers *next_ms to its next time. */
void draftd_devices_check(struct draftd *d, int64_t now_ms, int64_t *next_ms);

/* The worker on a device, NULL: none. */
const struct draftd_worker *draftd_device_user(const struct draftd *d, int device);
/* Something went wrong on it: it is probed before its next job. DRAFTD_NO_DEVICE and the CPU need none. */
void draftd_device_doubt(struct draftd *d, int device);
const char *draftd_device_name(const struct draftd *d, int device); /* "" of DRAFTD_NO_DEVICE */

/* Whether a spec's device may ever be there: "cuda" and "cuda:N" are refused where no listing found them. Takes the
 * lock and waits for the first listing. */
bool draftd_device_exists(struct draftd *d, const char *wish, struct draftd_patience patience, struct draft_error *err);
/* Bytes of the largest GPU that a spec's device allows; 0: none. */
uint64_t draftd_device_memory(const struct draftd *d, const char *wish);

/* The free device for a job, or DRAFTD_NO_DEVICE and what it waits for ("cuda:0: job-3 is running"). wish: the spec's
 * device; gpu_memory: what the job needs on a GPU, 0: none can do it. "auto" takes a GPU, and the CPU where no GPU that
 * can do the job is there or fit. */
int draftd_device_choose(const struct draftd *d, const char *wish, uint64_t gpu_memory, char *waits_for, size_t size);
/* In whose queue a job stands: of DRAFTD_CPU, of a certain GPU, or of any (DRAFTD_NO_DEVICE). */
int draftd_device_queue(const struct draftd *d, const char *wish, uint64_t gpu_memory);
/* For a preview without a running job's worker: a free GPU that the wish allows, else DRAFTD_NO_DEVICE: the CPU, which
 * has room beside a job. */
int draftd_device_for_preview(const struct draftd *d, const char *wish, uint64_t gpu_memory);

/* As clients see it. */
Draftd__V1__GetServerInfoResponse__Device *draftd_device_message(const struct draftd *d, int device);

#endif
