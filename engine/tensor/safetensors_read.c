#include "tensor/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/half.h"

enum { MAX_HEADER = 8000000, MAX_NAME = 512 };

struct draft_safetensors {
    char *path;
    int descriptor;
    const unsigned char *map;
    size_t size;
    struct timespec changed;                 /* when opened */
    json_t *header;                          /* owns names and metadata */
    struct draft_safetensors_entry *entries; /* sorted by name */
    int count;
};

static bool refuse(const struct draft_safetensors *file, struct draft_error *err, const char *what)
{
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a sound safetensors file: %s", file->path, what);
}

static bool refuse_entry(const struct draft_safetensors *file, const char *name, struct draft_error *err,
                         const char *what)
{
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a sound safetensors file: %s %s", file->path, name, what);
}

static bool map_file(struct draft_safetensors *file, struct draft_error *err)
{
    file->descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (file->descriptor < 0)
        return draft_fail_errno(err, "cannot open %s", file->path);
    struct stat status;
    if (fstat(file->descriptor, &status) != 0)
        return draft_fail_errno(err, "cannot read %s", file->path);
    if (!S_ISREG(status.st_mode))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s is not a regular file", file->path);
    if (status.st_size < 8)
        return refuse(file, err, "it is shorter than 8 bytes; is the download complete?");
    file->size = (size_t)status.st_size;
    file->changed = status.st_mtim;
    void *map = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, file->descriptor, 0);
    if (map == MAP_FAILED)
        return draft_fail_errno(err, "cannot map %s", file->path);
    file->map = map;
    return true;
}

/* pread until all is there: a short file is an error value here, never a fault. */
static bool read_at(const struct draft_safetensors *file, void *out, size_t bytes, uint64_t offset,
                    struct draft_error *err)
{
    while (bytes > 0) {
        ssize_t got = pread(file->descriptor, out, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return draft_fail_errno(err, "cannot read %s", file->path);
        if (got == 0)
            return draft_fail(err, DRAFT_DATA_LOSS, "%s became shorter while it was read", file->path);
        out = (unsigned char *)out + got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool read_header(struct draft_safetensors *file, size_t *data_start, struct draft_error *err)
{
    unsigned char raw[8];
    uint64_t length = 0;
    if (!read_at(file, raw, sizeof raw, 0, err))
        return false;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | raw[i];
    if (length > MAX_HEADER)
        return refuse(file, err, "its header claims more than 8 MB");
    if (length > file->size - 8)
        return refuse(file, err, "its header is longer than the file; is the download complete?");
    *data_start = 8 + (size_t)length;

    char *text = malloc((size_t)length + 1);
    if (text == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", file->path);
    json_error_t why = {.text = ""};
    bool ok = read_at(file, text, (size_t)length, 8, err);
    if (ok)
        file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &why);
    free(text);
    if (!ok)
        return false;
    if (file->header == NULL)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s is not a sound safetensors file: its header is not JSON (byte %d: %s)", file->path,
                          why.position, why.text);
    if (!json_is_object(file->header))
        return refuse(file, err, "its header is not a JSON object");
    return true;
}

static bool check_metadata(const struct draft_safetensors *file, struct draft_error *err)
{
    json_t *metadata = json_object_get(file->header, "__metadata__"), *value;
    const char *key;
    if (metadata == NULL)
        return true;
    if (!json_is_object(metadata))
        return refuse(file, err, "__metadata__ is not an object");
    json_object_foreach (metadata, key, value)
        if (!json_is_string(value))
            return refuse(file, err, "__metadata__ holds something that is not a string");
    return true;
}

static bool name_is_clean(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > MAX_NAME)
        return false;
    for (const unsigned char *p = (const unsigned char *)name; *p != '\0'; p++)
        if (*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

/* A non-negative integer of the header. */
static bool natural(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_shape(const struct draft_safetensors *file, const json_t *shape, struct draft_safetensors_entry *entry,
                       uint64_t *bytes, struct draft_error *err)
{
    if (!json_is_array(shape))
        return refuse_entry(file, entry->name, err, "has no shape");
    if (json_array_size(shape) > 8)
        return refuse_entry(file, entry->name, err, "has more than 8 dimensions");
    entry->rank = (int)json_array_size(shape);
    *bytes = draft_dtype_size(entry->dtype);
    for (int i = 0; i < entry->rank; i++) {
        uint64_t dim;
        if (!natural(json_array_get(shape, (size_t)i), &dim))
            return refuse_entry(file, entry->name, err, "has a dimension that is not a natural number");
        if (__builtin_mul_overflow(*bytes, dim, bytes) || *bytes > INT64_MAX)
            return refuse_entry(file, entry->name, err, "has a shape too large to exist");
        entry->dim[i] = (int64_t)dim;
    }
    return true;
}

static bool read_dtype(const struct draft_safetensors *file, const json_t *dtype, struct draft_safetensors_entry *entry,
                       struct draft_error *err)
{
    const char *spelled = json_string_value(dtype);
    if (spelled == NULL)
        return refuse_entry(file, entry->name, err, "has no dtype");
    for (int i = DRAFT_F32; i <= DRAFT_F64; i++) {
        if (strcmp(spelled, draft_dtype_name((enum draft_dtype)i)) == 0) {
            entry->dtype = (enum draft_dtype)i;
            return true;
        }
    }
    return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                      "%s: %s is stored as %.20s, this engine reads F32, F16, BF16, F64, I32 and I64", file->path,
                      entry->name, name_is_clean(spelled) ? spelled : "an unknown dtype");
}

static bool read_entry(const struct draft_safetensors *file, size_t data_start, const char *name, const json_t *value,
                       struct draft_safetensors_entry *entry, struct draft_error *err)
{
    uint64_t begin, end, bytes = 0;
    if (!name_is_clean(name))
        return refuse(file, err, "a tensor's name is empty, longer than 512 bytes or holds control characters");
    *entry = (struct draft_safetensors_entry){.name = name, .file = file};
    if (!json_is_object(value) || json_object_size(value) != 3)
        return refuse_entry(file, name, err, "is not described by dtype, shape and data_offsets alone");
    if (!read_dtype(file, json_object_get(value, "dtype"), entry, err) ||
        !read_shape(file, json_object_get(value, "shape"), entry, &bytes, err))
        return false;
    const json_t *offsets = json_object_get(value, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !natural(json_array_get(offsets, 0), &begin) ||
        !natural(json_array_get(offsets, 1), &end) || begin > end)
        return refuse_entry(file, name, err, "has no pair of data_offsets in order");
    if (end > file->size - data_start)
        return refuse_entry(file, name, err, "lies beyond the end of the file; is the download complete?");
    if (end - begin != bytes)
        return refuse_entry(file, name, err, "takes another number of bytes than its shape and dtype say");
    entry->bytes = (size_t)bytes;
    entry->offset = data_start + begin;
    entry->data = file->map + entry->offset;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct draft_safetensors_entry *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first */
}

static int by_name(const void *a, const void *b)
{
    const struct draft_safetensors_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Every data byte belongs to exactly one tensor. */
static bool check_layout(struct draft_safetensors *file, size_t data_start, struct draft_error *err)
{
    uint64_t at = data_start;
    if (file->count > 0)
        qsort(file->entries, (size_t)file->count, sizeof *file->entries, by_place);
    for (int i = 0; i < file->count; i++) {
        const struct draft_safetensors_entry *entry = &file->entries[i];
        if (entry->offset < at)
            return refuse_entry(file, entry->name, err, "overlaps another tensor");
        if (entry->offset > at)
            return refuse_entry(file, entry->name, err, "follows a hole in the data");
        at += entry->bytes;
    }
    if (at != file->size)
        return refuse(file, err, "bytes at its end belong to no tensor");
    return true;
}

static bool load(struct draft_safetensors *file, struct draft_error *err)
{
    size_t data_start;
    if (!map_file(file, err) || !read_header(file, &data_start, err) || !check_metadata(file, err))
        return false;
    size_t most = json_object_size(file->header);
    file->entries = calloc(most > 0 ? most : 1, sizeof *file->entries);
    if (file->entries == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", file->path);
    const char *name;
    json_t *value;
    json_object_foreach (file->header, name, value) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (!read_entry(file, data_start, name, value, &file->entries[file->count], err))
            return false;
        file->count++;
    }
    if (!check_layout(file, data_start, err))
        return false;
    if (file->count > 0)
        qsort(file->entries, (size_t)file->count, sizeof *file->entries, by_name);
    return true;
}

struct draft_safetensors *draft_safetensors_open(const char *path, struct draft_error *err)
{
    struct draft_safetensors *file = calloc(1, sizeof *file);
    char *copy = strdup(path);
    if (file == NULL || copy == NULL) {
        free(file);
        free(copy);
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
        return NULL;
    }
    file->path = copy;
    file->descriptor = -1;
    if (load(file, err))
        return file;
    draft_safetensors_close(file);
    return NULL;
}

void draft_safetensors_close(struct draft_safetensors *file)
{
    if (file == NULL)
        return;
    if (file->map != NULL)
        munmap((void *)file->map, file->size);
    if (file->descriptor >= 0)
        close(file->descriptor);
    json_decref(file->header);
    free(file->entries);
    free(file->path);
    free(file);
}

int draft_safetensors_count(const struct draft_safetensors *file)
{
    return file->count;
}

const char *draft_safetensors_path(const struct draft_safetensors *file)
{
    return file->path;
}

const struct draft_safetensors_entry *draft_safetensors_at(const struct draft_safetensors *file, int index)
{
    assert(index >= 0 && index < file->count);
    return &file->entries[index];
}

const struct draft_safetensors_entry *draft_safetensors_find(const struct draft_safetensors *file, const char *name)
{
    struct draft_safetensors_entry wanted = {.name = name};
    if (file->count == 0)
        return NULL;
    return bsearch(&wanted, file->entries, (size_t)file->count, sizeof *file->entries, by_name);
}

const char *draft_safetensors_metadata(const struct draft_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

static void widen(enum draft_dtype dtype, const unsigned char *raw, float *out, size_t n)
{
    uint16_t half;
    double wide;
    switch (dtype) {
    case DRAFT_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, raw + 2 * i, 2);
            out[i] = draft_f16_to_f32(half);
        }
        break;
    case DRAFT_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, raw + 2 * i, 2);
            out[i] = draft_bf16_to_f32(half);
        }
        break;
    case DRAFT_F64:
        for (size_t i = 0; i < n; i++) {
            memcpy(&wide, raw + 8 * i, 8);
            out[i] = (float)wide;
        }
        break;
    default:
        assert(false && "checked by the caller");
    }
}

static bool check_float(const struct draft_safetensors_entry *entry, struct draft_error *err)
{
    if (entry->dtype == DRAFT_I32 || entry->dtype == DRAFT_I64)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is stored as %s, expected F32, F16, BF16 or F64",
                          entry->file->path, entry->name, draft_dtype_name(entry->dtype));
    return true;
}

bool draft_safetensors_read_f32(const struct draft_safetensors_entry *entry, int64_t first, int64_t count, float *out,
                                struct draft_error *err)
{
    if (!check_float(entry, err))
        return false;
    size_t element = draft_dtype_size(entry->dtype), bytes = (size_t)count * element;
    uint64_t offset = entry->offset + (uint64_t)first * element;
    assert(first >= 0 && count >= 0 && (size_t)first * element + bytes <= entry->bytes);
    if (entry->dtype == DRAFT_F32)
        return read_at(entry->file, out, bytes, offset, err);
    unsigned char piece[1 << 16];
    for (size_t done = 0; done < bytes; done += sizeof piece) {
        size_t now = bytes - done < sizeof piece ? bytes - done : sizeof piece;
        if (!read_at(entry->file, piece, now, offset + done, err))
            return false;
        widen(entry->dtype, piece, out + done / element, now / element);
    }
    return true;
}

bool draft_safetensors_to_f32(const struct draft_safetensors_entry *entry, float *out, struct draft_error *err)
{
    return draft_safetensors_read_f32(entry, 0, (int64_t)(entry->bytes / draft_dtype_size(entry->dtype)), out, err);
}

/* An exponent of all ones is infinity or NaN; asked of many numbers at once. */
static bool all_finite(const uint32_t *bits, size_t n)
{
    typedef uint32_t lanes __attribute__((vector_size(32)));
    enum { LANES = sizeof(lanes) / sizeof(uint32_t) };
    const uint32_t exponent = 0x7f800000;
    lanes bad = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes v;
        memcpy(&v, bits + i, sizeof v);
        bad |= (lanes)((v & exponent) == exponent);
    }
    uint32_t any = 0;
    for (size_t l = 0; l < LANES; l++)
        any |= bad[l];
    for (; i < n; i++)
        any |= (bits[i] & exponent) == exponent;
    return any == 0;
}

bool draft_safetensors_check_finite(const struct draft_safetensors_entry *entry, struct draft_error *err)
{
    enum { PIECE = 1 << 14 }; /* numbers: within the second cache */
    union {
        float value[PIECE];
        uint32_t bits[PIECE];
    } *piece = malloc(sizeof *piece);
    if (piece == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", entry->file->path);
    int64_t total = (int64_t)(entry->bytes / draft_dtype_size(entry->dtype));
    bool ok = true;
    for (int64_t first = 0; ok && first < total; first += PIECE) {
        int64_t n = total - first < PIECE ? total - first : PIECE;
        ok = draft_safetensors_read_f32(entry, first, n, piece->value, err);
        if (!ok || all_finite(piece->bits, (size_t)n))
            continue;
        int64_t at = 0;
        while (isfinite(piece->value[at]))
            at++;
        ok = draft_fail(err, DRAFT_NON_FINITE, "%s: %s holds %s at place %lld, expected finite numbers",
                        entry->file->path, entry->name, isnan(piece->value[at]) ? "NaN" : "infinity",
                        (long long)(first + at));
    }
    free(piece);
    return ok;
}

bool draft_safetensors_unchanged(const struct draft_safetensors *file, struct draft_error *err)
{
    struct stat status;
    if (fstat(file->descriptor, &status) != 0)
        return draft_fail_errno(err, "cannot read %s", file->path);
    if ((size_t)status.st_size == file->size && status.st_mtim.tv_sec == file->changed.tv_sec &&
        status.st_mtim.tv_nsec == file->changed.tv_nsec)
        return true;
    return draft_fail(err, DRAFT_DATA_LOSS,
                      "%s was changed while it was in use; start again with the files as they are", file->path);
}
