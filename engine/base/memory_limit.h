/* What memory this process may have. */
#ifndef DRAFT_BASE_MEMORY_LIMIT_H
#define DRAFT_BASE_MEMORY_LIMIT_H

#include <stddef.h>

/* Bytes: physical memory, or less where a control group says so. */
size_t draft_memory_limit(void);

#endif
