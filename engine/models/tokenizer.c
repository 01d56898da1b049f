#include "models/tokenizer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utf8proc.h>

#include "base/json.h"
#include "base/utf8.h"
#include "models/bpe.h"

enum { MAX_SPECIAL = 16, DEFAULT_LENGTH = 77, MAX_LENGTH = 8192, MAX_TEXT = 1 << 20 };

/* A token that is found in text as it stands there, before any word is split. */
struct special {
    char *text; /* as searched for: normalised itself when `normalized` */
    int32_t id;
    bool normalized; /* searched for after normalisation of the text, else in the text as it is written */
    bool changed;    /* while opening: two opinions about `normalized` were seen */
};

struct draft_tokenizer {
    struct draft_bpe *bpe;
    int max_length;
    int32_t begin, end, pad;
    struct special special[MAX_SPECIAL];
    int special_count;
};

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
static char *normalize(const char *text, size_t length, size_t *out_length)
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
    char *normal = normalize(text, length, &normal_length);
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

/* --- Opening -------------------------------------------------------------------------------------------------------
 */

/* One special token as the json files tell it. */
struct named {
    const char *key;
    const char *text; /* lives as long as its file */
    bool normalized;
};

/* "bos_token": "<s>"  or  "bos_token": {"content": "<s>", "normalized": true, ...}. Absent: nothing changes. */
static bool read_named(struct draft_json *json, struct named *named, struct draft_error *err)
{
    struct draft_error not_object = {0};
    struct draft_json *child = draft_json_child(json, named->key, &not_object);
    if (child != NULL) {
        static const char *const inert[] = {"__type", "lstrip", "rstrip", "special",
                                            NULL}; /* spaces end words anyway */
        draft_json_ignore(child, inert);
        return draft_json_string(child, "content", NULL, &named->text, err) &&
               draft_json_bool(child, "normalized", false, &named->normalized, err) &&
               draft_json_require(child, "single_word", "false", err) && draft_json_finish(child, err);
    }
    if (not_object.code == DRAFT_OK)
        return true;
    named->normalized = false;
    return draft_json_string(json, named->key, NULL, &named->text, err);
}

/* Of two opinions about one token (eos_token and pad_token are often the same) transformers keeps the later one. */
static bool add_special(struct draft_tokenizer *tokenizer, const char *folder, const char *key, const char *text,
                        bool normalized, int32_t *id, struct draft_error *err)
{
    *id = draft_bpe_find(tokenizer->bpe, text);
    if (*id < 0 || text[0] == '\0')
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: the %s is not in vocab.json, expected one that is", folder,
                          key);
    struct special *special = NULL;
    for (int i = 0; i < tokenizer->special_count; i++)
        if (tokenizer->special[i].id == *id)
            special = &tokenizer->special[i];
    if (special != NULL && special->normalized != normalized && !special->changed) {
        special->changed = true;
        special->normalized = normalized;
    }
    if (special != NULL)
        return true;
    if (tokenizer->special_count == MAX_SPECIAL)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s names more than %d special tokens", folder, MAX_SPECIAL);
    special = &tokenizer->special[tokenizer->special_count];
    special->text = strdup(text);
    special->id = *id;
    special->normalized = normalized;
    if (special->text == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", folder);
    tokenizer->special_count++;
    return true;
}

/* tokenizer_config.json's added_tokens_decoder: {"49407": {"content": "<|endoftext|>", "normalized": true, ...}}. It
 * repeats the special tokens with their flags; anything more would be a token this tokenizer does not know. */
static bool read_decoder(const struct draft_tokenizer *tokenizer, struct draft_json *decoder, struct named *named,
                         int count, const char *folder, struct draft_error *err)
{
    bool used[MAX_SPECIAL] = {false};
    int matched = 0;
    for (int i = 0; i < count; i++) {
        if (named[i].text == NULL)
            continue;
        char id[16];
        snprintf(id, sizeof id, "%d", (int)draft_bpe_find(tokenizer->bpe, named[i].text));
        struct named entry = {.key = id, .text = NULL};
        if (!read_named(decoder, &entry, err))
            return false;
        if (entry.text == NULL)
            continue;
        if (strcmp(entry.text, named[i].text) != 0)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "%s/tokenizer_config.json: added_tokens_decoder names another token for the id %s than "
                              "vocab.json",
                              folder, id);
        named[i].normalized = entry.normalized;
        bool repeated = false;
        for (int j = 0; j < i; j++)
            repeated = repeated || (used[j] && strcmp(named[j].text, named[i].text) == 0);
        used[i] = true;
        matched += !repeated;
    }
    if (matched != draft_json_size(decoder))
        return draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "%s/tokenizer_config.json: added_tokens_decoder holds %d tokens, %d are special tokens of this "
            "tokenizer; others are not supported",
            folder, draft_json_size(decoder), matched);
    return true;
}

static bool check_config(struct draft_json *config, struct draft_error *err)
{
    const char *kind;
    if (!draft_json_string(config, "tokenizer_class", "CLIPTokenizer", &kind, err))
        return false;
    if (strcmp(kind, "CLIPTokenizer") != 0 && strcmp(kind, "CLIPTokenizerFast") != 0)
        return draft_json_require(config, "tokenizer_class", "\"CLIPTokenizer\"", err);
    return draft_json_require(config, "padding_side", "\"right\"", err) &&
           draft_json_require(config, "truncation_side", "\"right\"", err) &&
           draft_json_require(config, "split_special_tokens", "false", err) &&
           draft_json_require(config, "add_bos_token", "true", err) &&
           draft_json_require(config, "add_eos_token", "true", err);
}

static bool read_max_length(struct draft_tokenizer *tokenizer, struct draft_json *config, const char *folder,
                            struct draft_error *err)
{
    double length = DEFAULT_LENGTH;
    if (config != NULL && !draft_json_double(config, "model_max_length", DEFAULT_LENGTH, &length, err))
        return false;
    if (length > 1e20) /* transformers' way to say that there is no limit */
        length = DEFAULT_LENGTH;
    if (length < 2 || length > MAX_LENGTH || length != (double)(int)length)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s/tokenizer_config.json: \"model_max_length\" is %g, expected an integer from 2 to %d",
                          folder, length, MAX_LENGTH);
    tokenizer->max_length = (int)length;
    return true;
}

/* The order is transformers': the first that names a token decides how it is searched for. */
enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, NAMED };

static bool read_special(struct draft_tokenizer *tokenizer, struct draft_json *config, struct draft_json *map,
                         const char *folder, struct draft_error *err)
{
    struct named named[NAMED] = {
        {"bos_token", "<|startoftext|>", false},
        {"eos_token", "<|endoftext|>", false},
        {"unk_token", "<|endoftext|>", false},
        {"sep_token", NULL, false},
        {"pad_token", "<|endoftext|>", false},
        {"cls_token", NULL, false},
        {"mask_token", NULL, false},
    };
    struct draft_json *decoder = NULL;
    struct draft_error why = {0};
    if (config != NULL)
        decoder = draft_json_child(config, "added_tokens_decoder", &why);
    if (why.code != DRAFT_OK)
        return draft_fail(err, why.code, "%s", why.message);
    for (int i = 0; i < NAMED; i++) {
        if (config != NULL && !read_named(config, &named[i], err))
            return false;
        /* special_tokens_map.json has the last word, unless the newer added_tokens_decoder is there */
        if (map != NULL && decoder == NULL && !read_named(map, &named[i], err))
            return false;
    }
    if (decoder != NULL && !read_decoder(tokenizer, decoder, named, NAMED, folder, err))
        return false;
    int32_t ids[NAMED] = {0};
    for (int i = 0; i < NAMED; i++)
        if (named[i].text != NULL &&
            !add_special(tokenizer, folder, named[i].key, named[i].text, named[i].normalized, &ids[i], err))
            return false;
    const char *more[MAX_SPECIAL];
    int count = 0;
    struct draft_json *list =
        map != NULL && decoder == NULL && draft_json_has(map, "additional_special_tokens") ? map : config;
    if (list != NULL && !draft_json_strings(list, "additional_special_tokens", more, MAX_SPECIAL, &count, err))
        return false;
    for (int i = 0; i < count; i++) {
        int32_t id;
        if (!add_special(tokenizer, folder, "additional_special_tokens' token", more[i], false, &id, err))
            return false;
    }
    for (int i = 0; i < tokenizer->special_count; i++) {
        struct special *special = &tokenizer->special[i];
        size_t length;
        char *normal = special->normalized ? normalize(special->text, strlen(special->text), &length) : special->text;
        if (normal == NULL)
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", folder);
        if (normal != special->text)
            free(special->text);
        special->text = normal;
    }
    tokenizer->begin = ids[BOS];
    tokenizer->end = ids[EOS];
    tokenizer->pad = ids[PAD];
    draft_bpe_set_unknown(tokenizer->bpe, ids[UNK]);
    return true;
}

static char *join(const char *folder, const char *name, struct draft_error *err)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) >= 0)
        return path;
    draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", folder);
    return NULL;
}

/* A json file that may be missing: *json NULL then. */
static bool open_optional(const char *folder, const char *name, struct draft_json **json, struct draft_error *err)
{
    char *path = join(folder, name, err);
    *json = NULL;
    if (path == NULL)
        return false;
    bool there = access(path, F_OK) == 0;
    *json = there ? draft_json_open(path, err) : NULL;
    free(path);
    return !there || *json != NULL;
}

static bool open_bpe(struct draft_tokenizer *tokenizer, const char *folder, struct draft_error *err)
{
    char *vocab = join(folder, "vocab.json", err), *merges = join(folder, "merges.txt", err);
    if (vocab != NULL && merges != NULL && (access(vocab, F_OK) != 0 || access(merges, F_OK) != 0))
        draft_fail(err, DRAFT_NOT_FOUND,
                   "%s is no CLIP tokenizer's folder: it needs vocab.json and merges.txt (tokenizer.json is not read)",
                   folder);
    else if (vocab != NULL && merges != NULL)
        tokenizer->bpe = draft_bpe_open(vocab, merges, err);
    free(vocab);
    free(merges);
    return tokenizer->bpe != NULL;
}

/* Tokens beyond vocab.json (textual inversions) would need their embeddings too. */
static bool refuse_added_tokens(const struct draft_tokenizer *tokenizer, const char *folder, struct draft_error *err);

struct added_visit {
    const struct draft_tokenizer *tokenizer;
    const char *folder;
    struct draft_error *err;
};

static bool visit_added(void *context, const char *key, size_t length, int64_t id)
{
    struct added_visit *visit = context;
    (void)length;
    for (int i = 0; i < visit->tokenizer->special_count; i++)
        if (visit->tokenizer->special[i].id == id && draft_bpe_find(visit->tokenizer->bpe, key) == id)
            return true;
    return draft_fail(visit->err, DRAFT_INVALID_ARGUMENT,
                      "%s/added_tokens.json adds a token that is no special token of vocab.json; such tokens are not "
                      "supported",
                      visit->folder);
}

static bool refuse_added_tokens(const struct draft_tokenizer *tokenizer, const char *folder, struct draft_error *err)
{
    struct draft_json *added;
    if (!open_optional(folder, "added_tokens.json", &added, err))
        return false;
    struct added_visit visit = {tokenizer, folder, err};
    bool ok = added == NULL || draft_json_each(added, &visit, visit_added, 0, INT32_MAX, err);
    draft_json_close(added);
    return ok;
}

struct draft_tokenizer *draft_tokenizer_open(const char *folder, struct draft_error *err)
{
    struct draft_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", folder);
        return NULL;
    }
    struct draft_json *config = NULL, *map = NULL;
    bool ok = open_bpe(tokenizer, folder, err) && open_optional(folder, "tokenizer_config.json", &config, err) &&
              open_optional(folder, "special_tokens_map.json", &map, err) &&
              (config == NULL || check_config(config, err)) && read_max_length(tokenizer, config, folder, err) &&
              read_special(tokenizer, config, map, folder, err) && refuse_added_tokens(tokenizer, folder, err);
    draft_json_close(config);
    draft_json_close(map);
    if (ok)
        return tokenizer;
    draft_tokenizer_close(tokenizer);
    return NULL;
}

void draft_tokenizer_close(struct draft_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    for (int i = 0; i < tokenizer->special_count; i++)
        free(tokenizer->special[i].text);
    draft_bpe_close(tokenizer->bpe);
    free(tokenizer);
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
