/*
 * YAML job files, as the JSON they stand for. One document of block or flow collections with string keys; plain scalars
 * follow YAML 1.2's core schema (true, false, null, numbers; yes and no are text). Anchors, aliases, merge keys and
 * tags are refused: no job needs them, and a small file could grow without bound.
 */
#ifndef DRAFT_CLIENT_YAML_FILE_H
#define DRAFT_CLIENT_YAML_FILE_H

#include <jansson.h>

#include "base/error.h"

/* The caller decrefs. NULL with a sentence that names `shown_name` and the line. */
json_t *draft_yaml_load(const char *text, size_t length, const char *shown_name, struct draft_error *err);
bool draft_yaml_is(const char *path); /* .yaml or .yml */

#endif
