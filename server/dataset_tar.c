/*
 * WebDataset shards. The archive is hostile: only tar (no other format, no filter that runs a program), a bounded
 * number of members, a bounded size once unpacked, nothing ever written to disk.
 */
#include <archive.h>
#include <archive_entry.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "dataset.h"
#include "message.h"

enum { MEMBERS = 4000000, MEMBER_BYTES = 1 << 20, NAME_BYTES = 1024 };
static const int64_t UNPACKED_BYTES = (int64_t)16 << 30; /* pictures are passed over, but must be unpacked for it */

static bool ends_with(const char *text, const char *ending)
{
    size_t length = strlen(text), tail = strlen(ending);
    return length > tail && strcasecmp(text + length - tail, ending) == 0;
}

bool draftd_dataset_is_tar(const char *path)
{
    static const char *const endings[] = {".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        if (ends_with(path, endings[i]))
            return true;
    return false;
}

struct shard {
    struct archive *archive;
    struct draftd_dataset *dataset;
    struct draft_error *err;
    char key[NAME_BYTES]; /* of the sample being collected */
    char *prompt;         /* its text so far, malloc'd; NULL: none */
    char member[96];      /* where that came from, cleaned, for sentences */
    size_t length;
    bool from_text;
};

static bool broken(struct shard *s)
{
    char words[160];
    const char *why = archive_error_string(s->archive);
    draftd_clean_text(words, sizeof words, why ? why : "unreadable");
    return draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "the archive is damaged or no tar: %s", words);
}

/* The sample is complete. Line breaks inside a caption become spaces. */
static bool finish_sample(struct shard *s)
{
    if (s->prompt == NULL)
        return true;
    while (s->length > 0 && strchr("\r\n", s->prompt[s->length - 1]) && s->prompt[s->length - 1])
        s->length--;
    for (size_t i = 0; i < s->length; i++)
        if (s->prompt[i] == '\n' || s->prompt[i] == '\r' || s->prompt[i] == '\t')
            s->prompt[i] = ' ';
    bool full = s->dataset->count == DRAFTD_DATASET_PROMPTS;
    bool ok = draftd_dataset_add(s->dataset, s->prompt, s->length, s->err);
    if (!ok && !full)
        draft_error_prefix(s->err, "member %s: ", s->member);
    if (ok && s->dataset->bytes > DRAFTD_DATASET_BYTES)
        ok = draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "the prompts have more than %d bytes; split the dataset",
                        DRAFTD_DATASET_BYTES);
    free(s->prompt);
    s->prompt = NULL;
    return ok;
}

/* The member's content, malloc'd. */
static bool read_member(struct shard *s, const char *shown, char **text, size_t *length)
{
    size_t n = 0;
    *text = malloc(MEMBER_BYTES + 1);
    if (*text == NULL)
        return draft_fail(s->err, DRAFT_OUT_OF_MEMORY, "no memory for the dataset");
    while (n <= MEMBER_BYTES) {
        la_ssize_t got = archive_read_data(s->archive, *text + n, MEMBER_BYTES + 1 - n);
        if (got == 0)
            break;
        if (got < 0) {
            free(*text);
            return broken(s);
        }
        n += (size_t)got;
    }
    *length = n;
    if (n <= MEMBER_BYTES)
        return true;
    free(*text);
    return draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "member %s has more than %d bytes, which no prompt has", shown,
                      MEMBER_BYTES);
}

/* Puts a JSON member's caption in place of its text. */
static bool take_caption(struct shard *s, char **text, size_t *length)
{
    static const char *const keys[] = {"prompt", "text", "caption"};
    json_error_t why;
    json_t *value = json_loadb(*text, *length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    const json_t *caption = json_is_string(value) ? value : NULL;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !json_is_string(caption); i++)
        caption = json_object_get(value, keys[i]);
    free(*text);
    *text = NULL;
    bool ok = true;
    if (value == NULL) {
        char words[160];
        draftd_clean_text(words, sizeof words, why.text);
        ok = draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "member %s: no JSON: %s", s->member, words);
    } else if (!json_is_string(caption)) {
        ok = draft_fail(s->err, DRAFT_INVALID_ARGUMENT,
                        "member %s: neither a string nor an object with a string \"prompt\", \"text\" or \"caption\"",
                        s->member);
    } else {
        *length = json_string_length(caption);
        *text = malloc(*length + 1);
        if (*text != NULL)
            memcpy(*text, json_string_value(caption), *length);
        ok = *text != NULL || draft_fail(s->err, DRAFT_OUT_OF_MEMORY, "no memory for the dataset");
    }
    json_decref(value);
    return ok;
}

static bool take_member(struct shard *s, const char *name)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name, *dot = strchr(base, '.');
    if (dot == NULL || dot == base || strlen(name) >= NAME_BYTES)
        return true; /* hidden, or of no sample */
    size_t key = (size_t)(dot - name);
    if (strncmp(s->key, name, key) != 0 || s->key[key] != '\0') {
        if (!finish_sample(s))
            return false;
        memcpy(s->key, name, key);
        s->key[key] = '\0';
    }
    bool text = strcasecmp(dot, ".txt") == 0, json = strcasecmp(dot, ".json") == 0;
    if ((!text && !json) || (json && s->prompt != NULL) || (text && s->prompt != NULL && s->from_text))
        return true;
    char *content;
    size_t length = 0;
    draftd_clean_text(s->member, sizeof s->member, name);
    if (!read_member(s, s->member, &content, &length) || (json && !take_caption(s, &content, &length)))
        return false;
    free(s->prompt);
    s->prompt = content;
    s->length = length;
    s->from_text = text;
    return true;
}

static bool read_members(struct shard *s)
{
    for (int count = 0;; count++) {
        struct archive_entry *entry;
        int got = archive_read_next_header(s->archive, &entry);
        if (got == ARCHIVE_EOF)
            return finish_sample(s);
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return broken(s);
        if (count == MEMBERS)
            return draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "more than %d members; split the archive", MEMBERS);
        if (archive_filter_bytes(s->archive, 0) > UNPACKED_BYTES)
            return draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "more than %lld bytes once unpacked; split the archive",
                              (long long)UNPACKED_BYTES);
        if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL)
            continue;
        if (archive_entry_size(entry) > UNPACKED_BYTES)
            return draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "a member says that it has %lld bytes; is it damaged",
                              (long long)archive_entry_size(entry));
        const char *name = archive_entry_pathname(entry);
        if (name == NULL)
            name = archive_entry_pathname_utf8(entry);
        if (name == NULL)
            return draft_fail(s->err, DRAFT_INVALID_ARGUMENT, "member %d has a name that cannot be read", count + 1);
        if (!take_member(s, name))
            return false;
    }
}

static bool read_open(int fd, struct draftd_dataset *dataset, struct draft_error *err)
{
    struct shard s = {.archive = archive_read_new(), .dataset = dataset, .err = err};
    if (s.archive == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the dataset");
    archive_read_support_format_tar(s.archive);
    archive_read_support_filter_gzip(s.archive);
    archive_read_support_filter_bzip2(s.archive);
    archive_read_support_filter_xz(s.archive);
    archive_read_support_filter_zstd(s.archive);
    bool ok = archive_read_open_fd(s.archive, fd, 1 << 16) == ARCHIVE_OK ? read_members(&s) : broken(&s);
    free(s.prompt);
    archive_read_free(s.archive);
    return ok;
}

bool draftd_dataset_read_tar(const char *path, struct draftd_dataset *dataset, struct draft_error *err)
{
    int64_t bytes;
    int fd = draftd_dataset_open(path, &bytes, err);
    if (fd < 0)
        return false;
    bool ok = read_open(fd, dataset, err);
    close(fd);
    if (ok && dataset->count == 0)
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT, "no sample in it has a .txt or .json member");
    return ok;
}
