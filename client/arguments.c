#include "arguments.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

bool draft_parse_int(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || text[0] == ' ')
        return false;
    *out = value;
    return true;
}

bool draft_parse_uint(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || errno || text[0] < '0' || text[0] > '9')
        return false;
    *out = value;
    return true;
}

bool draft_parse_double(const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || text[0] == ' ')
        return false;
    *out = value;
    return true;
}

bool draft_parse_size(const char *text, int32_t *height, int32_t *width)
{
    char *end;
    errno = 0;
    long h = strtol(text, &end, 10), w;
    if (end == text || (*end != 'x' && *end != 'X'))
        return false;
    const char *second = end + 1;
    w = strtol(second, &end, 10);
    if (end == second || *end || errno || h < 1 || w < 1 || h > 65536 || w > 65536)
        return false;
    *height = (int32_t)h;
    *width = (int32_t)w;
    return true;
}

static int minimum(int a, int b)
{
    return a < b ? a : b;
}

/* Damerau-Levenshtein (neighbours swapped count once) over at most 63 bytes. */
static int distance(const char *a, const char *b)
{
    enum { MOST = 64 };
    int rows[3][MOST + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n >= MOST || m >= MOST)
        return MOST;
    for (int j = 0; j <= m; j++)
        rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int cost = a[i - 1] != b[j - 1];
            now[j] = minimum(minimum(last[j] + 1, now[j - 1] + 1), last[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = minimum(now[j], before[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

const char *draft_nearest(const char *word, const char *const *names, int count)
{
    const char *best = NULL;
    int least = 1 + (int)strlen(word) / 3; /* a typo in three letters is near */
    for (int i = 0; i < count; i++) {
        int d = distance(word, names[i]);
        if (d <= least && (!best || d < least)) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

static const struct draft_option *find(const struct draft_option *const *tables, const char *name, size_t length,
                                       char letter)
{
    for (; *tables; tables++)
        for (const struct draft_option *o = *tables; o->name; o++)
            if (letter ? o->letter == letter
                       : (length > 0 && strlen(o->name) == length && !strncmp(o->name, name, length)))
                return o;
    return NULL;
}

static bool unknown(const struct draft_option *const *tables, const char *shown, size_t length, struct draft_error *err)
{
    const char *names[DRAFT_ARGUMENTS_MAX];
    char word[64];
    int count = 0;
    for (; *tables; tables++)
        for (const struct draft_option *o = *tables; o->name; o++)
            if (*o->name && count < DRAFT_ARGUMENTS_MAX)
                names[count++] = o->name;
    snprintf(word, sizeof word, "%.*s", (int)length, shown);
    const char *near = draft_nearest(word, names, count);
    if (near)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "unknown option --%s; did you mean --%s?", word, near);
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "unknown option --%s", word);
}

static bool check(const struct draft_option *o, const char *text, struct draft_error *err)
{
    static const char *const expected[] = {
        [DRAFT_VALUE_INT] = "a whole number",
        [DRAFT_VALUE_UINT] = "a whole number, 0 or more",
        [DRAFT_VALUE_DOUBLE] = "a finite number",
        [DRAFT_VALUE_SIZE] = "HEIGHTxWIDTH in pixels, such as 512x512",
    };
    int64_t i;
    uint64_t u;
    double d;
    int32_t h, w;
    bool good = true;
    switch (o->value) {
    case DRAFT_VALUE_NONE:
    case DRAFT_VALUE_STRING:
    case DRAFT_VALUE_PATH:
    case DRAFT_VALUE_LORA:
    case DRAFT_VALUE_REWARD:
        break;
    case DRAFT_VALUE_INT:
        good = draft_parse_int(text, &i);
        break;
    case DRAFT_VALUE_UINT:
        good = draft_parse_uint(text, &u);
        break;
    case DRAFT_VALUE_DOUBLE:
        good = draft_parse_double(text, &d);
        break;
    case DRAFT_VALUE_SIZE:
        good = draft_parse_size(text, &h, &w);
        break;
    }
    return good ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "--%s \"%s\": expected %s", o->name, text, expected[o->value]);
}

static bool add(struct draft_arguments *out, const struct draft_option *o, const char *text, struct draft_error *err)
{
    if (!o->repeat && draft_arguments_has(out, o->name))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "--%s is given twice", o->name);
    if (out->count == DRAFT_ARGUMENTS_MAX)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "more than %d options", DRAFT_ARGUMENTS_MAX);
    out->given[out->count++] = (struct draft_argument){.option = o, .text = text};
    return true;
}

bool draft_arguments_parse(const struct draft_option *const *tables, int argc, char **argv, struct draft_arguments *out,
                           struct draft_error *err)
{
    bool options = true;
    *out = (struct draft_arguments){.count = 0};
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *text = NULL;
        const struct draft_option *o;
        if (options && !strcmp(word, "--")) {
            options = false;
            continue;
        }
        if (!options || word[0] != '-' || !word[1]) {
            if (out->operand_count == DRAFT_ARGUMENTS_MAX)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "more than %d arguments", DRAFT_ARGUMENTS_MAX);
            out->operands[out->operand_count++] = word;
            continue;
        }
        if (word[1] == '-') {
            const char *name = word + 2, *equals = strchr(name, '=');
            size_t length = equals ? (size_t)(equals - name) : strlen(name);
            o = find(tables, name, length, 0);
            if (!o)
                return unknown(tables, name, length, err);
            text = equals ? equals + 1 : NULL;
            if (text && o->value == DRAFT_VALUE_NONE)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "--%s takes no value", o->name);
        } else {
            o = find(tables, NULL, 0, word[1]);
            if (!o)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "unknown option -%c", word[1]);
            if (word[2] && o->value == DRAFT_VALUE_NONE)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "-%c takes no value", o->letter);
            text = word[2] ? word + 2 : NULL;
        }
        if (!text && o->value != DRAFT_VALUE_NONE) {
            if (i + 1 == argc)
                return draft_fail(err, DRAFT_INVALID_ARGUMENT, "--%s needs a value: %s", o->name, o->metavar);
            text = argv[++i];
        }
        if (!check(o, text, err) || !add(out, o, text, err))
            return false;
    }
    return true;
}

static const struct draft_argument *last(const struct draft_arguments *arguments, const char *name)
{
    for (int i = arguments->count - 1; i >= 0; i--)
        if (!strcmp(arguments->given[i].option->name, name))
            return &arguments->given[i];
    return NULL;
}

bool draft_arguments_has(const struct draft_arguments *arguments, const char *name)
{
    return last(arguments, name) != NULL;
}

const char *draft_arguments_string(const struct draft_arguments *arguments, const char *name, const char *fallback)
{
    const struct draft_argument *found = last(arguments, name);
    return found ? found->text : fallback;
}

int64_t draft_arguments_int(const struct draft_arguments *arguments, const char *name, int64_t fallback)
{
    const struct draft_argument *found = last(arguments, name);
    int64_t value = fallback;
    if (found && !draft_parse_int(found->text, &value))
        assert(!"the option is not of an integer type");
    return value;
}

double draft_arguments_double(const struct draft_arguments *arguments, const char *name, double fallback)
{
    const struct draft_argument *found = last(arguments, name);
    double value = fallback;
    if (found && !draft_parse_double(found->text, &value))
        assert(!"the option is not of a number type");
    return value;
}

void draft_options_help(const struct draft_option *table, int width, FILE *out)
{
    enum { COLUMN = 30 };
    for (const struct draft_option *o = table; o->name; o++) {
        char head[96];
        int used = 0;
        if (!*o->name) {
            fprintf(out, "\n%s:\n", o->help);
            continue;
        }
        used = o->letter ? snprintf(head, sizeof head, "  -%c, --%s", o->letter, o->name)
                         : snprintf(head, sizeof head, "      --%s", o->name);
        if (o->value != DRAFT_VALUE_NONE)
            used += snprintf(head + used, sizeof head - (size_t)used, " %s", o->metavar);
        fputs(head, out);
        if (used >= COLUMN - 1) {
            fputc('\n', out);
            used = 0;
        }
        draft_wrap(o->help, used, COLUMN, width, out);
    }
}
