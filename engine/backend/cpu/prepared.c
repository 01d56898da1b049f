/*
 * tensor->prepared is not an address but the number under which this backend keeps the weight's forms: a tensor may
 * outlive the backend, or die before it, in any order.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/state.h"

struct forms {
    float *form[DRAFT_FORMS];
    size_t bytes[DRAFT_FORMS];
    bool used;
};

struct draft_prepared_table {
    uint32_t serial; /* of this backend, never 0 */
    struct forms *entry;
    uint32_t count, capacity;
    size_t bytes;
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

static void release(struct draft_prepared_table *table, struct forms *forms)
{
    for (int i = 0; i < DRAFT_FORMS; i++) {
        free(forms->form[i]);
        table->bytes -= forms->bytes[i];
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

static struct forms *find(struct draft_prepared_table *table, const struct draft_tensor *w)
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

const float *draft_prepared_get(struct draft_backend *backend, struct draft_tensor *w, enum draft_form form,
                                int64_t floats, draft_make_form make, void *context, float *scratch,
                                struct draft_error *err)
{
    if (w->needs_grad) {
        make(backend, w, context, scratch);
        return scratch;
    }
    struct draft_prepared_table *table = backend->prepared;
    struct forms *forms = find(table, w);
    if (!forms)
        forms = add(table, w, err);
    if (!forms)
        return NULL;
    if (!forms->form[form]) {
        size_t bytes = (size_t)floats * sizeof(float);
        float *memory = draft_aligned(bytes, "a packed weight", err);
        if (!memory)
            return NULL;
        make(backend, w, context, memory);
        forms->form[form] = memory;
        forms->bytes[form] = bytes;
        table->bytes += bytes;
    }
    assert(forms->bytes[form] == (size_t)floats * sizeof(float));
    return forms->form[form];
}

void draft_prepared_forget(struct draft_backend *backend, struct draft_tensor *weight)
{
    struct forms *forms = find(backend->prepared, weight);
    if (forms) {
        release(backend->prepared, forms);
        forms->used = true; /* the number stays the weight's */
    }
}

size_t draft_prepared_bytes(const struct draft_backend *backend)
{
    return backend->prepared->bytes;
}
