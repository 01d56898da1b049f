#include "rewards/html_entities.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

static const struct entity {
    const char *name;
    bool open; /* needs no semicolon */
    const char *text;
} entities[] = {
#define HTML(name, open, text) {#name, open, text},
#include "rewards/html_entities.def"
#undef HTML
};

enum {
    LONGEST_NAME = 31,
    LONGEST_OPEN_NAME = 6,
    LONGEST_CLOSED = 24, /* ftfy's limit */
};

static const struct entity *find(const char *name, size_t length)
{
    size_t low = 0, high = sizeof entities / sizeof *entities;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strncmp(entities[middle].name, name, length);
        if (order == 0 && entities[middle].name[length] == '\0')
            return &entities[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* The longest name that needs no semicolon and starts `name`. */
static const struct entity *find_open(const char *name, size_t length)
{
    for (size_t n = length < LONGEST_OPEN_NAME ? length : LONGEST_OPEN_NAME; n >= 2; n--) {
        const struct entity *entity = find(name, n);
        if (entity != NULL && entity->open)
            return entity;
    }
    return NULL;
}

static size_t alphanumerics(const char *at, size_t most)
{
    size_t n = 0;
    while (n < most && isascii((unsigned char)at[n]) && isalnum((unsigned char)at[n]))
        n++;
    return n;
}

static void write_code(int32_t code, char *text)
{
    text[utf8proc_encode_char(code, (utf8proc_uint8_t *)text)] = '\0';
}

int32_t draft_windows_1252(int32_t code)
{
    static const uint16_t of[32] = {
        0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
        0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
    };
    return of[code - 0x80];
}

/* Not one of Unicode's, but the standard knows what to do: C1 means Windows-1252, other controls mean nothing. */
static void write_number(uint32_t number, char *text)
{
    bool control = number < 0x20 ? number != 0 && !strchr("\t\n\f\r", (int)number) : number == 0x7F;
    if (number >= 0x80 && number <= 0x9F)
        write_code(draft_windows_1252((int32_t)number), text);
    else if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF)
        write_code(0xFFFD, text);
    else if (control || (number >= 0xFDD0 && number <= 0xFDEF) || (number & 0xFFFE) == 0xFFFE)
        *text = '\0';
    else
        write_code((int32_t)number, text);
}

/* "&#233;", "&#xE9": the semicolon may be missing */
static size_t read_number(const char *at, char *text)
{
    bool hex = at[2] == 'x' || at[2] == 'X';
    const char *digits = at + 2 + hex;
    size_t n = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
    if (n == 0)
        return 0;
    uint32_t number = 0;
    for (size_t i = 0; i < n && number <= 0x10FFFF; i++) /* not strtoul, which would read "0x41" after "&#x" */
        number = number * (hex ? 16 : 10) +
                 (uint32_t)(isdigit((unsigned char)digits[i]) ? digits[i] - '0' : (digits[i] | 32) - 'a' + 10);
    write_number(number, text);
    digits += n + (digits[n] == ';');
    return (size_t)(digits - at);
}

size_t draft_html_reference_any(const char *at, char *text)
{
    if (at[1] == '#')
        return read_number(at, text);
    size_t n = alphanumerics(at + 1, LONGEST_NAME);
    bool closed = at[1 + n] == ';';
    const struct entity *entity = closed ? find(at + 1, n) : NULL;
    if (entity == NULL) {
        entity = find_open(at + 1, n);
        closed = false;
    }
    if (entity == NULL)
        return 0;
    strcpy(text, entity->text);
    return 1 + strlen(entity->name) + closed;
}

/* Python's str.upper() of what an entity stands for */
static void write_upper(const char *in, char *text)
{
    static const char *const several[][2] = {{"ﬃ", "FFI"}, {"ﬀ", "FF"}, {"ﬄ", "FFL"}, {"ﬁ", "FI"},
                                             {"ﬂ", "FL"},  {"ŉ", "ʼN"}, {"ß", "SS"}};
    for (size_t i = 0; i < sizeof several / sizeof *several; i++)
        if (strcmp(in, several[i][0]) == 0) {
            strcpy(text, several[i][1]);
            return;
        }
    utf8proc_int32_t code;
    for (; *in != '\0'; text += strlen(text)) {
        in += utf8proc_iterate((const utf8proc_uint8_t *)in, -1, &code);
        write_code(utf8proc_toupper(code), text);
    }
}

/* A small name in capitals, "&EACUTE;", but not "&GTDOT;", which html.unescape would read as ">DOT;". */
static bool read_capitals(const char *at, size_t n, char *text)
{
    char small[LONGEST_CLOSED];
    for (size_t i = 0; i < n; i++) {
        if (islower((unsigned char)at[1 + i]))
            return false;
        small[i] = (char)tolower((unsigned char)at[1 + i]);
    }
    const struct entity *entity = find_open(at + 1, n) == NULL ? find(small, n) : NULL;
    if (entity != NULL)
        write_upper(entity->text, text);
    return entity != NULL;
}

size_t draft_html_reference_closed(const char *at, char *text)
{
    bool number = at[1] == '#';
    size_t n = alphanumerics(at + 1 + number, LONGEST_CLOSED);
    if (n == 0 || at[1 + number + n] != ';')
        return 0;
    size_t length = 1 + number + n + 1;
    if (number) /* what goes on after the digits, or is a semicolon, is left alone */
        return read_number(at, text) == length && strcmp(text, ";") != 0 ? length : 0;
    const struct entity *entity = find(at + 1, n);
    if (entity != NULL)
        strcpy(text, entity->text);
    return entity != NULL || read_capitals(at, n, text) ? length : 0;
}

char *draft_html_unescape(const char *text, draft_html_reference *read)
{
    char *out = malloc(2 * strlen(text) + 1), *to = out; /* "&nLt;" grows most: six bytes for five */
    if (out == NULL)
        return NULL;
    while (*text != '\0') {
        size_t n = *text == '&' ? read(text, to) : 0;
        if (n > 0) {
            text += n;
            to += strlen(to);
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
    return out;
}
