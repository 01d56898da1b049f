/*
 * safetensors files, mapped for reading and written atomically. Every byte read is hostile: header at most 8 MB (a
 * hundred thousand tensors; the parser's memory is up to 40 times as much), offsets without holes or overlap, sizes
 * without overflow, dtype known, strings UTF-8, duplicate names refused. Format:
 * https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON, data).
 *
 * Ownership: entries, names and metadata live as long as the file. Thread: read-only after open.
 */
#ifndef DRAFT_TENSOR_SAFETENSORS_H
#define DRAFT_TENSOR_SAFETENSORS_H

#include "base/error.h"
#include "tensor/tensor.h"

struct draft_safetensors;

struct draft_safetensors_entry {
    const char *name;
    enum draft_dtype dtype;
    int rank; /* may be up to 8 in files; dims beyond DRAFT_MAX_RANK are refused by whoever takes the tensor */
    int64_t dim[8];
    const void *data; /* into the map; not aligned. A file cut short after it was opened faults here, but never in
                       * draft_safetensors_to_f32, which reads with pread */
    size_t bytes;
    uint64_t offset; /* of data, from the start of the file */
    const struct draft_safetensors *file;
};

struct draft_safetensors *draft_safetensors_open(const char *path, struct draft_error *err);
void draft_safetensors_close(struct draft_safetensors *file);
int draft_safetensors_count(const struct draft_safetensors *file);
const struct draft_safetensors_entry *draft_safetensors_at(const struct draft_safetensors *file,
                                                           int index); /* sorted by name */
const struct draft_safetensors_entry *draft_safetensors_find(const struct draft_safetensors *file, const char *name);
const char *draft_safetensors_metadata(const struct draft_safetensors *file, const char *key); /* NULL when absent */
const char *draft_safetensors_path(const struct draft_safetensors *file);
/* Copies an entry as float (F32, F16, BF16, F64) into out[count]. */
bool draft_safetensors_to_f32(const struct draft_safetensors_entry *entry, float *out, struct draft_error *err);
/* `count` of them from the entry's element `first` on. */
bool draft_safetensors_read_f32(const struct draft_safetensors_entry *entry, int64_t first, int64_t count, float *out,
                                struct draft_error *err);
/* Reads the entry through once: NaN or infinity is refused with file, name and place. */
bool draft_safetensors_check_finite(const struct draft_safetensors_entry *entry, struct draft_error *err);
/* The file's length and time of change are those it was opened with. */
bool draft_safetensors_unchanged(const struct draft_safetensors *file, struct draft_error *err);

struct draft_safetensors_item {
    const char *name;
    enum draft_dtype dtype; /* as stored: F32 or F16 (converted), I64 */
    int rank;
    int64_t dim[8];
    const void *data; /* F32 when dtype is F32 or F16; int64_t when I64 */
};

/* Writes path by way of a temporary file, fsync, rename and fsync of the folder. Items are written by element size
 * (largest first, so that all are aligned), then name; the header is padded to 8 bytes; equal input gives equal bytes.
 * A finite number that F16 cannot hold is refused. metadata: key, value, key, value ..., NULL (or NULL). */
bool draft_safetensors_write(const char *path, const struct draft_safetensors_item *items, int count,
                             const char *const *metadata, struct draft_error *err);

/* The same for more than memory should hold: an item without data is asked for when its turn comes, by its index, as
 * F32 into out[its count]. False from `load` ends the writing, with nothing left behind. */
struct draft_safetensors_source {
    bool (*load)(void *context, int index, float *out, struct draft_error *err);
    void *context;
};
bool draft_safetensors_write_from(const char *path, const struct draft_safetensors_item *items, int count,
                                  const char *const *metadata, const struct draft_safetensors_source *source,
                                  struct draft_error *err);

#endif
