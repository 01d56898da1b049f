#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"
#include "models/tokenizer_state.h"

enum { MAX_TEXT = 1 << 20 };

/* --- Normalising ---------------------------------------------------------------------------------------------------
 */

static bool is_space(utf8proc_int32_t code)
{
    utf8proc_category_t category = utf8proc_category(code);
    return (code >= 9 && code <= 13) || code == 0x85 || category == UTF8PROC_CATEGORY_ZS ||
           category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

/* NFC, runs of white space to one space, lower case per code point (Rust's char::to_lowercase: the simple mapping but
 * for U+0130). malloc'd; NULL when memory is out. */
char *draft_tokenizer_normalize(const char *text, size_t length, size_t *out_length)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &composed,
                                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (size < 0)
        return NULL;
    /* A lower-case letter may take one byte more (U+023A: two bytes, U+2C65: three); U+0130 takes three for two. */
    char *out = malloc(2 * (size_t)size + 1);
    size_t used = 0;
    bool in_space = false;
    for (utf8proc_ssize_t at = 0; out != NULL && at < size;) {
        utf8proc_int32_t code;
        at += utf8proc_iterate(composed + at, size - at, &code);
        if (is_space(code)) {
            if (!in_space)
                out[used++] = ' ';
            in_space = true;
            continue;
        }
        in_space = false;
        bool dotted = code == 0x130;
        code = dotted ? 'i' : utf8proc_tolower(code);
        used += (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)out + used);
        if (dotted)
            used += (size_t)utf8proc_encode_char(0x307, (utf8proc_uint8_t *)out + used);
    }
    free(composed);
    if (out != NULL) {
        out[used] = '\0';
        *out_length = used;
    }
    return out;
}

/* --- Splitting into words ------------------------------------------------------------------------------------------
 */

enum kind { SPACE, LETTER, NUMBER, OTHER };

/* The kind of the character at text[0], and its length in bytes. */
static enum kind classify(const char *text, size_t left, size_t *bytes)
{
    utf8proc_int32_t code;
    *bytes = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)left, &code);
    if (is_space(code))
        return SPACE;
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    default:
        return OTHER;
    }
}

static size_t literal(const char *text, size_t left, const char *const *literals)
{
    for (; *literals != NULL; literals++) {
        size_t length = strlen(*literals);
        if (length <= left && memcmp(text, *literals, length) == 0)
            return length;
    }
    return 0;
}

static size_t run_of(const char *text, size_t left, enum kind wanted)
{
    size_t length = 0, bytes;
    while (length < left && classify(text + length, left - length, &bytes) == wanted)
        length += bytes;
    return length;
}

/* The word at text[0], which is no space:
 * <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
 * The first two only bound the words beside them: the byte-level stage splits them again, at letters and the rest. */
static size_t word_at(const char *text, size_t left)
{
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", NULL};
    size_t length = literal(text, left, contractions), bytes;
    if (length > 0)
        return length;
    enum kind first = classify(text, left, &bytes);
    return first == NUMBER ? bytes : run_of(text, left, first);
}

/* --- Tokenizing ----------------------------------------------------------------------------------------------------
 */

struct sink {
    const struct draft_tokenizer *tokenizer;
    int32_t *ids;
    int room, count;  /* count goes on beyond room: it is the full length */
    int32_t *scratch; /* the tokens of a word */
};

static void put(struct sink *sink, int32_t id)
{
    if (sink->count < sink->room)
        sink->ids[sink->count] = id;
    sink->count++;
}

static bool put_word(struct sink *sink, const char *word, size_t length)
{
    size_t count;
    if (!draft_bpe_encode(sink->tokenizer->bpe, word, length, sink->scratch, &count))
        return false;
    for (size_t i = 0; i < count; i++)
        put(sink, sink->scratch[i]);
    return true;
}

/* Normalised text without special tokens. */
static bool put_words(struct sink *sink, const char *text, size_t length)
{
    static const char *const markers[] = {"<|startoftext|>", "<|endoftext|>", NULL};
    for (size_t at = 0; at < length;) {
        size_t bytes, marker = literal(text + at, length - at, markers);
        if (marker > 0) { /* "<|", "startoftext", "|>" */
            if (!put_word(sink, text + at, 2) || !put_word(sink, text + at + 2, marker - 4) ||
                !put_word(sink, text + at + marker - 2, 2))
                return false;
            at += marker;
        } else if (classify(text + at, length - at, &bytes) == SPACE) {
            at += bytes;
        } else {
            size_t word = word_at(text + at, length - at);
            if (!put_word(sink, text + at, word))
                return false;
            at += word;
        }
    }
    return true;
}

/* The longest special token of this kind at text[0], NULL when there is none. */
static const struct special *special_at(const struct draft_tokenizer *tokenizer, const char *text, size_t left,
                                        bool normalized)
{
    const struct special *best = NULL;
    for (int i = 0; i < tokenizer->special_count; i++) {
        const struct special *special = &tokenizer->special[i];
        size_t length = strlen(special->text);
        if (special->normalized == normalized && length <= left && memcmp(text, special->text, length) == 0 &&
            (best == NULL || length > strlen(best->text)))
            best = special;
    }
    return best;
}

static bool put_text(struct sink *sink, const char *text, size_t length, bool normalized);

static bool put_raw(struct sink *sink, const char *text, size_t length)
{
    size_t normal_length;
    char *normal = draft_tokenizer_normalize(text, length, &normal_length);
    bool ok = normal != NULL && put_text(sink, normal, normal_length, true);
    free(normal);
    return ok;
}

/* Cuts text at special tokens: first those written as they are in the raw text, then, in each normalised piece, those
 * that are normalised themselves. */
static bool put_text(struct sink *sink, const char *text, size_t length, bool normalized)
{
    bool (*rest)(struct sink *, const char *, size_t) = normalized ? put_words : put_raw;
    size_t start = 0;
    for (size_t at = 0; at < length;) {
        const struct special *special = special_at(sink->tokenizer, text + at, length - at, normalized);
        if (special == NULL) {
            at++;
            continue;
        }
        if (at > start && !rest(sink, text + start, at - start))
            return false;
        put(sink, special->id);
        at += strlen(special->text);
        start = at;
    }
    return start == length || rest(sink, text + start, length - start);
}

bool draft_tokenize(const struct draft_tokenizer *tokenizer, const char *text, int length, int32_t *ids,
                    int *full_length, struct draft_error *err)
{
    assert(length >= 2);
    size_t bytes = strlen(text), bad;
    if (bytes > MAX_TEXT)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a prompt of %zu bytes is too long, at most %d are read", bytes,
                          MAX_TEXT);
    if (!draft_utf8_valid(text, bytes, &bad))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a prompt is not UTF-8 at byte %zu", bad);
    /* Twice: lower case may be longer. NFC may be three times as long (U+FB2C). */
    struct sink sink = {.tokenizer = tokenizer,
                        .ids = ids + 1,
                        .room = length - 2,
                        .scratch = malloc((8 * bytes + 8) * sizeof *sink.scratch)};
    bool ok = sink.scratch != NULL && put_text(&sink, text, bytes, false);
    free(sink.scratch);
    if (!ok)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading a prompt of %zu bytes", bytes);
    int kept = sink.count < length - 2 ? sink.count : length - 2;
    ids[0] = tokenizer->begin;
    ids[kept + 1] = tokenizer->end;
    for (int i = kept + 2; i < length; i++)
        ids[i] = tokenizer->pad;
    if (full_length != NULL)
        *full_length = sink.count + 2;
    return true;
}

bool draft_tokenizer_pad_with(struct draft_tokenizer *tokenizer, const char *token, struct draft_error *err)
{
    int32_t id = draft_bpe_find(tokenizer->bpe, token);
    if (id < 0)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the vocabulary has no token \"%s\" to pad with", token);
    tokenizer->pad = id;
    return true;
}

int draft_tokenizer_max_length(const struct draft_tokenizer *tokenizer)
{
    return tokenizer->max_length;
}

int draft_tokenizer_vocabulary(const struct draft_tokenizer *tokenizer)
{
    return draft_bpe_size(tokenizer->bpe);
}

int draft_tokenizer_end_token(const struct draft_tokenizer *tokenizer)
{
    return tokenizer->end;
}
