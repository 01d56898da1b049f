/*
 * Text for people: how many columns it takes, how numbers, times and sizes are written. Everything here is pure.
 */
#ifndef DRAFT_CLIENT_TEXT_H
#define DRAFT_CLIENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Columns of a UTF-8 text on a terminal: combining marks 0, wide East Asian and emoji 2; escape sequences 0. */
int draft_text_width(const char *text);
/* The longest beginning of `text` of at most `columns` columns, in bytes; escape sequences stay whole. */
size_t draft_text_cut(const char *text, int columns);

/* Words of `text` from column `at` on (spaces are written up to `indent`), wrapped before `width`, then a newline. */
void draft_wrap(const char *text, int at, int indent, int width, FILE *out);

/* Each writes into out[size] and returns it. */
char *draft_format_number(double value, char *out, size_t size);              /* 4 significant digits; NaN "-" */
char *draft_format_fixed(double value, int decimals, char *out, size_t size); /* NaN "-" */
char *draft_format_duration(double seconds, char *out, size_t size); /* "0.15 s", "4.2 s", "3m12s", "1h04m", "2d03h" */
char *draft_format_bytes(uint64_t bytes, char *out, size_t size);    /* "1.4 MiB" */
char *draft_format_time(int64_t time_us, char *out, size_t size);    /* local, "2025-03-01 12:30:05"; 0: "-" */
char *draft_format_ago(int64_t time_us, int64_t now_us, char *out, size_t size); /* "3m12s ago"; 0: "-" */

int64_t draft_now_us(void);

/* One line for the eye: `count` values as eighth blocks (or " .:-=+*#" without UTF-8), resampled to at most `columns`
 * by the mean of each bucket; NaN is a space. */
void draft_sparkline(const double *values, size_t count, int columns, bool utf8, char *out, size_t size);

/* A bar of `columns` columns filled to `fraction` (clamped to 0..1), with eighth steps in UTF-8. */
void draft_bar(double fraction, int columns, bool utf8, char *out, size_t size);

#endif
