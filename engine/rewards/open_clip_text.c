#include "rewards/open_clip_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

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

char *draft_open_clip_text(const char *prompt)
{
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)prompt;
    size_t left = strlen(prompt), used = 0;
    char *out = malloc(2 * left + 1); /* two bytes become three at most */
    while (out != NULL && left > 0) {
        utf8proc_int32_t code;
        utf8proc_uint8_t *wide = NULL;
        utf8proc_ssize_t bytes = utf8proc_iterate(in, (utf8proc_ssize_t)left, &code);
        bool sound = bytes > 0;
        bytes = sound ? bytes : 1;
        const char *text = sound ? replacement(code, in, bytes, &wide) : NULL;
        if (text != NULL) {
            memcpy(out + used, text, strlen(text));
            used += strlen(text);
        } else if (!sound || !dropped(code)) {
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
