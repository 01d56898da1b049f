#include "models/wordpiece.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/read_file.h"
#include "base/utf8.h"

enum { MAX_FILE = 16 << 20, MAX_TOKENS = 1 << 20, MAX_TEXT = 1 << 20, MAX_WORD = 100 /* characters */ };
enum { UNK, CLS, SEP, MASK, PAD, DEC, ENC, SPECIALS };

static const char *const SPECIAL[SPECIALS] = {"[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[DEC]", "[ENC]"};

struct token {
    const char *text; /* into the file */
    size_t length;
    int32_t id;
};

struct draft_wordpiece {
    char *file;
    struct token *token; /* by text */
    int count;
    int32_t special[SPECIALS]; /* -1: not there */
    int vocabulary;
};

/* --- Opening -------------------------------------------------------------------------------------------------------
 */

static int by_text(const void *a, const void *b)
{
    const struct token *x = a, *y = b;
    size_t shorter = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->text, y->text, shorter);
    return order != 0 ? order : (x->length > y->length) - (x->length < y->length);
}

static int32_t find(const struct draft_wordpiece *w, const char *text, size_t length)
{
    struct token wanted = {text, length, 0};
    const struct token *found = bsearch(&wanted, w->token, (size_t)w->count, sizeof *w->token, by_text);
    return found != NULL ? found->id : -1;
}

static bool split_lines(struct draft_wordpiece *w, size_t size, const char *path, struct draft_error *err)
{
    for (size_t at = 0; at < size; w->count++) {
        const char *line = w->file + at, *end = memchr(line, '\n', size - at);
        size_t length = end != NULL ? (size_t)(end - line) : size - at;
        at += length + (end != NULL);
        if (length > 0 && line[length - 1] == '\r')
            length--;
        if (length == 0)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: line %d is empty, expected a token", path,
                              w->count + 1);
        if (w->count == MAX_TOKENS)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: more than %d lines", path, MAX_TOKENS);
        w->token[w->count] = (struct token){line, length, w->count};
    }
    return true;
}

static bool index_tokens(struct draft_wordpiece *w, const char *path, struct draft_error *err)
{
    qsort(w->token, (size_t)w->count, sizeof *w->token, by_text);
    for (int i = 1; i < w->count; i++) {
        const struct token *a = &w->token[i - 1], *b = &w->token[i];
        if (by_text(a, b) == 0)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: lines %d and %d hold the same token", path,
                              (a->id < b->id ? a->id : b->id) + 1, (a->id < b->id ? b->id : a->id) + 1);
    }
    w->vocabulary = w->count;
    for (int i = 0; i < SPECIALS; i++) {
        w->special[i] = find(w, SPECIAL[i], strlen(SPECIAL[i]));
        if (w->special[i] < 0 && (i == DEC || i == ENC))
            w->special[i] = w->vocabulary++;
        if (w->special[i] < 0 && (i == UNK || i == CLS || i == SEP))
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: no token %s, expected the vocabulary of a BERT", path,
                              SPECIAL[i]);
    }
    return true;
}

static bool load(struct draft_wordpiece *w, const char *path, struct draft_error *err)
{
    size_t size, lines = 1, bad;
    w->file = draft_read_file(path, MAX_FILE, &size, err);
    if (w->file == NULL)
        return false;
    if (!draft_utf8_valid(w->file, size, &bad))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not UTF-8 text at byte %zu", path, bad);
    for (size_t i = 0; i < size; i++)
        lines += w->file[i] == '\n';
    w->token = malloc(lines * sizeof *w->token);
    if (w->token == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
    return split_lines(w, size, path, err) && index_tokens(w, path, err);
}

struct draft_wordpiece *draft_wordpiece_open(const char *path, struct draft_error *err)
{
    struct draft_wordpiece *w = calloc(1, sizeof *w);
    if (w == NULL)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
    else if (load(w, path, err))
        return w;
    draft_wordpiece_close(w);
    return NULL;
}

void draft_wordpiece_close(struct draft_wordpiece *w)
{
    if (w == NULL)
        return;
    free(w->token);
    free(w->file);
    free(w);
}

int draft_wordpiece_vocabulary(const struct draft_wordpiece *w)
{
    return w->vocabulary;
}

/* --- Normalising ---------------------------------------------------------------------------------------------------
 */

static bool is_space(utf8proc_int32_t code)
{
    utf8proc_category_t category = utf8proc_category(code);
    return code == '\t' || code == '\n' || code == '\r' || category == UTF8PROC_CATEGORY_ZS ||
           category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

static bool is_dropped(utf8proc_int32_t code)
{
    utf8proc_category_t category = utf8proc_category(code);
    return code == 0xFFFD || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CS || category == UTF8PROC_CATEGORY_CO;
}

static bool is_chinese(utf8proc_int32_t code)
{
    return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
           (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
           (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
           (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

static bool is_punctuation(utf8proc_int32_t code)
{
    utf8proc_category_t category = utf8proc_category(code);
    bool ascii = (code >= 33 && code <= 47) || (code >= 58 && code <= 64) || (code >= 91 && code <= 96) ||
                 (code >= 123 && code <= 126);
    return ascii || (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO);
}

/* Control characters away, every white space a space, Chinese characters words of their own. `out` has room for three
 * bytes for each of text. */
static size_t clean(const char *text, size_t length, char *out)
{
    size_t used = 0;
    for (size_t at = 0; at < length;) {
        utf8proc_int32_t code;
        at += (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &code);
        bool chinese = is_chinese(code);
        if (is_space(code)) {
            out[used++] = ' ';
            continue;
        }
        if (is_dropped(code))
            continue;
        if (chinese)
            out[used++] = ' ';
        used += (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)out + used);
        if (chinese)
            out[used++] = ' ';
    }
    return used;
}

/* NFD without its non-spacing marks, lower case per code point. malloc'd; NULL when memory is out. */
static char *normalize(const char *text, size_t length, size_t *out_length)
{
    char *cleaned = malloc(3 * length + 1);
    utf8proc_uint8_t *decomposed = NULL;
    utf8proc_ssize_t size = cleaned == NULL ? -1
                                            : utf8proc_map((const utf8proc_uint8_t *)cleaned,
                                                           (utf8proc_ssize_t)clean(text, length, cleaned), &decomposed,
                                                           UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    free(cleaned);
    char *out = size < 0 ? NULL : malloc(2 * (size_t)size + 1); /* lower case may take one byte more */
    size_t used = 0;
    for (utf8proc_ssize_t at = 0; out != NULL && at < size;) {
        utf8proc_int32_t code;
        at += utf8proc_iterate(decomposed + at, size - at, &code);
        if (utf8proc_category(code) != UTF8PROC_CATEGORY_MN)
            used += (size_t)utf8proc_encode_char(utf8proc_tolower(code), (utf8proc_uint8_t *)out + used);
    }
    free(decomposed);
    *out_length = used;
    return out;
}

/* --- Encoding ------------------------------------------------------------------------------------------------------
 */

struct sink {
    const struct draft_wordpiece *wordpiece;
    int32_t *ids;
    int room, count;
};

static void put(struct sink *sink, int32_t id)
{
    if (sink->count < sink->room)
        sink->ids[sink->count++] = id;
}

/* The longest piece that text begins with, and its length in bytes: 0 when there is none. */
static size_t longest(const struct draft_wordpiece *w, const char *text, size_t length, bool first, int32_t *id)
{
    char piece[2 + 4 * MAX_WORD] = "##";
    size_t before = first ? 0 : 2;
    memcpy(piece + before, text, length);
    for (size_t end = length; end > 0; end--) {
        if (end < length && ((unsigned char)text[end] & 0xC0) == 0x80)
            continue; /* inside a character */
        *id = find(w, piece, before + end);
        if (*id >= 0)
            return end;
    }
    return 0;
}

static void put_word(struct sink *sink, const char *word, size_t length)
{
    const struct draft_wordpiece *w = sink->wordpiece;
    int32_t piece[MAX_WORD];
    int count = 0, characters = 0;
    for (size_t i = 0; i < length; i++)
        characters += ((unsigned char)word[i] & 0xC0) != 0x80;
    for (size_t at = 0; characters <= MAX_WORD && at < length;) {
        size_t taken = longest(w, word + at, length - at, at == 0, &piece[count]);
        if (taken == 0)
            characters = MAX_WORD + 1;
        at += taken;
        count++;
    }
    if (characters > MAX_WORD) {
        put(sink, w->special[UNK]);
        return;
    }
    for (int i = 0; i < count; i++)
        put(sink, piece[i]);
}

/* Text without special tokens. */
static bool put_text(struct sink *sink, const char *raw, size_t raw_length)
{
    size_t length, start = 0;
    char *text = normalize(raw, raw_length, &length);
    for (size_t at = 0; text != NULL && at < length && sink->count < sink->room;) {
        utf8proc_int32_t code;
        size_t bytes =
            (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &code);
        bool space = is_space(code), alone = space || is_punctuation(code);
        if (alone && at > start)
            put_word(sink, text + start, at - start);
        if (alone && !space)
            put_word(sink, text + at, bytes);
        at += bytes;
        if (alone)
            start = at;
        else if (at == length)
            put_word(sink, text + start, at - start);
    }
    free(text);
    return text != NULL;
}

static int special_at(const struct draft_wordpiece *w, const char *text)
{
    for (int i = 0; i < SPECIALS; i++)
        if (w->special[i] >= 0 && strncmp(text, SPECIAL[i], strlen(SPECIAL[i])) == 0)
            return i;
    return -1;
}

bool draft_wordpiece_encode(const struct draft_wordpiece *w, const char *text, int length, int32_t *ids, int *count,
                            struct draft_error *err)
{
    assert(length >= 2);
    size_t bytes = strlen(text), bad, start = 0;
    if (bytes > MAX_TEXT)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a prompt of %zu bytes is too long, at most %d are read", bytes,
                          MAX_TEXT);
    if (!draft_utf8_valid(text, bytes, &bad))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a prompt is not UTF-8 at byte %zu", bad);
    struct sink sink = {.wordpiece = w, .ids = ids + 1, .room = length - 2};
    bool ok = true;
    for (size_t at = 0; ok && at < bytes && sink.count < sink.room;) {
        int special = special_at(w, text + at);
        if (special < 0) {
            at++;
            continue;
        }
        ok = at == start || put_text(&sink, text + start, at - start);
        put(&sink, w->special[special]);
        at += strlen(SPECIAL[special]);
        start = at;
    }
    ok = ok && (start >= bytes || put_text(&sink, text + start, bytes - start));
    if (!ok)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading a prompt of %zu bytes", bytes);
    ids[0] = w->special[CLS];
    ids[sink.count + 1] = w->special[SEP];
    *count = sink.count + 2;
    return true;
}
