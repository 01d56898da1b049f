/*
 * Datasets of prompts, as users have them: .txt (a prompt a line), .jsonl (a string, or an object with "prompt" or
 * "text", a line), .csv with a header (RFC 4180; column "prompt", "text" or "caption"), WebDataset shards (.tar, also
 * compressed: dataset_tar.c). Read whole and checked at submit; a job keeps its own copy as one JSON string a line.
 *
 * Files are hostile: size, count, length, UTF-8 and control characters are checked, refusals name the line.
 * Ownership: whoever reads frees. Thread: pure functions.
 */
#ifndef DRAFTD_DATASET_H
#define DRAFTD_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    DRAFTD_DATASET_BYTES = 64 << 20,
    DRAFTD_DATASET_PROMPTS = 1000000,
    DRAFTD_PROMPT_BYTES = 2000,
};

struct draftd_dataset {
    char **prompts; /* each malloc'd */
    size_t count;
    size_t bytes; /* of all prompts together */
};

bool draftd_dataset_read(const char *path, struct draftd_dataset *dataset, struct draft_error *err);
/* WebDataset: members of one name up to the first dot are one sample. Its prompt is the .txt member, else the .json
 * member's "prompt", "text" or "caption"; samples without either are passed over, as is everything that is no file. */
bool draftd_dataset_is_tar(const char *path); /* by its name */
bool draftd_dataset_read_tar(const char *path, struct draftd_dataset *dataset, struct draft_error *err);
/* Opens a regular file and says how large it is; -1 with err set. The caller closes. */
int draftd_dataset_open(const char *path, int64_t *bytes, struct draft_error *err);
/* Appends one prompt, white space at its ends left out, after draftd_prompt_check. */
bool draftd_dataset_add(struct draftd_dataset *dataset, const char *text, size_t length, struct draft_error *err);
void draftd_dataset_free(struct draftd_dataset *dataset);

/* The job's own copy: on disk when it returns. */
bool draftd_dataset_write(const struct draftd_dataset *dataset, const char *path, struct draft_error *err);
/* The first `limit` different prompts of a job's own copy. */
bool draftd_dataset_first(const char *path, size_t limit, struct draftd_dataset *dataset, struct draft_error *err);

/* One prompt by the same rules (of previews and evaluations): UTF-8, no control characters, not empty, not too long. */
bool draftd_prompt_check(const char *prompt, size_t length, struct draft_error *err);

#endif
