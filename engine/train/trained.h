/*
 * What a job trains: the matrices of an adapter, or every weight of the UNet (convolutions, linears, biases, norms'
 * gains). One list in one order for ever. The optimizer, the average and the checkpoints know parameters from it alone.
 *
 * Ownership: the list lives in the arena given; the tensors are the adapter's or the UNet's. Thread: one.
 */
#ifndef DRAFT_TRAIN_TRAINED_H
#define DRAFT_TRAIN_TRAINED_H

#include "backend/backend.h"
#include "models/lora.h"
#include "models/unet.h"

struct draft_trained {
    const char *group; /* of names in checkpoints: "lora" or "unet" */
    int count;
    struct draft_tensor **tensor;  /* F32 */
    const char **name;             /* in checkpoints: "<module>.down", "<module>.up"; or the weight's own key */
    struct draft_backend *backend; /* NULL: values are on the host */
    struct draft_arena *values;    /* else: where they are, and all arrays beside them */
    int64_t numbers;               /* else: of all from tensor[0]'s on, the padding behind each one included */
    struct draft_backend *threads; /* whose threads work on values on the host; NULL: the caller's alone */
};

/* down, up, down, up ... in the adapter's order. */
bool draft_trained_adapter(struct draft_trained *trained, struct draft_adapter *adapter, struct draft_arena *arena,
                           struct draft_error *err);
/* In the order in which the UNet loads; their values may still be in the files. Whether they need gradients is said
 * with draft_unet_train_weights(). */
bool draft_trained_unet(struct draft_trained *trained, struct draft_unet *unet, struct draft_arena *arena,
                        struct draft_error *err);
int64_t draft_trained_numbers(const struct draft_trained *trained);

/* Takes the values to where the backend computes, never to leave their places again: one behind the other into
 * `values`, an arena of the backend's that outlives the list; where that is the host, out of the files. */
bool draft_trained_move(struct draft_trained *trained, struct draft_backend *backend, struct draft_arena *values,
                        struct draft_error *err);

/* New float arrays of the parameters' shapes, one each, zero. Pointers in
 * `arena`, numbers beside the values. NULL when memory is out. */
float **draft_trained_zeros(const struct draft_trained *trained, struct draft_arena *arena, struct draft_error *err);

#endif
