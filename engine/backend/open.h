/*
 * Which backend a program computes on, by a device's name as users write it: "cpu", "cuda" or "cuda:N", and "auto": the
 * first GPU where the CUDA backend finds one, else the CPU.
 *
 * The CUDA backend is libdraft_cuda.so, loaded once per process and never unloaded: from the path in the environment's
 * DRAFT_CUDA_PLUGIN, else from beside the program or its ../lib, else wherever the loader looks. It needs cuBLAS and
 * cuDNN 9 for CUDA 13; where they are not installed for all (pip wheels), `libraries` names their folders, with colons
 * between them.
 */
#ifndef DRAFT_BACKEND_OPEN_H
#define DRAFT_BACKEND_OPEN_H

#include "backend/plugin.h"

struct draft_device_choice {
    bool automatic, cpu; /* one of them, or else cuda:<number> */
    int number;
};
/* NULL and "" are "auto". False: no such name, and the sentence says which there are. */
bool draft_device_parse(const char *text, struct draft_device_choice *choice, struct draft_error *err);

/* Fails with the remedy when the device asked for cannot be used. `libraries` NULL or "": where the loader looks. */
struct draft_backend *draft_backend_open(const char *device, const char *libraries,
                                         const struct draft_backend_options *options,
                                         const struct draft_services *services, struct draft_error *err);

/* The GPUs of this machine, the first `room` of them; returns how many there are. -1: none can be used, and why.
 * Nothing is put on them, and without a driver nothing large is loaded. */
int draft_devices(const char *libraries, struct draft_device *list, int room, struct draft_error *err);
/* Takes a GPU, moves numbers to it and back, and gives it back: whether it works, and what is free. It may crash or
 * hang where the GPU is sick: for a process that may. */
bool draft_device_probe(const char *libraries, int number, const struct draft_services *services,
                        struct draft_device *device, struct draft_error *err);
/* Of a backend whose values do not live on the host: bytes of its device that it takes now, and took at most. */
void draft_device_usage(const struct draft_backend *backend, size_t *used, size_t *peak);
/* A dry backend of its kind (draft_backend_options); `lender`: whose arenas hold values that ops read, or NULL. The
 * CUDA backend must have been found usable (draft_devices). */
struct draft_backend *draft_backend_open_dry(struct draft_backend *lender, const char *libraries,
                                             const struct draft_services *services, struct draft_error *err);
/* Bytes that are free on a backend's GPU, and that it has. */
bool draft_device_memory(struct draft_backend *backend, size_t *free_bytes, size_t *total, struct draft_error *err);

#endif
