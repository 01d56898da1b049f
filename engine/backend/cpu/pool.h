/*
 * The backend's threads: tasks are handed out one by one, workers spin for a moment after work and then sleep.
 * Thread: one caller at a time; it works along.
 */
#ifndef DRAFT_BACKEND_CPU_POOL_H
#define DRAFT_BACKEND_CPU_POOL_H

#include "backend/cpu/cpu.h"

struct draft_pool;

/* threads >= 1 counts the caller. */
struct draft_pool *draft_pool_create(int threads, struct draft_error *err);
void draft_pool_destroy(struct draft_pool *pool); /* NULL is fine */
void draft_pool_run(struct draft_pool *pool, int64_t tasks, draft_task fn, void *context);
/* Processors this process may run on. */
int draft_pool_processors(void);

#endif
