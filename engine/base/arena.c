#include "base/arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

/* Blocks are cache-line aligned; the map itself begins on a huge page so that the kernel can back it with them. */
enum { ALIGNMENT = 64, REGION_ALIGNMENT = 256 };
static const size_t HUGE_PAGE = (size_t)2 << 20;

struct owned {
    struct owned *next;
    size_t offset; /* where the arena stood */
    void (*release)(void *object);
    void *object;
};

struct hole {
    size_t start, end;
};

struct draft_arena {
    const char *name;
    unsigned char *base;
    size_t limit;
    size_t used, high_water;
    size_t alignment;
    void *map; /* what munmap takes: base is inside it; NULL: in a region */
    size_t map_bytes;
    struct draft_arena_region region;
    struct owned *owned; /* the latest first */
    struct hole *hole;   /* the lowest first; none touches another, or the arena's end */
    int holes, hole_room;
};

/* Under AddressSanitizer released memory and the padding behind a block are poisoned, so that it sees into arenas. Only
 * in the first GiB: the sanitizer keeps a byte for every eight, and marking terabytes would commit them. */
#ifdef __SANITIZE_ADDRESS__
static size_t watched_end(size_t end)
{
    const size_t watched = (size_t)1 << 30;
    return end < watched ? end : watched;
}

static void hide(const struct draft_arena *arena, size_t start, size_t end)
{
    if (arena->map && start < watched_end(end))
        ASAN_POISON_MEMORY_REGION(arena->base + start, watched_end(end) - start);
}

static void show(const struct draft_arena *arena, size_t start, size_t end)
{
    if (arena->map && start < watched_end(end))
        ASAN_UNPOISON_MEMORY_REGION(arena->base + start, watched_end(end) - start);
}
#else
static void hide(const struct draft_arena *arena, size_t start, size_t end)
{
    (void)arena, (void)start, (void)end;
}

static void show(const struct draft_arena *arena, size_t start, size_t end)
{
    (void)arena, (void)start, (void)end;
}
#endif

struct draft_arena *draft_arena_create(const char *name, size_t limit, struct draft_error *err)
{
    assert(name != NULL);
    if (limit == 0 || limit > SIZE_MAX / 2 - 2 * HUGE_PAGE) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "arena %s: a limit of %zu bytes is not possible", name, limit);
        return NULL;
    }
    size_t bytes = (limit + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "arena %s: the system refuses %zu bytes of address space", name, bytes);
        return NULL;
    }
    struct draft_arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) {
        munmap(map, bytes);
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "arena %s: out of memory", name);
        return NULL;
    }
    uintptr_t start = ((uintptr_t)map + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    *arena = (struct draft_arena){.name = name,
                                  .base = (unsigned char *)start,
                                  .limit = limit,
                                  .alignment = ALIGNMENT,
                                  .map = map,
                                  .map_bytes = bytes};
    /* Advice only: a kernel without transparent huge pages works as well, a little slower. */
    (void)madvise(arena->base, bytes - (start - (uintptr_t)map), MADV_HUGEPAGE);
    return arena;
}

static void release_owned(struct draft_arena *arena, size_t mark)
{
    while (arena->owned != NULL && arena->owned->offset >= mark) {
        struct owned *owned = arena->owned;
        arena->owned = owned->next;
        owned->release(owned->object);
        free(owned);
    }
}

struct draft_arena *draft_arena_create_in(const char *name, const struct draft_arena_region *region,
                                          struct draft_error *err)
{
    assert(name != NULL && (uintptr_t)region->base % REGION_ALIGNMENT == 0);
    struct draft_arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) {
        region->release(region->context);
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "arena %s: out of memory", name);
        return NULL;
    }
    *arena = (struct draft_arena){
        .name = name, .base = region->base, .limit = region->limit, .alignment = REGION_ALIGNMENT, .region = *region};
    return arena;
}

void draft_arena_destroy(struct draft_arena *arena)
{
    if (arena == NULL)
        return;
    release_owned(arena, 0);
    if (arena->map != NULL) {
        show(arena, 0, arena->high_water);
        munmap(arena->map, arena->map_bytes);
    } else {
        arena->region.release(arena->region.context);
    }
    free(arena->hole);
    free(arena);
}

static size_t round_up(const struct draft_arena *arena, size_t bytes)
{
    return (bytes + arena->alignment - 1) / arena->alignment * arena->alignment;
}

void *draft_arena_alloc(struct draft_arena *arena, size_t bytes)
{
    if (bytes > arena->limit - arena->used)
        return NULL;
    size_t rounded = round_up(arena, bytes);
    if (rounded > arena->limit - arena->used)
        rounded = arena->limit - arena->used;
    if (arena->map == NULL && arena->used + rounded > arena->high_water &&
        !arena->region.commit(arena->region.context, arena->used + rounded))
        return NULL;
    unsigned char *block = arena->base + arena->used;
    show(arena, arena->used, arena->used + bytes);
    hide(arena, arena->used + bytes, arena->used + rounded);
    arena->used += rounded;
    if (arena->used > arena->high_water)
        arena->high_water = arena->used;
    return block;
}

void *draft_arena_zeros(struct draft_arena *arena, size_t bytes)
{
    assert(arena->map != NULL);
    size_t touched = arena->high_water - arena->used;
    void *block = draft_arena_alloc(arena, bytes);
    return block != NULL ? memset(block, 0, touched < bytes ? touched : bytes) : NULL;
}

bool draft_arena_fail(const struct draft_arena *arena, size_t asked, struct draft_error *err)
{
    const double mib = 1024.0 * 1024.0;
    return draft_fail(err, DRAFT_OUT_OF_MEMORY,
                      "out of %s memory (asked %.2f MiB, %.2f MiB free of %.2f MiB); use a smaller picture, a smaller "
                      "micro batch or recompute",
                      arena->name, (double)asked / mib, (double)(arena->limit - arena->used) / mib,
                      (double)arena->limit / mib);
}

size_t draft_arena_mark(const struct draft_arena *arena)
{
    return arena->used;
}

void draft_arena_release(struct draft_arena *arena, size_t mark)
{
    assert(mark <= arena->used);
    release_owned(arena, mark);
    hide(arena, mark, arena->used);
    arena->used = mark;
    while (arena->holes > 0 && arena->hole[arena->holes - 1].start >= mark)
        arena->holes--;
    if (arena->holes > 0 && arena->hole[arena->holes - 1].end >= mark)
        arena->used = arena->hole[--arena->holes].start;
}

static void remove_hole(struct draft_arena *arena, int i)
{
    memmove(arena->hole + i, arena->hole + i + 1, (size_t)(--arena->holes - i) * sizeof *arena->hole);
}

/* Without memory for the list the hole is forgotten, until what is around it is released. */
static void insert_hole(struct draft_arena *arena, int i, size_t start, size_t end)
{
    if (arena->holes == arena->hole_room) {
        int room = arena->hole_room > 0 ? 2 * arena->hole_room : 64;
        struct hole *grown = realloc(arena->hole, (size_t)room * sizeof *grown);
        if (grown == NULL)
            return;
        arena->hole = grown;
        arena->hole_room = room;
    }
    memmove(arena->hole + i + 1, arena->hole + i, (size_t)(arena->holes++ - i) * sizeof *arena->hole);
    arena->hole[i] = (struct hole){start, end};
}

void draft_arena_give(struct draft_arena *arena, void *block, size_t bytes)
{
    size_t start = draft_arena_offset(arena, block), end = start + round_up(arena, bytes);
    assert(start <= arena->used);
    if (end >= arena->used) { /* also where the limit cut its end off */
        draft_arena_release(arena, start);
        return;
    }
    if (start == end)
        return;
    hide(arena, start, end);
    int next = arena->holes;
    while (next > 0 && arena->hole[next - 1].start > start)
        next--;
    if (next < arena->holes && arena->hole[next].start == end) {
        end = arena->hole[next].end;
        remove_hole(arena, next);
    }
    if (next > 0 && arena->hole[next - 1].end == start)
        arena->hole[next - 1].end = end;
    else
        insert_hole(arena, next, start, end);
}

void *draft_arena_reuse(struct draft_arena *arena, size_t floor, size_t bytes)
{
    size_t rounded = round_up(arena, bytes);
    if (bytes == 0 || rounded < bytes)
        return NULL;
    for (int i = 0; i < arena->holes; i++) {
        struct hole *hole = &arena->hole[i];
        if (hole->start < floor || hole->end - hole->start < rounded)
            continue;
        unsigned char *block = arena->base + hole->start;
        show(arena, hole->start, hole->start + bytes);
        hole->start += rounded;
        if (hole->start == hole->end)
            remove_hole(arena, i);
        return block;
    }
    return NULL;
}

size_t draft_arena_offset(const struct draft_arena *arena, const void *block)
{
    return (size_t)((const unsigned char *)block - arena->base);
}

void *draft_arena_slide(struct draft_arena *arena, size_t mark, const void *from, size_t bytes)
{
    assert(mark <= arena->used);
    if (bytes > arena->limit - mark)
        return NULL;
    show(arena, mark, mark + bytes);
    if (arena->map != NULL)
        memmove(arena->base + mark, from, bytes);
    else
        arena->region.move(arena->region.context, arena->base + mark, from, bytes);
    draft_arena_release(arena, mark);
    return draft_arena_alloc(arena, bytes);
}

size_t draft_arena_live(const struct draft_arena *arena)
{
    return arena->used;
}

size_t draft_arena_high_water(const struct draft_arena *arena)
{
    return arena->high_water;
}

bool draft_arena_own(struct draft_arena *arena, void (*release)(void *object), void *object)
{
    struct owned *owned = malloc(sizeof *owned);
    if (owned == NULL)
        return false;
    *owned = (struct owned){arena->owned, arena->used, release, object};
    arena->owned = owned;
    return true;
}

char *draft_arena_strdup(struct draft_arena *arena, const char *s)
{
    size_t bytes = strlen(s) + 1;
    char *copy = draft_arena_alloc(arena, bytes);
    if (copy != NULL)
        memcpy(copy, s, bytes);
    return copy;
}
