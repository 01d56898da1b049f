#include "dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/utf8.h"
#include "message.h"

bool draftd_prompt_check(const char *prompt, size_t length, struct draft_error *err)
{
    size_t bad;
    if (memchr(prompt, '\0', length))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a NUL byte stands in the prompt; is this a text file");
    if (!draft_utf8_valid(prompt, length, &bad))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "byte %zu of the prompt is not UTF-8; save the text as UTF-8",
                          bad + 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)prompt[i] < 0x20 || prompt[i] == 0x7f)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "the prompt has the control character 0x%02x at byte %zu; remove it",
                              (unsigned char)prompt[i], i + 1);
    if (strspn(prompt, " ") >= length)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the prompt is empty");
    if (length > DRAFTD_PROMPT_BYTES)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the prompt is %zu bytes long, at most %d are allowed", length,
                          DRAFTD_PROMPT_BYTES);
    return true;
}

void draftd_dataset_free(struct draftd_dataset *dataset)
{
    for (size_t i = 0; i < dataset->count; i++)
        free(dataset->prompts[i]);
    free(dataset->prompts);
    *dataset = (struct draftd_dataset){0};
}

bool draftd_dataset_add(struct draftd_dataset *dataset, const char *text, size_t length, struct draft_error *err)
{
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    while (length > 0 && (*text == ' ' || *text == '\t'))
        text++, length--;
    char *prompt = length <= DRAFTD_DATASET_BYTES ? malloc(length + 1) : NULL;
    if (prompt == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the dataset");
    memcpy(prompt, text, length);
    prompt[length] = '\0';
    bool ok = draftd_prompt_check(prompt, length, err);
    if (ok && dataset->count == DRAFTD_DATASET_PROMPTS)
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT, "more than %d prompts; split the dataset", DRAFTD_DATASET_PROMPTS);
    if (!ok) {
        free(prompt);
        return false;
    }
    draftd_message_append(&dataset->prompts, &dataset->count, prompt);
    dataset->bytes += length;
    return true;
}

/* `line` is where the prompt begins, for the sentence. */
static bool add(struct draftd_dataset *dataset, const char *text, size_t length, size_t line, struct draft_error *err)
{
    bool full = dataset->count == DRAFTD_DATASET_PROMPTS; /* is of the whole file, not of a line */
    bool ok = draftd_dataset_add(dataset, text, length, err);
    if (!ok && !full)
        draft_error_prefix(err, "line %zu: ", line);
    return ok;
}

/* The end of the line that begins at p, without its CR; *next is where the next one begins. */
static const char *line_end(const char *p, const char *end, const char **next)
{
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    const char *stop = newline ? newline : end;
    *next = newline ? newline + 1 : end;
    return stop > p && stop[-1] == '\r' ? stop - 1 : stop;
}

static bool is_blank(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    return p == end;
}

static bool read_text(struct draftd_dataset *dataset, const char *p, const char *end, struct draft_error *err)
{
    size_t line = 1;
    for (const char *next; p < end; p = next, line++) {
        const char *stop = line_end(p, end, &next);
        if (!is_blank(p, stop) && !add(dataset, p, (size_t)(stop - p), line, err))
            return false;
    }
    return true;
}

/* The prompt of one line of JSON, borrowed from `value`. */
static const json_t *prompt_of(const json_t *value)
{
    if (json_is_string(value))
        return value;
    const json_t *prompt = json_object_get(value, "prompt");
    if (prompt == NULL)
        prompt = json_object_get(value, "text");
    return json_is_string(prompt) ? prompt : NULL;
}

static bool add_json(struct draftd_dataset *dataset, const char *text, size_t length, size_t line,
                     struct draft_error *err)
{
    json_error_t why;
    json_t *value = json_loadb(text, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (value == NULL) {
        char words[160];
        draftd_clean_text(words, sizeof words, why.text);
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "line %zu: no JSON: %s at column %d", line, words, why.column);
    }
    const json_t *prompt = prompt_of(value);
    bool ok = prompt
                  ? add(dataset, json_string_value(prompt), json_string_length(prompt), line, err)
                  : draft_fail(err, DRAFT_INVALID_ARGUMENT,
                               "line %zu: neither a string nor an object with a string \"prompt\" or \"text\"", line);
    json_decref(value);
    return ok;
}

static bool read_jsonl(struct draftd_dataset *dataset, const char *p, const char *end, struct draft_error *err)
{
    size_t line = 1;
    for (const char *next; p < end; p = next, line++) {
        const char *stop = line_end(p, end, &next);
        if (!is_blank(p, stop) && !add_json(dataset, p, (size_t)(stop - p), line, err))
            return false;
    }
    return true;
}

/* One field of RFC 4180 at *p into `out` (as large as the file). *last: the record ends here. *line counts lines. */
static bool csv_field(const char **p, const char *end, char *out, size_t *length, bool *last, size_t *line,
                      struct draft_error *err)
{
    const char *c = *p;
    size_t n = 0, begin = *line;
    if (c < end && *c == '"') {
        for (c++;; c++) {
            if (c == end)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "line %zu: a quoted field has no closing quote", begin);
            if (*c == '"') {
                if (c + 1 < end && c[1] == '"')
                    c++; /* "" is one quote */
                else
                    break;
            }
            *line += *c == '\n';
            out[n++] = *c;
        }
        c++;
        if (c < end && *c != ',' && *c != '\n' && *c != '\r')
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "line %zu: text follows a closing quote; double the quotes inside a field", *line);
    } else {
        while (c < end && *c != ',' && *c != '\n') {
            if (*c == '"')
                return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                                  "line %zu: a quote stands inside an unquoted field; quote the whole field", *line);
            out[n++] = *c++;
        }
        if (n > 0 && out[n - 1] == '\r' && (c == end || *c == '\n'))
            n--;
    }
    if (c < end && *c == '\r')
        c++;
    *last = c == end || *c == '\n';
    if (c < end) {
        *line += *c == '\n';
        c++;
    }
    *p = c;
    *length = n;
    return true;
}

static bool is_prompt_column(const char *name, size_t length)
{
    static const char *const names[] = {"prompt", "text", "caption"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (length == strlen(names[i]) && strncasecmp(name, names[i], length) == 0)
            return true;
    return false;
}

static bool read_csv(struct draftd_dataset *dataset, const char *p, const char *end, struct draft_error *err)
{
    char *field = malloc((size_t)(end - p) + 1);
    if (field == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the dataset");
    size_t line = 1, length, columns = 0, wanted = SIZE_MAX;
    bool last = false, ok = true;
    for (; ok && !last && p < end; columns++) {
        ok = csv_field(&p, end, field, &length, &last, &line, err);
        if (ok && wanted == SIZE_MAX && is_prompt_column(field, length))
            wanted = columns;
    }
    if (ok && wanted == SIZE_MAX)
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT,
                        "line 1: the header has no column \"prompt\", \"text\" or \"caption\"");
    while (ok && p < end) {
        size_t begin = line, column = 0;
        bool blank = false;
        last = false;
        for (; ok && !last; column++) {
            size_t field_line = line;
            ok = csv_field(&p, end, field, &length, &last, &line, err);
            blank = column == 0 && last && length == 0; /* an empty line is no record */
            if (ok && !blank && column == wanted)
                ok = add(dataset, field, length, field_line, err);
        }
        if (ok && !blank && column != columns)
            ok = draft_fail(err, DRAFT_INVALID_ARGUMENT, "line %zu: %zu fields, the header has %zu", begin, column,
                            columns);
    }
    free(field);
    return ok;
}

int draftd_dataset_open(const char *path, int64_t *bytes, struct draft_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not block us */
    struct stat st;
    if (fd < 0) {
        draft_fail_errno(err, "cannot open the file");
        return -1;
    }
    bool ok = fstat(fd, &st) == 0 || draft_fail_errno(err, "cannot look at the file");
    if (ok && !S_ISREG(st.st_mode))
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT, "not a regular file");
    if (!ok) {
        close(fd);
        return -1;
    }
    *bytes = st.st_size;
    return fd;
}

/* Reads a regular file whole. The caller frees *text. */
static bool read_file(const char *path, char **text, size_t *length, struct draft_error *err)
{
    int64_t bytes;
    int fd = draftd_dataset_open(path, &bytes, err);
    if (fd < 0)
        return false;
    bool ok = bytes <= DRAFTD_DATASET_BYTES ||
              draft_fail(err, DRAFT_INVALID_ARGUMENT, "the file has %lld bytes, at most %d are allowed; split it",
                         (long long)bytes, DRAFTD_DATASET_BYTES);
    size_t n = 0, size = ok ? (size_t)bytes : 0;
    if (ok && (*text = malloc(size + 1)) == NULL)
        ok = draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a file of %zu bytes", size);
    while (ok && n < size) {
        ssize_t got = read(fd, *text + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            ok = draft_fail_errno(err, "cannot read the file");
        if (got <= 0)
            break; /* it became shorter while being read: what is there counts */
        n += (size_t)got;
    }
    close(fd);
    *length = n;
    return ok;
}

bool draftd_dataset_read(const char *path, struct draftd_dataset *dataset, struct draft_error *err)
{
    *dataset = (struct draftd_dataset){0};
    if (draftd_dataset_is_tar(path)) {
        if (draftd_dataset_read_tar(path, dataset, err))
            return true;
        draft_error_prefix(err, "dataset %s: ", path);
        draftd_dataset_free(dataset);
        return false;
    }
    const char *dot = strrchr(path, '.');
    bool (*reader)(struct draftd_dataset *, const char *, const char *, struct draft_error *) =
        dot == NULL                      ? NULL
        : strcasecmp(dot, ".txt") == 0   ? read_text
        : strcasecmp(dot, ".jsonl") == 0 ? read_jsonl
        : strcasecmp(dot, ".csv") == 0   ? read_csv
                                         : NULL;
    char *text = NULL;
    size_t length = 0;
    bool ok = reader ? read_file(path, &text, &length, err)
                     : draft_fail(err, DRAFT_INVALID_ARGUMENT,
                                  "the name must end with .txt, .jsonl, .csv or .tar (also .tar.gz, .tgz, .tar.bz2, "
                                  ".tar.xz, .tar.zst)");
    if (ok) {
        size_t bom = length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        ok = reader(dataset, text + bom, text + length, err);
    }
    if (ok && dataset->count == 0)
        ok = draft_fail(err, DRAFT_INVALID_ARGUMENT, "there is no prompt in it");
    free(text);
    if (ok)
        return true;
    draft_error_prefix(err, "dataset %s: ", path);
    draftd_dataset_free(dataset);
    return false;
}

bool draftd_dataset_write(const struct draftd_dataset *dataset, const char *path, struct draft_error *err)
{
    struct draft_atomic_file *file = draft_atomic_begin(path, err);
    if (file == NULL)
        return false;
    for (size_t i = 0; i < dataset->count; i++) {
        json_t *string = json_string(dataset->prompts[i]);
        char *line = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
        json_decref(string);
        if (line == NULL) {
            draft_atomic_abort(file);
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the dataset");
        }
        draft_atomic_write(file, line, strlen(line));
        draft_atomic_write(file, "\n", 1);
        free(line);
    }
    return draft_atomic_commit(file, err);
}

bool draftd_dataset_first(const char *path, size_t limit, struct draftd_dataset *dataset, struct draft_error *err)
{
    *dataset = (struct draftd_dataset){0};
    char *text = NULL;
    size_t length = 0, line = 1;
    bool ok = read_file(path, &text, &length, err);
    const char *end = text + length;
    for (const char *p = text, *next; ok && p < end && dataset->count < limit; p = next, line++) {
        const char *stop = line_end(p, end, &next);
        ok = add_json(dataset, p, (size_t)(stop - p), line, err);
        for (size_t i = 0; ok && i + 1 < dataset->count; i++)
            if (strcmp(dataset->prompts[i], dataset->prompts[dataset->count - 1]) == 0) {
                free(dataset->prompts[--dataset->count]);
                break;
            }
    }
    free(text);
    if (ok)
        return true;
    draft_error_prefix(err, "the job's dataset %s: ", path);
    draftd_dataset_free(dataset);
    return false;
}
