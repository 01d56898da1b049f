/*
 * Ctrl-C and friends for the commands that run long. The first signal sets a flag, which waiting calls see within a
 * fifth of a second; the second one, a moment later or more, leaves at once with exit code 130.
 */
#ifndef DRAFT_CLIENT_INTERRUPT_H
#define DRAFT_CLIENT_INTERRUPT_H

#include <stdbool.h>

void draft_interrupt_install(void); /* SIGINT, SIGTERM, SIGHUP */
bool draft_interrupted(void);
/* Forgets a first signal, for the work of tidying up after it. The next signal leaves at once. */
void draft_interrupt_clear(void);

#endif
