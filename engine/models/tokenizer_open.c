/* A tokenizer's folder: vocabulary, special tokens, and what would change the ids and is not understood, refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "models/tokenizer_state.h"

enum { DEFAULT_LENGTH = 77, MAX_LENGTH = 8192 };

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
        char *normal = special->normalized ? draft_tokenizer_normalize(special->text, strlen(special->text), &length)
                                           : special->text;
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
