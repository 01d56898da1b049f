#include "rewards/open_clip_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"
#include "rewards/html_entities.h"

/* ftfy.chardata.LIGATURES */
static const struct {
    utf8proc_int32_t code;
    const char *text;
} ligatures[] = {
    {0x132, "IJ"},   {0x133, "ij"},   {0x149, "'n"},  {0x1F1, "DZ"},  {0x1F2, "Dz"},  {0x1F3, "dz"},
    {0x1C4, "DŽ"},   {0x1C5, "Dž"},   {0x1C6, "dž"},  {0x1C7, "LJ"},  {0x1C8, "Lj"},  {0x1C9, "lj"},
    {0x1CA, "NJ"},   {0x1CB, "Nj"},   {0x1CC, "nj"},  {0xFB00, "ff"}, {0xFB01, "fi"}, {0xFB02, "fl"},
    {0xFB03, "ffi"}, {0xFB04, "ffl"}, {0xFB05, "ſt"}, {0xFB06, "st"},
};

static bool dropped(utf8proc_int32_t code)
{
    return code < 9 || code == 0xB || (code >= 0xE && code < 0x20) || code == 0x7F ||
           (code >= 0x206A && code <= 0x206F) || code == 0xFEFF || (code >= 0xFFF9 && code <= 0xFFFC);
}

/* What stands for a character; NULL: itself. `buffer` has room for its NFKC. */
static const char *replacement(utf8proc_int32_t code, const utf8proc_uint8_t *at, utf8proc_ssize_t bytes,
                               utf8proc_uint8_t **buffer)
{
    if (code == 0x2BC || (code >= 0x2018 && code <= 0x201B))
        return "'";
    if (code >= 0x201C && code <= 0x201F)
        return "\"";
    if (code == 0x3000)
        return " ";
    for (size_t i = 0; i < sizeof ligatures / sizeof *ligatures; i++)
        if (code == ligatures[i].code)
            return ligatures[i].text;
    if (code < 0xFF01 || code > 0xFFEF)
        return NULL;
    utf8proc_ssize_t size = utf8proc_map(at, bytes, buffer, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    return size > 0 ? (const char *)*buffer : NULL;
}

/* Character by character. `in` is valid UTF-8; malloc'd. */
static char *mend_characters(const char *in)
{
    size_t left = strlen(in), used = 0;
    char *out = malloc(2 * left + 1); /* two bytes become three at most */
    while (out != NULL && left > 0) {
        utf8proc_int32_t code;
        utf8proc_uint8_t *wide = NULL;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)in, (utf8proc_ssize_t)left, &code);
        char c1[8] = "";
        const char *text = c1;
        if (code >= 0x80 && code <= 0x9F)
            utf8proc_encode_char(draft_windows_1252(code), (utf8proc_uint8_t *)c1);
        else
            text = replacement(code, (const utf8proc_uint8_t *)in, bytes, &wide);
        if (text != NULL) {
            memcpy(out + used, text, strlen(text));
            used += strlen(text);
        } else if (!dropped(code)) {
            memcpy(out + used, in, (size_t)bytes);
            used += (size_t)bytes;
        }
        free(wide);
        in += bytes;
        left -= (size_t)bytes;
    }
    if (out != NULL)
        out[used] = '\0';
    return out;
}

/* The next stage's text in the place of this one's; NULL when either is. */
static char *then(char *before, char *after)
{
    free(before);
    return after;
}

/* ftfy's stages over and over, until nothing changes: "&amp;rsquo;" is "&rsquo;", then "’", then "'". Takes `text`. */
static char *mend(char *text, bool references)
{
    for (bool changed = true; changed && text != NULL;) {
        char *next = references ? draft_html_unescape(text, draft_html_reference_closed) : strdup(text);
        if (next != NULL)
            next = then(next, mend_characters(next));
        if (next != NULL)
            next = then(next, (char *)utf8proc_NFC((const utf8proc_uint8_t *)next));
        changed = next != NULL && strcmp(next, text) != 0;
        text = then(text, next);
    }
    return text;
}

/* ftfy looks at lines, and leaves references alone from the first line on that has a '<' and so may be HTML. */
static char *mend_lines(const char *prompt)
{
    const char *tag = strchr(prompt, '<'), *line = tag != NULL ? tag : prompt + strlen(prompt);
    while (tag != NULL && line > prompt && line[-1] != '\n')
        line--;
    char *head = mend(strndup(prompt, (size_t)(line - prompt)), true), *tail = mend(strdup(line), false), *out = NULL;
    if (head == NULL || tail == NULL || asprintf(&out, "%s%s", head, tail) < 0)
        out = NULL;
    free(head);
    free(tail);
    return out;
}

char *draft_open_clip_text(const char *prompt)
{
    if (!draft_utf8_valid(prompt, strlen(prompt), NULL))
        return strdup(prompt);
    char *text = mend_lines(prompt);
    for (int twice = 0; twice < 2 && text != NULL; twice++)
        text = then(text, draft_html_unescape(text, draft_html_reference_any));
    return text;
}
