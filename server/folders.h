/*
 * What lies in the state folder beside the database:
 *
 *   jobs/job-12/dataset.jsonl       the job's own copy
 *   jobs/job-12/checkpoints/        written by the worker, named in the database
 *   jobs/job-12/previews/preview-7/ <index>.png
 *   jobs/job-12/log/attempt-1.log   what the worker wrote to stderr
 *   reserve                         room to give up when the disk is full
 *   incoming/                       submits being checked; swept at start
 *   exports/                        LoRA files being fetched; swept at start
 *   trash/                          deleted jobs on their way out; swept at start
 *
 * Paths returned are malloc'd. Thread: pure functions.
 */
#ifndef DRAFTD_FOLDERS_H
#define DRAFTD_FOLDERS_H

#include <stdint.h>

#include "base/error.h"

bool draftd_make_folder(const char *path,
                        struct draft_error *err); /* mode 0700; its parent must exist; fine when there */
bool draftd_sync_folder(const char *path, struct draft_error *err); /* names in it survive a power cut */
/* Removes a file or a folder with all in it; links are removed, not followed. Best effort: what stays is logged. */
void draftd_remove_tree(const char *path);
/* Removes everything inside a folder. */
void draftd_empty_folder(const char *path);

char *draftd_job_folder(const char *state_dir, int64_t job);
char *draftd_checkpoint_path(const char *state_dir, int64_t job, const char *file);
char *draftd_preview_folder(const char *state_dir, int64_t job, int64_t preview);
char *draftd_picture_file(const char *state_dir, int64_t job, int64_t preview, int index);

#endif
