/* The options that make a PreviewSpec, shared by `preview` and `grid`, and the line that shows its progress. */
#ifndef DRAFT_CLIENT_PREVIEW_OPTIONS_H
#define DRAFT_CLIENT_PREVIEW_OPTIONS_H

#include "arguments.h"
#include "previews.h"
#include "terminal.h"

extern const struct draft_option draft_preview_options[];

/* A spec on the heap: free with draft_free_message(). NULL: err. */
Draftd__V1__PreviewSpec *draft_preview_spec(const struct draft_arguments *arguments, struct draft_error *err);

/* A draft_preview_progress; context: struct draft_preview_line. One redrawn line on a terminal, nothing elsewhere. */
struct draft_preview_line {
    struct draft_block block; /* with its terminal set */
    const char *what;         /* "job-3", "base" */
};
void draft_preview_line(void *context, const Draftd__V1__Preview *preview, int64_t done, int64_t total);

#endif
