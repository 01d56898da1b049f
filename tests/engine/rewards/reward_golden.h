/*
 * A reward against the fixtures that tests/tools/make_rewards.py made with PyTorch in float64: pictures of several
 * sizes, two prompts, seeds 1 and -2. And a fixture's folder with something changed in it, to see it refused.
 */
#ifndef TESTS_ENGINE_REWARDS_REWARD_GOLDEN_H
#define TESTS_ENGINE_REWARDS_REWARD_GOLDEN_H

#include "reward_case.h"

#include <unistd.h>

#include "tensor/safetensors.h"

static const char *const golden_prompts[] = {"a lion", "A small Owl on a BLUE background!"};

static const double GOLDEN_BF16 = 1e-1; /* of ImageReward, whose scores are near 0: 6.1e-2; others 1e-2 */

static inline double golden_distance(const float *found, const float *expected, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += pow((double)found[i] - (double)expected[i], 2);
        size += pow((double)expected[i], 2);
    }
    return sqrt(difference / size);
}

static inline float *golden_load(const struct draft_safetensors *file, const char *prefix, const char *name,
                                 int64_t *dim)
{
    char key[64];
    struct draft_error err = {0};
    snprintf(key, sizeof key, "%s/%s", prefix, name);
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, key);
    if (entry == NULL)
        fail_msg("the fixture has no %s", key);
    float *values = malloc(entry->bytes);
    if (!draft_safetensors_to_f32(entry, values, &err))
        fail_msg("%s", err.message);
    if (dim != NULL)
        memcpy(dim, entry->dim, (size_t)entry->rank * sizeof *dim);
    return values;
}

static inline void golden_check(struct reward_case *c, const char *path, const char *name)
{
    struct draft_error err = {0};
    int64_t dim[8];
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    if (file == NULL)
        fail_msg("%s", err.message);
    float *image = golden_load(file, name, "image", dim), *reward = golden_load(file, name, "reward", NULL);
    float *gradient = golden_load(file, name, "d_image", NULL);
    int64_t n = dim[0] * dim[1] * dim[2] * dim[3];
    float *found = calloc((size_t)n, sizeof *found), score[2], seed[] = {1, -2};
    reward_score(c, image, dim[0], dim[1], dim[2], golden_prompts, score, seed, found);
    bool half = c->g.activations == DRAFT_BF16;
    if (!(golden_distance(score, reward, 2) <= (half ? GOLDEN_BF16 : 2e-5)) ||
        !(golden_distance(found, gradient, n) <= (half ? GOLDEN_BF16 : 1e-4)))
        fail_msg("%s: reward %.8g and %.8g, expected %.8g and %.8g; gradient's relative error %g", name,
                 (double)score[0], (double)score[1], (double)reward[0], (double)reward[1],
                 golden_distance(found, gradient, n));
    free(image);
    free(reward);
    free(gradient);
    free(found);
    draft_safetensors_close(file);
}

static inline void golden_check_sizes(const char *spec, const char *path)
{
    struct reward_case c;
    reward_open(&c, spec);
    golden_check(&c, path, "wide");
    golden_check(&c, path, "tall");
    golden_check(&c, path, "odd");
    golden_check(&c, path, "same");
    assert_int_equal(draft_arena_live(c.step), 0);
    reward_close(&c);
}

/* --- A folder of one's own ------------------------------------------------------------------------------------------
 */

static char golden_folder[64];

static inline int golden_set_up(void **state)
{
    (void)state;
    strcpy(golden_folder, "/tmp/draft-reward-XXXXXX");
    return mkdtemp(golden_folder) == NULL;
}

static inline const char *golden_path(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", golden_folder, name);
    return path;
}

static inline void golden_link(const char *fixture, const char *name, const char *as)
{
    char from[500];
    snprintf(from, sizeof from, FIXTURES "/rewards/%s/%s", fixture, name);
    unlink(golden_path(as));
    assert_int_equal(symlink(from, golden_path(as)), 0);
}

static inline void golden_write(const char *name, const char *text, size_t length)
{
    unlink(golden_path(name));
    FILE *file = fopen(golden_path(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static inline void golden_remove(const char *const *names)
{
    for (; *names != NULL; names++)
        unlink(golden_path(*names));
    assert_int_equal(rmdir(golden_folder), 0);
}

enum golden_damage { GOLDEN_KEEP, GOLDEN_DROP, GOLDEN_RESHAPE, GOLDEN_ADD, GOLDEN_NAN, GOLDEN_ZERO };

/* A copy of the fixture's weights with one tensor damaged. */
static inline void golden_damage(const char *fixture, const char *name, enum golden_damage damage, const char *tensor)
{
    enum { MAX = 512 };
    static struct draft_safetensors_item item[MAX];
    char from[500];
    struct draft_error err = {0};
    snprintf(from, sizeof from, FIXTURES "/rewards/%s/%s", fixture, name);
    struct draft_safetensors *file = draft_safetensors_open(from, &err);
    assert_non_null(file);
    int count = 0;
    bool found = damage == GOLDEN_ADD || damage == GOLDEN_KEEP;
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(file, i);
        bool this_one = strcmp(e->name, tensor) == 0;
        found |= this_one;
        if (this_one && damage == GOLDEN_DROP)
            continue;
        assert_true(count < MAX - 1);
        item[count] = (struct draft_safetensors_item){.name = e->name, .rank = e->rank};
        size_t n = 1;
        for (int k = 0; k < e->rank; k++)
            n *= (size_t)(item[count].dim[k] = e->dim[k]);
        if (e->dtype == DRAFT_I64) {
            item[count].dtype = DRAFT_I64;
            item[count].data = memcpy(malloc(e->bytes), e->data, e->bytes);
        } else {
            float *values = malloc(n * sizeof *values);
            assert_true(draft_safetensors_to_f32(e, values, &err));
            if (this_one && damage == GOLDEN_NAN)
                values[n / 2] = NAN;
            if (this_one && damage == GOLDEN_ZERO)
                memset(values, 0, n * sizeof *values);
            item[count].data = values;
        }
        if (this_one && damage == GOLDEN_RESHAPE) {
            item[count].rank = 3;
            item[count].dim[0] = item[count].dim[1] = 1;
            item[count].dim[2] = (int64_t)n;
        }
        count++;
    }
    if (damage == GOLDEN_ADD)
        item[count++] =
            (struct draft_safetensors_item){.name = tensor, .rank = 1, .dim = {3}, .data = calloc(3, sizeof(float))};
    assert_true(found);
    unlink(golden_path(name));
    if (!draft_safetensors_write(golden_path(name), item, count, NULL, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < count; i++)
        free((void *)item[i].data);
    draft_safetensors_close(file);
}

/* Opens the own folder as `kind` with `options`: refused with `words`, or taken when `words` is NULL. */
static inline void golden_opens(const char *kind, const char *options, const char *words)
{
    struct draft_error err = {0};
    struct draft_reward_spec spec = {.weight = 1};
    struct draft_arena *arena = draft_arena_create("engine", (size_t)1 << 28, &err);
    snprintf(spec.kind, sizeof spec.kind, "%s", kind);
    snprintf(spec.path, sizeof spec.path, "%s", golden_folder);
    snprintf(spec.options, sizeof spec.options, "%s", options);
    struct draft_reward *reward = draft_reward_kind_find(kind)->open(&spec, arena, &err);
    if ((words == NULL) != (reward != NULL) || (words != NULL && strstr(err.message, words) == NULL))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words != NULL ? words : "(nothing)");
    if (reward != NULL)
        reward->kind->close(reward);
    draft_arena_destroy(arena);
}

#endif
