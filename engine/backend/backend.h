/*
 * A backend: where tensors live and how heavy work runs. The CPU backend is built in; the CUDA backend will be a plugin.
 * Created once per engine; owns its thread pool and the prepared (packed, transformed) forms of frozen weights.
 */
#ifndef DRAFT_BACKEND_BACKEND_H
#define DRAFT_BACKEND_BACKEND_H

#include "base/error.h"
#include "tensor/tensor.h"

struct draft_backend;

struct draft_backend_options {
    int threads;      /* 0: one per available processor */
    const char *isa;  /* NULL or "auto": the best of "x86-64", "x86-64-v3", "x86-64-v4" this machine has */
};

struct draft_backend *draft_backend_create_cpu(const struct draft_backend_options *options, struct draft_error *err);
void draft_backend_destroy(struct draft_backend *backend);
const char *draft_backend_isa(const struct draft_backend *backend);
int draft_backend_threads(const struct draft_backend *backend);

/* Frees the prepared form of a weight whose values changed. Frees all at destroy. */
void draft_backend_forget(struct draft_backend *backend, struct draft_tensor *weight);
size_t draft_backend_prepared_bytes(const struct draft_backend *backend);

#endif
