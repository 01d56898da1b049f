#include "fields.h"

#include <jansson.h>

#include "json_message.h"

/* All values of a repeated string option as a list. */
static json_t *list_of(const struct draft_arguments *arguments, const struct draft_option *option)
{
    json_t *list = json_array();
    for (int i = 0; i < arguments->count; i++)
        if (arguments->given[i].option == option &&
            json_array_append_new(list, json_string(arguments->given[i].text)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *value_of(const struct draft_arguments *arguments, const struct draft_argument *given)
{
    int64_t i;
    double d;
    if (given->option->repeat)
        return list_of(arguments, given->option);
    switch (given->option->value) {
    case DRAFT_VALUE_NONE:
        return json_true();
    case DRAFT_VALUE_INT:
        return draft_parse_int(given->text, &i) ? json_integer(i) : NULL;
    case DRAFT_VALUE_DOUBLE:
        return draft_parse_double(given->text, &d) ? json_real(d) : NULL;
    case DRAFT_VALUE_UINT: /* as digits: JSON integers end at 2^63 - 1 */
    case DRAFT_VALUE_STRING:
    case DRAFT_VALUE_PATH:
        return json_string(given->text);
    case DRAFT_VALUE_SIZE: {
        int32_t height, width;
        draft_parse_size(given->text, &height, &width);
        return json_pack("{s:i, s:i}", "height", height, "width", width);
    }
    case DRAFT_VALUE_LORA:
    case DRAFT_VALUE_REWARD:
        break;
    }
    return NULL;
}

bool draft_fields_from_arguments(ProtobufCMessage *message, const struct draft_arguments *arguments,
                                 struct draft_error *err)
{
    for (int i = 0; i < arguments->count; i++) {
        const struct draft_argument *given = &arguments->given[i];
        if (!given->option->path || given->option->value == DRAFT_VALUE_REWARD ||
            given->option->value == DRAFT_VALUE_LORA)
            continue;
        json_t *value = value_of(arguments, given);
        if (!value)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "--%s: the text is not UTF-8", given->option->name);
        bool good = draft_message_set(message, given->option->path, value, err);
        json_decref(value);
        if (!good) {
            draft_error_prefix(err, "--%s: ", given->option->name);
            return false;
        }
    }
    return true;
}
