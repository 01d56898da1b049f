/*
 * Arenas: memory with a named lifetime. An arena reserves address space once (huge pages advised, nothing committed
 * until touched), hands out 64-byte aligned blocks (256 in a region) by bumping an offset, and gives them back all at
 * once or down to a mark. The same sequence of requests gives the same addresses in every step.
 *
 * Ownership: the creator destroys; blocks die with the arena or when released below their mark.
 * Thread: one thread allocates at a time.
 */
#ifndef DRAFT_BASE_ARENA_H
#define DRAFT_BASE_ARENA_H

#include <stddef.h>

#include "base/error.h"

struct draft_arena;

/* `name` is kept, not copied. `limit` bytes is the most it may ever hold. */
struct draft_arena *draft_arena_create(const char *name, size_t limit, struct draft_error *err);
void draft_arena_destroy(struct draft_arena *arena); /* NULL is fine */

/* An arena over somebody else's memory, a device's say: the arena counts, and touches nothing. */
struct draft_arena_region {
    unsigned char *base; /* aligned as its blocks: 256 */
    size_t limit;
    /* Makes the first `bytes` usable; never asked for less than before. False: there is no more. */
    bool (*commit)(void *context, size_t bytes);
    void (*move)(void *context, void *to, const void *from, size_t bytes); /* as memmove, to <= from */
    void (*release)(void *context);                                        /* at draft_arena_destroy() */
    void *context;
};
/* Takes the region over: it is released when this fails, too. */
struct draft_arena *draft_arena_create_in(const char *name, const struct draft_arena_region *region,
                                          struct draft_error *err);

/* NULL when the limit would be passed; draft_arena_fail() then words the error. Contents are undefined. */
void *draft_arena_alloc(struct draft_arena *arena, size_t bytes);
/* The same, zero. What was never handed out before is that already and is left untouched: it takes no memory until it
 * is used. Not of a region. */
void *draft_arena_zeros(struct draft_arena *arena, size_t bytes);
bool draft_arena_fail(const struct draft_arena *arena, size_t asked, struct draft_error *err);

size_t draft_arena_mark(const struct draft_arena *arena);
void draft_arena_release(struct draft_arena *arena, size_t mark); /* everything allocated after the mark is gone */

/* Holes: blocks given back one by one, while others above them stay. They are handed out again by draft_arena_reuse()
 * alone, and go with what is around them when that is released. A hole at the end is none: the arena ends before it.
 * `bytes` as they were asked for. */
void draft_arena_give(struct draft_arena *arena, void *block, size_t bytes);
/* A block in the lowest hole at or above the mark `floor` that has room for it; NULL: there is none. */
void *draft_arena_reuse(struct draft_arena *arena, size_t floor, size_t bytes);
size_t draft_arena_offset(const struct draft_arena *arena, const void *block); /* comparable with marks */

/* Gives back everything above the mark but `bytes` at `from`: they move down to the mark, into a new block that is
 * returned. NULL (and nothing changed) when the limit would be passed. */
void *draft_arena_slide(struct draft_arena *arena, size_t mark, const void *from, size_t bytes);

size_t draft_arena_live(const struct draft_arena *arena);       /* bytes */
size_t draft_arena_high_water(const struct draft_arena *arena); /* bytes, since creation */

/* Something that the arena's blocks need and that dies with them: release(object) is called when the arena is
 * destroyed, or released below where it stands now. The latest is released first. False: no memory, and not owned. */
bool draft_arena_own(struct draft_arena *arena, void (*release)(void *object), void *object);

char *draft_arena_strdup(struct draft_arena *arena, const char *s);

#endif
