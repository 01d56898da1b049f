/*
 * The packed forms of weights: which are kept, and the table of those.
 *
 * tensor->prepared is not an address but the number under which this backend keeps the weight's forms: a tensor may
 * outlive the backend, or die before it, in any order.
 *
 * What is kept. Making a form costs about 0.5 ns a number on one core (read, widen, pack), and a product of m rows 2m
 * operations a number, 10 ps each: packing for one use costs some 50/m of the product. A weight of the UNet is used at
 * every denoising step, at 64 to 4096 rows a picture: always kept, in one form. What is used once a training step (the
 * backward pass at K = 1, the VAE, the towers of a reward model) is 1/T of the work, and making its forms anew each
 * time a few percent of that. The Winograd transforms are four times the weight. Made from the kept form at each use,
 * panel by panel in the cache, one costs a quarter of its product at 16x16 (CFG pair) and next to nothing at 64x64. At
 * 8x8 it is made at each use in any case, which takes less time than to read it. For Stable Diffusion 1.5 with a CLIP-H
 * reward:
 *
 *   one form of the UNet's weights     3.4 GB   always kept
 *   its Winograd transforms            6    GB more, and as much for the backward pass      \
 *   its backward panels                2.4 GB                                                > kept up to backend->keep
 *   VAE, text encoder, CLIP-H tower    0.2 + 0.5 + 2.5 GB, and as much for the backward pass /
 *
 * Forms of the UNet's weights when they are trained are kept too, as far as backend->keep goes: from one update, whose
 * maker calls draft_backend_forget(), to the next, for all of the steps between.
 *
 * Which of them are kept changes no number: a form is the same whoever asks for it.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/state.h"
#include "tensor/weight_source.h"

struct forms {
    void *form[DRAFT_FORMS];
    size_t bytes[DRAFT_FORMS];
    uint64_t run[DRAFT_FORMS]; /* of the recipe it was made by */
    bool needed[DRAFT_FORMS];  /* is_needed() when it was made */
    bool used;
};

struct draft_prepared_table {
    uint32_t serial; /* of this backend, never 0 */
    struct forms *entry;
    uint32_t count, capacity;
    size_t bytes, optional; /* all; of forms that need not be kept */
};

struct draft_prepared_table *draft_prepared_create(struct draft_error *err)
{
    static _Atomic uint32_t serials;
    struct draft_prepared_table *table = calloc(1, sizeof(*table));
    if (!table) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of prepared weights");
        return NULL;
    }
    table->serial = atomic_fetch_add(&serials, 1) + 1;
    return table;
}

static const uint64_t HALF_MADE = UINT64_MAX; /* no run: whoever comes next makes it again */
static char counted; /* stands for every form on a dry backend: nobody looks behind the address */

/* A trained weight is in memory as it is: its forms only save time. */
static bool is_needed(const struct draft_tensor *w, enum draft_form form)
{
    return w->every_step && !w->needs_grad &&
           (form == DRAFT_FORM_ROWS || form == DRAFT_FORM_FORWARD || form == DRAFT_FORM_FORWARD_PAIRS);
}

static void release(struct draft_prepared_table *table, struct forms *forms)
{
    for (int i = 0; i < DRAFT_FORMS; i++) {
        if (forms->form[i] != &counted)
            free(forms->form[i]);
        table->bytes -= forms->bytes[i];
        table->optional -= forms->needed[i] ? 0 : forms->bytes[i];
    }
    *forms = (struct forms){0};
}

void draft_prepared_destroy(struct draft_prepared_table *table)
{
    if (!table)
        return;
    for (uint32_t i = 0; i < table->count; i++)
        release(table, &table->entry[i]);
    free(table->entry);
    free(table);
}

static struct forms *find(const struct draft_prepared_table *table, const struct draft_tensor *w)
{
    uint64_t number = (uint64_t)(uintptr_t)w->prepared;
    uint32_t index = (uint32_t)number;
    if (number >> 32 != table->serial || index >= table->count || !table->entry[index].used)
        return NULL;
    return &table->entry[index];
}

static struct forms *add(struct draft_prepared_table *table, struct draft_tensor *w, struct draft_error *err)
{
    static_assert(sizeof(void *) == 8, "the number of a prepared weight needs 64 bits");
    if (table->count == table->capacity) {
        uint32_t capacity = table->capacity ? 2 * table->capacity : 256;
        struct forms *entry = realloc(table->entry, capacity * sizeof(*entry));
        if (!entry) {
            draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of prepared weights");
            return NULL;
        }
        table->entry = entry;
        table->capacity = capacity;
    }
    struct forms *forms = &table->entry[table->count];
    *forms = (struct forms){.used = true};
    w->prepared = (void *)(uintptr_t)((uint64_t)table->serial << 32 | table->count);
    table->count++;
    return forms;
}

bool draft_prepared_has(const struct draft_backend *backend, const struct draft_tensor *w, enum draft_form form)
{
    const struct forms *forms = find(backend->prepared, w);
    return forms && forms->form[form];
}

bool draft_prepared_keeps(const struct draft_backend *backend, const struct draft_tensor *w, enum draft_form form,
                          size_t bytes)
{
    const struct draft_prepared_table *table = backend->prepared;
    if (w->needs_grad && !w->every_step) /* whoever changes a trained weight of every step says so; others need not */
        return false;
    if (is_needed(w, form) || draft_prepared_has(backend, w, form))
        return true;
    return bytes <= backend->keep && table->optional <= backend->keep - bytes;
}

static bool make(struct draft_backend *backend, const struct draft_tensor *w, const struct draft_recipe *recipe,
                 void *form, struct draft_error *err)
{
    return backend->head.dry ||
           (recipe->make(backend, w, recipe->context, form, err) && draft_weight_unchanged(w, err));
}

const void *draft_prepared_borrow(struct draft_backend *backend, struct draft_tensor *w,
                                  const struct draft_recipe *recipe, void *scratch, struct draft_error *err)
{
    const struct forms *forms = find(backend->prepared, w);
    if (forms && forms->form[recipe->form] && forms->run[recipe->form] == recipe->run)
        return forms->form[recipe->form];
    return make(backend, w, recipe, scratch, err) ? scratch : NULL;
}

const void *draft_prepared_get(struct draft_backend *backend, struct draft_tensor *w, const struct draft_recipe *recipe,
                               void *scratch, struct draft_error *err)
{
    if (recipe->form == DRAFT_FORM_ROWS && w->data)
        return w->data;
    if (!draft_prepared_keeps(backend, w, recipe->form, recipe->bytes))
        return draft_prepared_borrow(backend, w, recipe, scratch, err);
    struct draft_prepared_table *table = backend->prepared;
    struct forms *forms = find(table, w);
    if (!forms)
        forms = add(table, w, err);
    if (!forms)
        return NULL;
    if (!forms->form[recipe->form]) {
        void *memory = backend->head.dry ? &counted : draft_aligned(recipe->bytes, "a packed weight", err);
        if (!memory || !make(backend, w, recipe, memory, err)) {
            free(memory);
            return NULL;
        }
        forms->form[recipe->form] = memory;
        forms->bytes[recipe->form] = recipe->bytes;
        forms->run[recipe->form] = recipe->run;
        table->bytes += recipe->bytes;
        forms->needed[recipe->form] = is_needed(w, recipe->form);
        table->optional += forms->needed[recipe->form] ? 0 : recipe->bytes;
    }
    assert(forms->bytes[recipe->form] == recipe->bytes);
    if (forms->run[recipe->form] != recipe->run) { /* in the same memory */
        forms->run[recipe->form] = HALF_MADE;
        if (!make(backend, w, recipe, forms->form[recipe->form], err))
            return NULL;
        forms->run[recipe->form] = recipe->run;
    }
    return forms->form[recipe->form];
}

const void *draft_form_of(struct draft_backend *backend, struct draft_tensor *w, const struct draft_recipe *recipe,
                          struct draft_error *err)
{
    if (!draft_scratch_reserve(backend, draft_prepared_scratch(backend, w, recipe), 0, err))
        return NULL;
    return draft_prepared_get(backend, w, recipe, draft_scratch_shared(backend), err);
}

void draft_prepared_forget(struct draft_backend *backend, struct draft_tensor *weight)
{
    struct forms *forms = find(backend->prepared, weight);
    if (forms) {
        release(backend->prepared, forms);
        forms->used = true; /* the number stays the weight's */
    }
}

void draft_prepared_keep(struct draft_backend *backend, size_t bytes)
{
    backend->keep = bytes;
}

size_t draft_prepared_bytes(const struct draft_backend *backend)
{
    return backend->prepared->bytes;
}
