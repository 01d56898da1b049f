/*
 * A profile as a page of text, from the JSON of engine/profiling.h alone: for `draft bench --profile` and the report of
 * tests/gpu.
 */
#ifndef DRAFT_CLIENT_PROFILE_PAGE_H
#define DRAFT_CLIENT_PROFILE_PAGE_H

#include <jansson.h>
#include <stdio.h>

/* The `most` longest rows, 0: all. bold, plain: escape sequences around headers, or "". */
void draft_profile_print(const json_t *profile, int most, const char *bold, const char *plain, FILE *out);

#endif
