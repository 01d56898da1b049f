#include "yaml_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

enum { MAX_DEPTH = 32 };

struct reader {
    yaml_parser_t parser;
    const char *shown;
    struct draft_error *err;
    int depth;
};

bool draft_yaml_is(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && (strcasecmp(dot, ".yaml") == 0 || strcasecmp(dot, ".yml") == 0);
}

static json_t *refuse(const struct reader *r, const yaml_mark_t *where, const char *why)
{
    draft_fail(r->err, DRAFT_INVALID_ARGUMENT, "%s: line %zu: %s", r->shown, where->line + 1, why);
    return NULL;
}

static bool next(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event))
        return true;
    const char *why = r->parser.problem != NULL ? r->parser.problem : "out of memory";
    refuse(r, &r->parser.problem_mark, why);
    return false;
}

/* [-+]digits, and what a float of the core schema may have beside them */
static bool is_number(const char *text, bool *whole)
{
    const char *p = text + (*text == '-' || *text == '+');
    size_t before = strspn(p, "0123456789");
    p += before;
    *whole = before > 0 && *p == '\0';
    if (*whole)
        return true;
    size_t after = 0;
    if (*p == '.') {
        after = strspn(p + 1, "0123456789");
        p += 1 + after;
    }
    if (before + after == 0)
        return false;
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '-' || p[1] == '+');
        size_t exponent = strspn(p, "0123456789");
        if (exponent == 0)
            return false;
        p += exponent;
    }
    return *p == '\0';
}

static json_t *plain(const char *text)
{
    static const char *const words[][3] = {
        {"null", "Null", "NULL"}, {"true", "True", "TRUE"}, {"false", "False", "FALSE"}};
    if (*text == '\0' || strcmp(text, "~") == 0)
        return json_null();
    for (int kind = 0; kind < 3; kind++)
        for (int form = 0; form < 3; form++)
            if (strcmp(text, words[kind][form]) == 0)
                return kind == 0 ? json_null() : json_boolean(kind == 1);
    bool whole;
    if (!is_number(text, &whole))
        return json_string(text);
    errno = 0;
    long long integer = whole ? strtoll(text, NULL, 10) : 0;
    if (whole && errno == 0)
        return json_integer(integer);
    double real = strtod(text, NULL);
    json_t *number = whole ? NULL : json_real(real);    /* NULL: too large a number */
    return number != NULL ? number : json_string(text); /* digits beyond int64: fields of 64 bits take them as text */
}

static json_t *value(struct reader *r, const yaml_event_t *event);

static json_t *scalar(struct reader *r, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    if (event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL)
        return refuse(r, &event->start_mark, "anchors and tags are not read here");
    if (strlen(text) != event->data.scalar.length)
        return refuse(r, &event->start_mark, "a NUL character stands in the text");
    json_t *made = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain(text) : json_string(text);
    return made != NULL ? made : refuse(r, &event->start_mark, "the text is not UTF-8");
}

static json_t *list(struct reader *r)
{
    json_t *made = json_array();
    for (;;) {
        yaml_event_t event;
        if (!next(r, &event))
            break;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        json_t *item = end ? NULL : value(r, &event);
        yaml_event_delete(&event);
        if (end)
            return made;
        if (item == NULL)
            break;
        json_array_append_new(made, item);
    }
    json_decref(made);
    return NULL;
}

static bool add_pair(struct reader *r, json_t *map, const yaml_event_t *key)
{
    const char *name = (const char *)key->data.scalar.value;
    if (key->type != YAML_SCALAR_EVENT || key->data.scalar.anchor != NULL || key->data.scalar.tag != NULL)
        return refuse(r, &key->start_mark, "expected a name, followed by a colon") != NULL;
    if (strcmp(name, "<<") == 0)
        return refuse(r, &key->start_mark, "merge keys are not read here") != NULL;
    if (json_object_get(map, name) != NULL) {
        draft_fail(r->err, DRAFT_INVALID_ARGUMENT, "%s: line %zu: \"%s\" stands here for the second time", r->shown,
                   key->start_mark.line + 1, name);
        return false;
    }
    yaml_event_t event;
    if (!next(r, &event))
        return false;
    json_t *made = value(r, &event);
    yaml_event_delete(&event);
    if (made == NULL)
        return false;
    return json_object_set_new(map, name, made) == 0 || refuse(r, &key->start_mark, "the name is not UTF-8") != NULL;
}

static json_t *mapping(struct reader *r)
{
    json_t *made = json_object();
    for (;;) {
        yaml_event_t event;
        if (!next(r, &event))
            break;
        bool end = event.type == YAML_MAPPING_END_EVENT, good = end || add_pair(r, made, &event);
        yaml_event_delete(&event);
        if (end)
            return made;
        if (!good)
            break;
    }
    json_decref(made);
    return NULL;
}

static json_t *value(struct reader *r, const yaml_event_t *event)
{
    json_t *made = NULL;
    if (event->type == YAML_SCALAR_EVENT)
        return scalar(r, event);
    if (event->type == YAML_ALIAS_EVENT)
        return refuse(r, &event->start_mark, "aliases are not read here; write the value again");
    bool sequence = event->type == YAML_SEQUENCE_START_EVENT;
    if (!sequence && event->type != YAML_MAPPING_START_EVENT)
        return refuse(r, &event->start_mark, "expected a value");
    if (sequence ? event->data.sequence_start.anchor || event->data.sequence_start.tag
                 : event->data.mapping_start.anchor || event->data.mapping_start.tag)
        return refuse(r, &event->start_mark, "anchors and tags are not read here");
    if (r->depth == MAX_DEPTH)
        return refuse(r, &event->start_mark, "too many levels, one inside the other");
    r->depth++;
    made = sequence ? list(r) : mapping(r);
    r->depth--;
    return made;
}

/* Stream and document begin, the one value, both end. */
static json_t *document(struct reader *r)
{
    static const yaml_event_type_t order[] = {YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT, YAML_NO_EVENT,
                                              YAML_DOCUMENT_END_EVENT, YAML_STREAM_END_EVENT};
    json_t *made = NULL;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        yaml_event_t event;
        if (!next(r, &event)) {
            json_decref(made);
            return NULL;
        }
        bool good = true;
        if (order[i] == YAML_NO_EVENT)
            good = (made = value(r, &event)) != NULL;
        else if (event.type != order[i])
            good = refuse(r, &event.start_mark,
                          i == 1 ? "the file is empty" : "a second document begins; a job file holds one") != NULL;
        yaml_event_delete(&event);
        if (!good) {
            json_decref(made);
            return NULL;
        }
    }
    return made;
}

json_t *draft_yaml_load(const char *text, size_t length, const char *shown_name, struct draft_error *err)
{
    struct reader r = {.shown = shown_name, .err = err};
    if (!yaml_parser_initialize(&r.parser)) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to read %s", shown_name);
        return NULL;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
    json_t *root = document(&r);
    yaml_parser_delete(&r.parser);
    return root;
}
