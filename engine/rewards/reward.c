#include "rewards/reward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct draft_reward_kind *const kinds[] = {
#define DRAFT_REWARD(name, help) &draft_reward_##name,
#include "rewards/rewards.def"
#undef DRAFT_REWARD
};

const struct draft_reward_kind *draft_reward_kind_at(int index)
{
    return index >= 0 && (size_t)index < sizeof kinds / sizeof *kinds ? kinds[index] : NULL;
}

const struct draft_reward_kind *draft_reward_kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    return NULL;
}

static bool refuse_kind(const char *name, int length, struct draft_error *err)
{
    char known[128] = "";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", kinds[i]->name);
    }
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "there is no reward \"%.*s\"; known are %s",
                      length > 64 ? 64 : length, name, known);
}

/* "0.5*rest": *text moves behind the star. A text without a star has weight 1. */
static bool parse_weight(const char **text, double *weight, struct draft_error *err)
{
    const char *star = strchr(*text, '*'), *colon = strchr(*text, ':');
    *weight = 1;
    if (star == NULL || (colon != NULL && colon < star))
        return true;
    char *end;
    *weight = strtod(*text, &end);
    if (end != star || end == *text || !isfinite(*weight))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the weight before '*' in the reward \"%s\" is not a number",
                          *text);
    *text = star + 1;
    return true;
}

struct draft_tensor *draft_reward_score(struct draft_reward *reward, struct draft_graph *g, struct draft_tensor *images,
                                        const char *const *prompts)
{
    if (!draft_graph_ok(g))
        return NULL;
    struct draft_tensor *text = NULL;
    if (reward->kind->read != NULL)
        text = reward->kind->read(reward, g, prompts, images->dim[0]);
    return reward->kind->score(reward, g, images, text);
}

bool draft_reward_spec_parse(const char *text, struct draft_reward_spec *spec, struct draft_error *err)
{
    struct draft_reward_spec parsed = {0};
    if (!parse_weight(&text, &parsed.weight, err))
        return false;
    const char *colon = strchr(text, ':'), *rest = colon != NULL ? colon + 1 : "";
    size_t length = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (length >= sizeof parsed.kind)
        return refuse_kind(text, (int)length, err);
    memcpy(parsed.kind, text, length);
    const struct draft_reward_kind *kind = draft_reward_kind_find(parsed.kind);
    if (kind == NULL)
        return refuse_kind(text, (int)length, err);
    if (kind->takes_path && rest[0] == '\0')
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the reward %s needs a folder: %s:PATH", kind->name, kind->name);
    char *target = kind->takes_path ? parsed.path : parsed.options;
    size_t room = kind->takes_path ? sizeof parsed.path : sizeof parsed.options;
    if (strlen(rest) >= room)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the %s of the reward %s is longer than %zu bytes",
                          kind->takes_path ? "path" : "option list", kind->name, room - 1);
    strcpy(target, rest);
    *spec = parsed;
    return true;
}

bool draft_reward_options_each(const char *options, void *context,
                               bool (*visit)(void *context, const char *key, const char *value,
                                             struct draft_error *err),
                               struct draft_error *err)
{
    char copy[sizeof((struct draft_reward_spec *)NULL)->options], *left = copy, *part;
    if ((size_t)snprintf(copy, sizeof copy, "%s", options) >= sizeof copy)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "a reward's options are longer than %zu bytes", sizeof copy - 1);
    while (copy[0] != '\0' && (part = strsep(&left, ",")) != NULL) {
        char *value = strchr(part, '=');
        if (value == NULL || value == part)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "\"%s\" is not an option of a reward, expected key=value",
                              part);
        *value++ = '\0';
        if (!visit(context, part, value, err))
            return false;
    }
    return true;
}
