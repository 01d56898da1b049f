/* Waking watchers: the daemon's thread's side of watch.c. */
#ifndef DRAFTD_WATCH_H
#define DRAFTD_WATCH_H

#include "state.h"

enum { DRAFTD_EVENTS_KEPT = 100000, DRAFTD_TELL_MS = 100 };

/* Calls the wake functions that are due, with the lock released meanwhile. Gives the milliseconds until the next
 * coalesced change is due, or -1. */
int draftd_wake_watchers(struct draftd *d);

#endif
