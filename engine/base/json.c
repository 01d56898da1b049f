#include "base/json.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/read_file.h"

enum { MAX_FILE = 16 << 20 };

struct draft_json {
    char *shown;                      /* "unet/config.json" or "config.json: text_config" */
    json_t *object;                   /* the root owns its tree; children borrow */
    json_t *known;                    /* keys that were read, required or ignored; values unused */
    bool whole_reals;                 /* integers were read as reals, because one did not fit into 64 bits */
    char *key;                        /* of a child, in its parent */
    struct draft_json *parent, *next; /* next: the root's list of all its descendants */
};

static void free_node(struct draft_json *json)
{
    json_decref(json->known);
    free(json->shown);
    free(json->key);
    free(json);
}

static struct draft_json *new_node(const char *shown, json_t *object, struct draft_error *err)
{
    struct draft_json *json = calloc(1, sizeof *json);
    if (json != NULL) {
        json->shown = strdup(shown);
        json->known = json_object();
        json->object = object;
        if (json->shown != NULL && json->known != NULL)
            return json;
        free_node(json);
    }
    draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", shown);
    return NULL;
}

/* Python's json module writes NaN, Infinity and -Infinity bare, which no other reader takes; diffusers' DPM-Solver
 * files hold one. A copy in which they stand as strings: a getter of numbers refuses those by name, and who knows what
 * one means can ask for the string. malloc'd; NULL when memory is out. */
static char *quote_python_numbers(const char *text, size_t length, size_t *out_length)
{
    static const char *const names[] = {"NaN", "Infinity", "-Infinity"};
    char *out = malloc(2 * length + 1); /* the shortest becomes 5 bytes for 3 */
    bool inside = false;
    size_t used = 0;
    for (size_t at = 0; out != NULL && at < length;) {
        size_t taken = 1, quotes = 0;
        for (size_t i = 0; !inside && i < sizeof names / sizeof *names; i++) {
            size_t n = strlen(names[i]);
            if (n <= length - at && memcmp(text + at, names[i], n) == 0) {
                taken = n;
                quotes = 1;
            }
        }
        if (inside && text[at] == '\\' && at + 1 < length)
            taken = 2;
        else if (text[at] == '"')
            inside = !inside;
        if (quotes)
            out[used++] = '"';
        memcpy(out + used, text + at, taken);
        used += taken;
        if (quotes)
            out[used++] = '"';
        at += taken;
    }
    *out_length = used;
    return out;
}

/* *whole_reals: integers were read as reals. */
static json_t *load(const char *text, size_t length, bool *whole_reals, json_error_t *why)
{
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, why);
    /* transformers writes "no limit" as 1000000000000000019884624838656 */
    *whole_reals = value == NULL && json_error_code(why) == json_error_numeric_overflow;
    return *whole_reals ? json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, why) : value;
}

/* As strict as JSON but for what Python writes. *why is about the text as it is written. */
static json_t *load_pythons(const char *text, size_t length, bool *whole_reals, json_error_t *why)
{
    json_t *value = load(text, length, whole_reals, why);
    if (value != NULL || json_error_code(why) != json_error_invalid_syntax)
        return value;
    json_error_t again;
    size_t quoted_length;
    char *quoted = quote_python_numbers(text, length, &quoted_length);
    if (quoted != NULL && quoted_length > length)
        value = load(quoted, quoted_length, whole_reals, &again);
    free(quoted);
    return value;
}

struct draft_json *draft_json_parse(const char *text, size_t length, const char *shown_name, struct draft_error *err)
{
    if (length > MAX_FILE) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is %zu bytes long, at most %d are read", shown_name, length,
                   MAX_FILE);
        return NULL;
    }
    json_error_t why;
    bool whole_reals;
    json_t *value = load_pythons(text, length, &whole_reals, &why);
    if (value == NULL) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not JSON: line %d, column %d: %s", shown_name, why.line,
                   why.column, why.text);
        return NULL;
    }
    if (!json_is_object(value)) {
        json_decref(value);
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s does not hold a JSON object ({...})", shown_name);
        return NULL;
    }
    struct draft_json *json = new_node(shown_name, value, err);
    if (json == NULL)
        json_decref(value);
    else
        json->whole_reals = whole_reals;
    return json;
}

struct draft_json *draft_json_open(const char *path, struct draft_error *err)
{
    size_t length;
    char *text = draft_read_file(path, MAX_FILE, &length, err);
    if (text == NULL)
        return NULL;
    struct draft_json *json = draft_json_parse(text, length, path, err);
    free(text);
    return json;
}

void draft_json_close(struct draft_json *json)
{
    if (json == NULL)
        return;
    assert(json->parent == NULL && "close the root; children die with it");
    struct draft_json *child = json->next;
    while (child != NULL) {
        struct draft_json *next = child->next;
        free_node(child);
        child = next;
    }
    json_decref(json->object);
    free_node(json);
}

/* The value of a key, now known; NULL when absent or null. */
static json_t *look(struct draft_json *json, const char *key)
{
    json_object_set_new(json->known, key, json_true());
    json_t *value = json_object_get(json->object, key);
    return json_is_null(value) ? NULL : value;
}

/* A value as a sentence shows it, shortened. */
static const char *show(const json_t *value, char *buffer, size_t size)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (text == NULL)
        snprintf(buffer, size, "(unprintable)");
    else if (strlen(text) < size)
        snprintf(buffer, size, "%s", text);
    else {
        size_t keep = size - 4;
        while (keep > 0 && ((unsigned char)text[keep] & 0xC0) == 0x80)
            keep--; /* never cut inside a character */
        snprintf(buffer, size, "%.*s...", (int)keep, text);
    }
    free(text);
    return buffer;
}

static bool wrong(struct draft_json *json, const char *key, const char *expected, const json_t *found,
                  struct draft_error *err)
{
    char text[80];
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: \"%s\" is %s, expected %s", json->shown, key,
                      show(found, text, sizeof text), expected);
}

static bool to_int(const struct draft_json *json, const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    double real = json_real_value(value);
    if (!json->whole_reals || !json_is_real(value) || floor(real) != real || fabs(real) > 0x1p53)
        return false;
    *out = (int64_t)real;
    return true;
}

static const char *range_text(int64_t min, int64_t max, char *buffer, size_t size)
{
    snprintf(buffer, size, "an integer from %lld to %lld", (long long)min, (long long)max);
    return buffer;
}

bool draft_json_has(struct draft_json *json, const char *key)
{
    json_t *value = json_object_get(json->object, key);
    return value != NULL && !json_is_null(value);
}

bool draft_json_null(struct draft_json *json, const char *key)
{
    return json_is_null(json_object_get(json->object, key));
}

bool draft_json_int(struct draft_json *json, const char *key, int64_t min, int64_t max, int64_t fallback, int64_t *out,
                    struct draft_error *err)
{
    const json_t *value = look(json, key);
    if (value == NULL) {
        *out = fallback;
        return true;
    }
    int64_t number;
    char range[80];
    if (!to_int(json, value, &number) || number < min || number > max)
        return wrong(json, key, range_text(min, max, range, sizeof range), value, err);
    *out = number;
    return true;
}

bool draft_json_double(struct draft_json *json, const char *key, double fallback, double *out, struct draft_error *err)
{
    const json_t *value = look(json, key);
    if (value == NULL) {
        *out = fallback;
        return true;
    }
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return wrong(json, key, "a number", value, err);
    *out = json_number_value(value);
    return true;
}

bool draft_json_bool(struct draft_json *json, const char *key, bool fallback, bool *out, struct draft_error *err)
{
    const json_t *value = look(json, key);
    if (value == NULL) {
        *out = fallback;
        return true;
    }
    if (!json_is_boolean(value))
        return wrong(json, key, "true or false", value, err);
    *out = json_is_true(value);
    return true;
}

bool draft_json_string(struct draft_json *json, const char *key, const char *fallback, const char **out,
                       struct draft_error *err)
{
    const json_t *value = look(json, key);
    if (value == NULL) {
        *out = fallback;
        return true;
    }
    if (!json_is_string(value))
        return wrong(json, key, "a string", value, err);
    *out = json_string_value(value);
    return true;
}

/* The array of a key, checked for its length. *array NULL without failure: absent. */
static bool take_array(struct draft_json *json, const char *key, int capacity, const char *of_what, json_t **array,
                       struct draft_error *err)
{
    char expected[96];
    json_t *value = look(json, key);
    *array = value;
    if (value == NULL)
        return true;
    snprintf(expected, sizeof expected, "an array of at most %d %s", capacity, of_what);
    if (!json_is_array(value) || json_array_size(value) > (size_t)capacity)
        return wrong(json, key, expected, value, err);
    return true;
}

bool draft_json_ints(struct draft_json *json, const char *key, int64_t min, int64_t max, int64_t *out, int capacity,
                     int *count, struct draft_error *err)
{
    assert(capacity > 0);
    char range[80], expected[120];
    const json_t *value = look(json, key);
    *count = 0;
    if (value == NULL)
        return true;
    range_text(min, max, range, sizeof range);
    if (!json_is_array(value)) {
        if (!to_int(json, value, &out[0]) || out[0] < min || out[0] > max)
            return wrong(json, key, range, value, err);
        *count = -1;
        return true;
    }
    json_t *array;
    if (!take_array(json, key, capacity, "integers", &array, err))
        return false;
    size_t index;
    json_t *item;
    json_array_foreach (array, index, item) {
        if (!to_int(json, item, &out[index]) || out[index] < min || out[index] > max) {
            snprintf(expected, sizeof expected, "each to be %s", range);
            return wrong(json, key, expected, value, err);
        }
    }
    *count = (int)json_array_size(array);
    return true;
}

bool draft_json_strings(struct draft_json *json, const char *key, const char **out, int capacity, int *count,
                        struct draft_error *err)
{
    json_t *array, *item;
    size_t index;
    *count = 0;
    if (!take_array(json, key, capacity, "strings", &array, err))
        return false;
    json_array_foreach (array, index, item) {
        if (!json_is_string(item))
            return wrong(json, key, "an array of strings", array, err);
        out[index] = json_string_value(item);
    }
    *count = (int)json_array_size(array);
    return true;
}

bool draft_json_doubles(struct draft_json *json, const char *key, double *out, int capacity, int *count,
                        struct draft_error *err)
{
    json_t *array, *item;
    size_t index;
    *count = 0;
    if (!take_array(json, key, capacity, "numbers", &array, err))
        return false;
    json_array_foreach (array, index, item) {
        if (!json_is_number(item) || !isfinite(json_number_value(item)))
            return wrong(json, key, "an array of numbers", array, err);
        out[index] = json_number_value(item);
    }
    *count = (int)json_array_size(array);
    return true;
}

struct draft_json *draft_json_child(struct draft_json *json, const char *key, struct draft_error *err)
{
    struct draft_json *root = json;
    while (root->parent != NULL)
        root = root->parent;
    for (struct draft_json *child = root->next; child != NULL; child = child->next)
        if (child->parent == json && strcmp(child->key, key) == 0)
            return child;
    json_t *value = look(json, key);
    if (value == NULL)
        return NULL;
    if (!json_is_object(value)) {
        wrong(json, key, "an object", value, err);
        return NULL;
    }
    char *shown;
    if (asprintf(&shown, "%s: %s", json->shown, key) < 0) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", json->shown);
        return NULL;
    }
    struct draft_json *child = new_node(shown, value, err);
    free(shown);
    if (child == NULL)
        return NULL;
    child->key = strdup(key);
    if (child->key == NULL) {
        free_node(child);
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", json->shown);
        return NULL;
    }
    child->whole_reals = json->whole_reals;
    child->parent = json;
    child->next = root->next;
    root->next = child;
    return child;
}

int draft_json_size(const struct draft_json *json)
{
    return (int)json_object_size(json->object);
}

/* The same sentence for a key that comes from the file itself. */
static bool wrong_member(struct draft_json *json, const char *key, const char *expected, const json_t *found,
                         struct draft_error *err)
{
    char shown_key[80], text[80];
    json_t *string = json_string(key);
    show(string, shown_key, sizeof shown_key);
    json_decref(string);
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is %s, expected %s", json->shown, shown_key,
                      show(found, text, sizeof text), expected);
}

bool draft_json_each(struct draft_json *json, void *context,
                     bool (*visit)(void *context, const char *key, size_t key_length, int64_t value), int64_t min,
                     int64_t max, struct draft_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach (json->object, key, value) {
        int64_t number;
        char range[80];
        if (!to_int(json, value, &number) || number < min || number > max)
            return wrong_member(json, key, range_text(min, max, range, sizeof range), value, err);
        if (!visit(context, key, strlen(key), number))
            return false;
    }
    return true;
}

bool draft_json_each_string(struct draft_json *json, void *context,
                            bool (*visit)(void *context, const char *key, const char *value), struct draft_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach (json->object, key, value) {
        if (!json_is_string(value))
            return wrong_member(json, key, "a string", value, err);
        if (!visit(context, key, json_string_value(value)))
            return false;
    }
    return true;
}

static bool same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    if (json_is_array(a) && json_is_array(b)) {
        bool equal = json_array_size(a) == json_array_size(b);
        for (size_t i = 0; equal && i < json_array_size(a); i++)
            equal = same(json_array_get(a, i), json_array_get(b, i));
        return equal;
    }
    return json_equal(a, b);
}

bool draft_json_require(struct draft_json *json, const char *key, const char *expected, struct draft_error *err)
{
    const json_t *value = look(json, key);
    if (value == NULL)
        return true;
    json_t *wanted = json_loads(expected, JSON_DECODE_ANY, NULL);
    assert(wanted != NULL && "expected must be JSON text");
    bool equal = same(value, wanted);
    json_decref(wanted);
    if (equal)
        return true;
    char text[80];
    return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                      "%s: \"%s\" is %s, this engine implements only %s; ignoring it would change the result",
                      json->shown, key, show(value, text, sizeof text), expected);
}

void draft_json_ignore(struct draft_json *json, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        json_object_set_new(json->known, *keys, json_true());
}

bool draft_json_finish(struct draft_json *json, struct draft_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach (json->object, key, value) {
        if (json_object_get(json->known, key) != NULL)
            continue;
        char shown_key[80], text[80];
        json_t *string = json_string(key);
        show(string, shown_key, sizeof shown_key);
        json_decref(string);
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s: the key %s (%s) is not understood; ignoring it might change the result", json->shown,
                          shown_key, show(value, text, sizeof text));
    }
    return true;
}
