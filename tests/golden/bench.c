#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/open.h"
#include "golden.h"

static const size_t ARENA_BYTES = (size_t)16 << 30; /* address space, not memory */

bool golden_open(struct golden *t, const struct golden_options *options, const char *target)
{
    *t = (struct golden){.options = options, .forward_bound = 2e-5, .gradient_bound = 1e-4};
    if (options->full_size) {
        t->forward_bound = 5e-5;
        t->gradient_bound = 5e-4;
    }
    size_t length = strlen(target);
    while (length > 0 && target[length - 1] == '/')
        length--;
    if (length >= 4 && strncmp(target + length - 4, "_eps", 4) == 0) {
        t->forward_bound = 1e-4; /* tiny activations: fp32 itself is off by 1.2e-5 */
        t->gradient_bound = 1e-3;
    }
    if (options->bf16 || (options->isa && strcmp(options->isa, "x86-64-v4-bf16") == 0)) {
        t->forward_bound = 3e-2;  /* 8 bits a factor: up to 1.6e-2 on these models, 3.4e-3 on a full-size UNet */
        t->gradient_bound = 2e-1; /* up to 0.12, where a gradient is a small difference */
    }
    struct draft_backend_options how = {.threads = options->threads, .isa = options->isa, .bf16 = options->bf16};
    const char *device = options->device ? options->device : "cpu";
    t->backend = draft_backend_open(device, NULL, &how, &draft_services, &t->error);
    if (t->backend == NULL)
        return false;
    t->weights = draft_arena_create("weights", ARENA_BYTES, &t->error);
    t->step = draft_backend_arena(t->backend, "step", ARENA_BYTES, &t->error);
    t->parameters = draft_backend_arena(t->backend, "parameters", ARENA_BYTES, &t->error);
    if (t->weights == NULL || t->step == NULL || t->parameters == NULL)
        return false;
    if (!draft_graph_init(&t->g, t->backend, t->step, &t->error))
        return false;
    if (options->bf16 && !draft_backend_on_host(t->backend))
        t->g.activations = DRAFT_BF16;
    return true;
}

void golden_close(struct golden *t)
{
    if (t->g.tape != NULL)
        draft_graph_finish(&t->g);
    draft_arena_destroy(t->parameters);
    draft_arena_destroy(t->step);
    draft_arena_destroy(t->weights);
    if (t->backend != NULL)
        draft_backend_destroy(t->backend);
}

void golden_row(struct golden *t, enum golden_group group, double error, double bound, const char *name, ...)
{
    char text[256];
    va_list list;
    va_start(list, name);
    vsnprintf(text, sizeof text, name, list);
    va_end(list);
    bool ok = error <= bound; /* false for NaN */
    printf("  %-92s %9.2e  <= %7.1e  %s\n", text, error, bound, ok ? "ok" : "PAST THE BOUND");
    t->rows++;
    t->failures += !ok;
    double *worst = group == GOLDEN_FORWARD ? &t->worst_forward : &t->worst_gradient;
    if (group != GOLDEN_OTHER && !(error <= *worst))
        *worst = error;
}

void golden_note(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("  ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

void golden_fail(struct golden *t, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("  FAILED: ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
    t->failures++;
}

bool golden_ok(struct golden *t)
{
    const struct draft_error *error = t->error.code != DRAFT_OK ? &t->error : &t->g.error;
    if (error->code == DRAFT_OK)
        return true;
    golden_fail(t, "%s", error->message);
    return false;
}

double golden_relative(const float *ours, const float *ref, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)ours[i] - ref[i];
        difference += d * d;
        size += (double)ref[i] * ref[i];
    }
    if (size == 0)
        return difference == 0 ? 0 : INFINITY;
    return sqrt(difference / size);
}

static const struct draft_safetensors_entry *entry_of(struct golden *t, const struct draft_safetensors *file,
                                                      const char *name)
{
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, name);
    if (entry == NULL)
        golden_fail(t, "%s has no tensor %s", draft_safetensors_path(file), name);
    return entry;
}

static int64_t count_of(const struct draft_safetensors_entry *entry)
{
    int64_t n = 1;
    for (int i = 0; i < entry->rank; i++)
        n *= entry->dim[i];
    return n;
}

/* [a, b, h, w] -> [a, h, w, b] */
static void channels_last(const float *in, const int64_t *dim, float *out)
{
    int64_t channels = dim[1], positions = dim[2] * dim[3];
    for (int64_t a = 0; a < dim[0]; a++)
        for (int64_t p = 0; p < positions; p++)
            for (int64_t c = 0; c < channels; c++)
                out[(a * positions + p) * channels + c] = in[(a * channels + c) * positions + p];
}

float *golden_plain(struct golden *t, const struct draft_safetensors *file, const char *name, int64_t *count)
{
    const struct draft_safetensors_entry *entry = entry_of(t, file, name);
    if (entry == NULL)
        return NULL;
    size_t n = (size_t)count_of(entry);
    float *out = malloc(n * sizeof *out + 1);
    if (out == NULL || !draft_safetensors_to_f32(entry, out, &t->error)) {
        free(out);
        golden_fail(t, "cannot read %s: %s", name, t->error.message);
        return NULL;
    }
    if (count != NULL)
        *count = (int64_t)n;
    return out;
}

float *golden_numbers(struct golden *t, const struct draft_safetensors *file, const char *name, int64_t *count)
{
    int64_t n;
    float *plain = golden_plain(t, file, name, &n);
    if (count != NULL)
        *count = plain != NULL ? n : 0;
    if (plain == NULL || draft_safetensors_find(file, name)->rank != 4)
        return plain;
    float *out = malloc((size_t)n * sizeof *out + 1);
    if (out != NULL)
        channels_last(plain, draft_safetensors_find(file, name)->dim, out);
    free(plain);
    return out;
}

bool golden_give(struct golden *t, struct draft_tensor *x, const float *numbers)
{
    float *to = draft_write(&t->g, x);
    if (to == NULL)
        return false;
    memcpy(to, numbers, (size_t)draft_tensor_count(x) * sizeof *numbers);
    return draft_written(&t->g, x, to);
}

const float *golden_gradient(struct golden *t, const struct draft_tensor *of)
{
    size_t bytes = (size_t)draft_tensor_count(of) * sizeof(float);
    if (!of->grad_written || draft_backend_on_host(t->backend))
        return of->grad_written ? of->grad : NULL;
    float *copy = draft_note(&t->g, bytes);
    return copy != NULL && draft_backend_download(t->backend, copy, of->grad, bytes, &t->error) ? copy : NULL;
}

struct draft_tensor *golden_input(struct golden *t, const struct draft_safetensors *file, const char *name)
{
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, name);
    float *numbers = golden_numbers(t, file, name, NULL);
    if (numbers == NULL)
        return NULL;
    int64_t dim[DRAFT_MAX_RANK] = {0};
    struct draft_tensor *x = NULL;
    if (entry->rank > DRAFT_MAX_RANK) {
        golden_fail(t, "%s has %d dimensions", name, entry->rank);
    } else {
        memcpy(dim, entry->dim, (size_t)entry->rank * sizeof *dim);
        if (entry->rank == 4) {
            dim[1] = entry->dim[2];
            dim[2] = entry->dim[3];
            dim[3] = entry->dim[1];
        }
        x = draft_new(&t->g, DRAFT_F32, entry->rank, dim);
    }
    bool given = golden_give(t, x, numbers);
    free(numbers);
    return given ? x : NULL;
}

bool golden_integers(struct golden *t, const struct draft_safetensors *file, const char *name, int64_t **out,
                     int64_t *count)
{
    const struct draft_safetensors_entry *entry = entry_of(t, file, name);
    if (entry == NULL)
        return false;
    if (entry->dtype != DRAFT_I64) {
        golden_fail(t, "%s is not I64", name);
        return false;
    }
    *count = count_of(entry);
    *out = malloc(entry->bytes + 1);
    if (*out == NULL)
        return false;
    memcpy(*out, entry->data, entry->bytes);
    return true;
}

static void compare(struct golden *t, const struct draft_safetensors *file, const char *name, const float *ours,
                    int64_t n, enum golden_group group)
{
    int64_t count;
    float *ref = golden_numbers(t, file, name, &count);
    if (ref == NULL)
        return;
    if (ours == NULL)
        golden_fail(t, "%s: there is nothing of ours to compare", name);
    else if (count != n)
        golden_fail(t, "%s has %lld numbers, ours %lld", name, (long long)count, (long long)n);
    else
        golden_row(t, group, golden_relative(ours, ref, n),
                   group == GOLDEN_GRADIENT ? t->gradient_bound : t->forward_bound, "%s", name);
    free(ref);
}

void golden_compare(struct golden *t, const struct draft_safetensors *file, const char *name,
                    const struct draft_tensor *ours)
{
    compare(t, file, name, draft_read(&t->g, ours), ours != NULL ? draft_tensor_count(ours) : 0, GOLDEN_FORWARD);
}

void golden_compare_gradient(struct golden *t, const struct draft_safetensors *file, const char *name,
                             const struct draft_tensor *of)
{
    compare(t, file, name, golden_gradient(t, of), draft_tensor_count(of), GOLDEN_GRADIENT);
}

bool golden_load_adapter(struct golden *t, const struct draft_safetensors *file, const char *prefix,
                         struct draft_adapter *adapter, bool moved)
{
    for (int i = 0; i < adapter->count; i++) {
        const struct draft_adapter_entry *entry = &adapter->entry[i];
        struct draft_tensor *half[] = {entry->lora.down, entry->lora.up};
        static const char *const NAME[] = {"down", "up"};
        for (int k = 0; k < 2; k++) {
            char key[320];
            int64_t n = draft_tensor_count(half[k]), given = n;
            snprintf(key, sizeof key, "%s/%s.lora.%s.weight", prefix, entry->module, NAME[k]);
            float *values = draft_safetensors_find(file, key) != NULL ? golden_plain(t, file, key, &given)
                                                                      : calloc((size_t)n, sizeof *values);
            bool ok = values != NULL && given == n;
            if (ok && moved)
                ok = draft_backend_upload(t->backend, half[k]->data, values, (size_t)n * sizeof *values, &t->error);
            else if (ok)
                memcpy(half[k]->data, values, (size_t)n * sizeof *values);
            free(values);
            if (!ok)
                return false;
        }
    }
    return true;
}

const char *golden_companion(const struct golden *t, const char *member, const char *below, char *buffer, size_t size)
{
    const char *roots[] = {t->options->with, t->options->with, DEMO};
    const char *places[] = {"", below, below};
    char path[4096];
    for (int i = 0; i < 3; i++) {
        if (roots[i] == NULL)
            continue;
        snprintf(buffer, size, "%s/%s", roots[i], places[i]);
        snprintf(path, sizeof path, "%s/%s", buffer, member);
        if (access(path, R_OK) == 0)
            return buffer;
    }
    return buffer; /* the demo's; whoever opens it says what is missing */
}
