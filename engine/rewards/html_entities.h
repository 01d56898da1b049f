/*
 * Character references of HTML ("&amp;", "&#233;", "&eacute"), as Python's html.unescape reads them (the HTML
 * standard's 2231 names), and as ftfy does, which is more careful. Text is UTF-8. Thread: pure.
 */
#ifndef DRAFT_REWARDS_HTML_ENTITIES_H
#define DRAFT_REWARDS_HTML_ENTITIES_H

#include <stddef.h>
#include <stdint.h>

enum {
    DRAFT_HTML_TEXT = 8, /* bytes: what a reference stands for, with its NUL */
};

/* Reads the reference at `at`, a '&': its length in bytes and, in text[DRAFT_HTML_TEXT], what it stands for (maybe
 * nothing). 0: there is none. */
typedef size_t draft_html_reference(const char *at, char *text);

/* html.unescape's: old names need no semicolon and may go on ("&notit" is "¬it"), numbers need none either. */
draft_html_reference draft_html_reference_any;

/* ftfy.fixes.unescape_html's: up to a semicolon, at most 24 letters and digits; "&EACUTE;", which is no name, is "É".
 */
draft_html_reference draft_html_reference_closed;

/* `text` with each reference that `read` knows replaced, once from left to right. malloc'd; NULL: out of memory. */
char *draft_html_unescape(const char *text, draft_html_reference *read);

/* The character that Windows-1252 has in the place of a C1 control character, 0x80 to 0x9F: "’" for 0x92. */
int32_t draft_windows_1252(int32_t code);

#endif
