/*
 * Between libdraft and a backend in a shared library of its own. The library exports one function, draft_backend, and
 * has no undefined symbol of ours: what it needs of the engine comes in struct draft_services. Both sides are built
 * from one source tree, whose structs they share: the version must be the same to the letter.
 */
#ifndef DRAFT_BACKEND_PLUGIN_H
#define DRAFT_BACKEND_PLUGIN_H

#include "autograd/graph.h"
#include "backend/backend.h"
#include "backend/shapes.h"

/* What an op's column calls in the engine; each is the function of that name (autograd/, ops/op.h). */
struct draft_services {
    void *(*grad)(struct draft_graph *g, struct draft_tensor *x, bool *accumulate);
    void *(*grad_in_place)(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x, bool *accumulate);
    bool (*grad_pass)(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x);
    struct draft_tensor *(*new_tensor)(struct draft_graph *g, enum draft_dtype dtype, int rank, const int64_t *dim);
    void *(*temporary)(struct draft_graph *g, size_t bytes);
    void *(*note)(struct draft_graph *g, size_t bytes);
    struct draft_mark (*mark)(const struct draft_graph *g);
    void (*release)(struct draft_graph *g, struct draft_mark mark);
    struct draft_jpeg_model (*jpeg_model)(int quality);
    bool (*weight_rows)(const struct draft_tensor *w, int64_t first, int64_t count, float *out,
                        struct draft_error *err);
    bool (*weight_unchanged)(const struct draft_tensor *w, struct draft_error *err);
};
extern const struct draft_services draft_services; /* autograd/services.c */

struct draft_device {
    char name[128];
    int major, minor;    /* compute capability */
    int driver;          /* what the driver can do: 13000 for CUDA 13.0 */
    size_t memory, free; /* bytes; free: 0 in a list, known of a device that was opened */
};

struct draft_plugin {
    /* How many devices there are; fills in the first `room` of them. -1: none can be used, and why. */
    int (*devices)(struct draft_device *list, int room, struct draft_error *err);
    /* Bytes of an open device that are free, and that it has. */
    bool (*memory)(struct draft_backend *backend, size_t *free_bytes, size_t *total, struct draft_error *err);
    /* Bytes of the device that a backend's allocations and arenas take, and took at most. */
    void (*usage)(const struct draft_backend *backend, size_t *used, size_t *peak);
    /* A dry backend (struct draft_backend_options): touches no device, which need not be there, and counts by the same
     * code what a real one would take. `lender`: another backend, whose arenas hold values that
     * ops read, and whose workspace serves both; or NULL. */
    struct draft_backend *(*create_dry)(struct draft_backend *lender, const struct draft_services *services,
                                        struct draft_error *err);
    struct draft_backend *(*create)(int device, const struct draft_services *services, struct draft_error *err);
};

/* NULL: built from another version. */
typedef const struct draft_plugin *draft_plugin_entry(const char *version);
#define DRAFT_PLUGIN_ENTRY "draft_backend"
/* The number goes up with every change of a struct that both sides see. */
#define DRAFT_PLUGIN_VERSION DRAFT_VERSION "/9"

#endif
