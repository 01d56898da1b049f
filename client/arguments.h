/*
 * Command lines. A command's options are a const table; parsing, checking, suggestions for misspelt flags and the
 * option part of --help all come from it. `--flag value`, `--flag=value`, `-f value`; `--` ends the options.
 *
 * An option may name a field of a message (`path`, such as "sampling.steps" of JobSpec): submit uses that.
 */
#ifndef DRAFT_CLIENT_ARGUMENTS_H
#define DRAFT_CLIENT_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum draft_value {
    DRAFT_VALUE_NONE, /* a switch */
    DRAFT_VALUE_STRING,
    DRAFT_VALUE_PATH,   /* of something that exists; made absolute where it is used */
    DRAFT_VALUE_INT,    /* int64 */
    DRAFT_VALUE_UINT,   /* uint64 */
    DRAFT_VALUE_DOUBLE, /* finite */
    DRAFT_VALUE_SIZE,   /* HEIGHTxWIDTH in pixels */
    DRAFT_VALUE_LORA,   /* [WEIGHT*]PATH */
    DRAFT_VALUE_REWARD, /* [WEIGHT*]KIND[:PATH][,key=value...] */
};

struct draft_option {
    const char *name; /* without the dashes; NULL ends a table; "" begins a group whose title is `help` */
    char letter;      /* 0: none */
    enum draft_value value;
    const char *metavar;
    const char *help;
    const char *path;  /* field path of a message, or NULL */
    bool repeat;       /* may be given several times */
    const char *words; /* for completion: values that are known, a space between them; or NULL */
};

struct draft_argument {
    const struct draft_option *option;
    const char *text; /* NULL for a switch; points into argv */
};

enum { DRAFT_ARGUMENTS_MAX = 256 };

struct draft_arguments {
    struct draft_argument given[DRAFT_ARGUMENTS_MAX]; /* in the order of the command line */
    int count;
    const char *operands[DRAFT_ARGUMENTS_MAX];
    int operand_count;
};

/* `tables` is NULL-terminated. Checks values by type; err names the flag. */
bool draft_arguments_parse(const struct draft_option *const *tables, int argc, char **argv, struct draft_arguments *out,
                           struct draft_error *err);

/* The last value given for a flag, or the fallback. The flag must exist in the table that was parsed. */
bool draft_arguments_has(const struct draft_arguments *arguments, const char *name);
const char *draft_arguments_string(const struct draft_arguments *arguments, const char *name, const char *fallback);
int64_t draft_arguments_int(const struct draft_arguments *arguments, const char *name, int64_t fallback);
double draft_arguments_double(const struct draft_arguments *arguments, const char *name, double fallback);

/* Strict readers: the whole text must be the value. */
bool draft_parse_int(const char *text, int64_t *out);
bool draft_parse_uint(const char *text, uint64_t *out);
bool draft_parse_double(const char *text, double *out); /* finite */
bool draft_parse_size(const char *text, int32_t *height, int32_t *width);

/* The table as help lines, wrapped to `width` columns. */
void draft_options_help(const struct draft_option *table, int width, FILE *out);

/* The nearest of `count` names to a misspelt one, or NULL when none is near. */
const char *draft_nearest(const char *word, const char *const *names, int count);

#endif
