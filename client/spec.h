/*
 * A JobSpec from a command line and a job.json. One table gives the flags, their checks and their help; job.json has
 * the JobSpec's own field names, so it needs no table: a finished job's `draft show --json` gives one back.
 */
#ifndef DRAFT_CLIENT_SPEC_H
#define DRAFT_CLIENT_SPEC_H

#include "arguments.h"
#include "draftd/v1/jobs.pb-c.h"

#define DRAFT_SAMPLER_WORDS "ddim pndm euler euler_karras euler_a dpmpp_2m dpmpp_2m_karras" /* of every --sampler */
extern const struct draft_option draft_spec_options[];

/* A spec on the heap; free with draft_free_message(). */
Draftd__V1__JobSpec *draft_spec_new(void);

/* Reads a job file of at most 1 MiB, JSON or (.yaml, .yml) YAML, into the spec; relative paths in it are relative to
 * its folder. A whole job as printed by `draft show --json` is accepted: its "spec" is taken. */
bool draft_spec_from_file(Draftd__V1__JobSpec *spec, const char *path, struct draft_error *err);
bool draft_spec_from_text(Draftd__V1__JobSpec *spec, const char *text, size_t length, const char *shown_name,
                          const char *folder, struct draft_error *err);

/* Sets what the command line gives, over what is there. Relative paths are relative to the working directory. */
bool draft_spec_from_arguments(Draftd__V1__JobSpec *spec, const struct draft_arguments *arguments,
                               struct draft_error *err);

/* "[WEIGHT*]KIND[:PATH][,key=value...]" */
bool draft_spec_parse_reward(const char *text, Draftd__V1__Reward *reward, struct draft_error *err);

/* The flag that sets a field ("spec.length.steps" -> "--steps"), or NULL. */
const char *draft_spec_flag_of(const char *field);
/* Appends that flag to a message about the field, for people at a command line: "... (--steps)". */
void draft_spec_name_flag(const char *field, char *message, size_t size);

#endif
