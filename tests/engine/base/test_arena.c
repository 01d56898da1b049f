#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "base/arena.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

static void test_arena__gives_aligned_blocks_that_do_not_overlap(void **state)
{
    (void)state;
    struct draft_arena *arena = draft_arena_create("test", 1 << 20, NULL);
    unsigned char *a = draft_arena_alloc(arena, 1), *b = draft_arena_alloc(arena, 65), *c = draft_arena_alloc(arena, 0);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_ptr_equal(b, a + 64);
    assert_ptr_equal(c, b + 128);
    memset(a, 1, 1);
    memset(b, 2, 65);
    assert_int_equal(a[0], 1);
    draft_arena_destroy(arena);
}

static void test_arena__repeats_its_addresses_after_a_release(void **state)
{
    (void)state;
    struct draft_arena *arena = draft_arena_create("test", 1 << 20, NULL);
    draft_arena_alloc(arena, 1000);
    size_t mark = draft_arena_mark(arena);
    void *first = draft_arena_alloc(arena, 5000), *second = draft_arena_alloc(arena, 70);
    size_t high = draft_arena_high_water(arena);
    draft_arena_release(arena, mark);
    assert_int_equal(draft_arena_live(arena), mark);
    assert_ptr_equal(draft_arena_alloc(arena, 5000), first);
    assert_ptr_equal(draft_arena_alloc(arena, 70), second);
    assert_int_equal(draft_arena_high_water(arena), high);
    draft_arena_destroy(arena);
}

static void test_arena__ends_at_its_limit_with_a_sentence(void **state)
{
    (void)state;
    struct draft_arena *arena = draft_arena_create("step", 4096, NULL);
    assert_non_null(draft_arena_alloc(arena, 4000));
    assert_non_null(draft_arena_alloc(arena, 64));
    assert_null(draft_arena_alloc(arena, 1));
    assert_null(draft_arena_alloc(arena, SIZE_MAX));
    assert_null(draft_arena_alloc(arena, SIZE_MAX - 32));
    struct draft_error err = {0};
    assert_false(draft_arena_fail(arena, 1 << 20, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    assert_non_null(strstr(err.message, "step memory (asked 1.00 MiB"));
    draft_arena_destroy(arena);
}

static void test_arena__reserves_more_than_the_machine_has_and_commits_nothing(void **state)
{
    (void)state;
    struct draft_arena *arena = draft_arena_create("huge", (size_t)1 << 40, NULL);
    assert_non_null(arena);
    assert_non_null(draft_arena_alloc(arena, (size_t)1 << 39));
    char *last = draft_arena_alloc(arena, 100);
    last[99] = 7;
    draft_arena_destroy(arena);
}

static void test_arena__zeros_are_zero_and_take_no_memory_until_they_are_used(void **state)
{
    (void)state;
    enum { USED = 3 << 20, BYTES = 64 << 20, PAGE = 4096 };
    struct draft_arena *arena = draft_arena_create("test", 2 * BYTES, NULL);
    memset(draft_arena_alloc(arena, USED), 7, USED);
    draft_arena_release(arena, 0);
    unsigned char *zeros = draft_arena_zeros(arena, BYTES), resident[BYTES / PAGE];
    assert_int_equal(mincore(zeros, BYTES, resident), 0);
    int pages = 0;
    for (int i = 0; i < BYTES / PAGE; i++)
        pages += resident[i] & 1;
    assert_true(pages * PAGE < BYTES / 2);
    for (int i = 0; i < BYTES; i++)
        assert_int_equal(zeros[i], 0);
    assert_null(draft_arena_zeros(arena, 2 * BYTES));
    draft_arena_destroy(arena);
}

static void test_arena__refuses_absurd_limits(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_null(draft_arena_create("test", 0, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    err = (struct draft_error){0};
    assert_null(draft_arena_create("test", SIZE_MAX, &err));
    err = (struct draft_error){0};
    assert_null(draft_arena_create("test", (size_t)1 << 60, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    draft_arena_destroy(NULL);
}

/* A device's memory as the arena sees it: it is told how much to commit and what to move. */
struct region {
    _Alignas(256) unsigned char memory[4096];
    size_t committed;
    int moves, releases;
};

static bool commit(void *context, size_t bytes)
{
    struct region *region = context;
    region->committed = bytes;
    return bytes <= 2048; /* less than the limit says: somebody else has the rest */
}

static void move(void *context, void *to, const void *from, size_t bytes)
{
    struct region *region = context;
    memmove(to, from, bytes);
    region->moves++;
}

static void release(void *context)
{
    struct region *region = context;
    region->releases++;
}

static void test_arena__lends_memory_that_is_not_its_own(void **state)
{
    (void)state;
    static struct region region;
    struct draft_arena *arena = draft_arena_create_in(
        "device", &(struct draft_arena_region){region.memory, sizeof region.memory, commit, move, release, &region},
        NULL);
    unsigned char *a = draft_arena_alloc(arena, 1), *b = draft_arena_alloc(arena, 300);
    assert_ptr_equal(a, region.memory);
    assert_ptr_equal(b, a + 256);
    assert_int_equal(region.committed, 768);
    b[299] = 7;
    unsigned char *moved = draft_arena_slide(arena, 0, b, 300);
    assert_ptr_equal(moved, region.memory);
    assert_int_equal(moved[299], 7);
    assert_int_equal(region.moves, 1);
    assert_non_null(draft_arena_alloc(arena, 1000));
    assert_null(draft_arena_alloc(arena, 2000)); /* committing failed */
    assert_int_equal(draft_arena_live(arena), 512 + 1024);
    draft_arena_destroy(arena);
    assert_int_equal(region.releases, 1);
}

/* Five blocks of 100, 200 .. 500 bytes. */
static struct draft_arena *five_blocks(char **block)
{
    struct draft_arena *arena = draft_arena_create("test", 1 << 20, NULL);
    for (size_t i = 0; i < 5; i++)
        block[i] = draft_arena_alloc(arena, 100 * (i + 1));
    return arena;
}

static void test_arena__hands_holes_out_again_the_lowest_first(void **state)
{
    (void)state;
    char *block[5];
    struct draft_arena *arena = five_blocks(block);
    size_t live = draft_arena_live(arena), third = draft_arena_offset(arena, block[2]);
    draft_arena_give(arena, block[3], 400);
    draft_arena_give(arena, block[1], 200);
    assert_int_equal(draft_arena_live(arena), live);
    assert_null(draft_arena_reuse(arena, 0, 449)); /* 448 are there: 400 in whole lines */
    assert_null(draft_arena_reuse(arena, 0, SIZE_MAX));
    assert_ptr_equal(draft_arena_reuse(arena, 0, 300), block[3]);
    assert_ptr_equal(draft_arena_reuse(arena, third, 64), block[3] + 320);
    assert_ptr_equal(draft_arena_reuse(arena, 0, 64), block[1]);
    assert_ptr_equal(draft_arena_reuse(arena, 0, 192), block[1] + 64);
    assert_ptr_equal(draft_arena_reuse(arena, 0, 1), block[3] + 384);
    assert_null(draft_arena_reuse(arena, 0, 1));
    draft_arena_destroy(arena);
}

static void test_arena__holes_that_touch_are_one_and_the_last_is_none(void **state)
{
    (void)state;
    char *block[5];
    struct draft_arena *arena = five_blocks(block);
    draft_arena_give(arena, block[1], 200);
    draft_arena_give(arena, block[3], 400);
    draft_arena_give(arena, block[2], 300); /* between them */
    assert_ptr_equal(draft_arena_reuse(arena, 0, 900), block[1]);
    draft_arena_give(arena, block[1], 900);
    draft_arena_give(arena, block[4], 500); /* the end: what lies before it is free too */
    assert_int_equal(draft_arena_live(arena), draft_arena_offset(arena, block[1]));
    assert_null(draft_arena_reuse(arena, 0, 64));
    assert_ptr_equal(draft_arena_alloc(arena, 64), block[1]);
    draft_arena_destroy(arena);
}

static void test_arena__holes_go_with_what_is_around_them(void **state)
{
    (void)state;
    char *block[5];
    struct draft_arena *arena = five_blocks(block);
    draft_arena_give(arena, block[0], 100);
    draft_arena_give(arena, block[2], 300);
    draft_arena_release(arena, draft_arena_offset(arena, block[2]) + 64); /* in the middle of a hole */
    assert_int_equal(draft_arena_live(arena), draft_arena_offset(arena, block[2]));
    assert_null(draft_arena_reuse(arena, 0, 192));
    assert_ptr_equal(draft_arena_reuse(arena, 0, 128), block[0]);
    enum { MANY = 200 }; /* more than the list has room for at first */
    char *many[MANY], *last = block[2];
    for (int i = 0; i < MANY; i++)
        many[i] = draft_arena_alloc(arena, 64);
    assert_ptr_equal(many[0], last);
    for (int i = 0; i < MANY; i += 2)
        draft_arena_give(arena, many[i], 64);
    for (int i = 0; i < MANY; i += 2)
        assert_ptr_equal(draft_arena_reuse(arena, 0, 64), many[i]);
    draft_arena_destroy(arena);
}

static void test_arena__copies_strings(void **state)
{
    (void)state;
    struct draft_arena *arena = draft_arena_create("test", 64, NULL);
    assert_string_equal(draft_arena_strdup(arena, "conv_in.weight"), "conv_in.weight");
    assert_null(draft_arena_strdup(arena, "no room is left"));
    draft_arena_destroy(arena);
}

static void test_arena__hides_released_memory_from_the_address_sanitizer(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    struct draft_arena *arena = draft_arena_create("test", 4096, NULL);
    char *block = draft_arena_alloc(arena, 100);
    assert_null(__asan_region_is_poisoned(block, 100));
    assert_non_null(__asan_region_is_poisoned(block, 101));
    draft_arena_release(arena, 0);
    assert_non_null(__asan_region_is_poisoned(block, 1));
    assert_ptr_equal(draft_arena_alloc(arena, 100), block);
    assert_null(__asan_region_is_poisoned(block, 100));
    assert_non_null(draft_arena_alloc(arena, 1));
    draft_arena_give(arena, block, 100);
    assert_non_null(__asan_region_is_poisoned(block, 1));
    assert_ptr_equal(draft_arena_reuse(arena, 0, 70), block);
    assert_null(__asan_region_is_poisoned(block, 70));
    assert_non_null(__asan_region_is_poisoned(block, 71));
    draft_arena_release(arena, 0);
    assert_ptr_equal(draft_arena_alloc(arena, 100), block);
    assert_null(__asan_region_is_poisoned(block, 100));
    draft_arena_destroy(arena);
    assert_null(__asan_region_is_poisoned(block, 4096)); /* whoever maps these addresses next may use them */
#else
    skip();
#endif
}

static char released[8];

static void note_release(void *name)
{
    strcat(released, name);
}

static void test_arena__what_it_owns_dies_with_the_blocks_before_it(void **state)
{
    (void)state;
    struct draft_arena *arena = draft_arena_create("test", 1 << 20, NULL);
    released[0] = '\0';
    assert_true(draft_arena_own(arena, note_release, "a"));
    assert_non_null(draft_arena_alloc(arena, 64));
    size_t mark = draft_arena_mark(arena);
    assert_true(draft_arena_own(arena, note_release, "b"));
    assert_non_null(draft_arena_alloc(arena, 64));
    assert_true(draft_arena_own(arena, note_release, "c"));
    draft_arena_release(arena, mark);
    assert_string_equal(released, "cb");
    draft_arena_destroy(arena);
    assert_string_equal(released, "cba");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena__gives_aligned_blocks_that_do_not_overlap),
        cmocka_unit_test(test_arena__repeats_its_addresses_after_a_release),
        cmocka_unit_test(test_arena__ends_at_its_limit_with_a_sentence),
        cmocka_unit_test(test_arena__reserves_more_than_the_machine_has_and_commits_nothing),
        cmocka_unit_test(test_arena__zeros_are_zero_and_take_no_memory_until_they_are_used),
        cmocka_unit_test(test_arena__refuses_absurd_limits),
        cmocka_unit_test(test_arena__lends_memory_that_is_not_its_own),
        cmocka_unit_test(test_arena__hands_holes_out_again_the_lowest_first),
        cmocka_unit_test(test_arena__holes_that_touch_are_one_and_the_last_is_none),
        cmocka_unit_test(test_arena__holes_go_with_what_is_around_them),
        cmocka_unit_test(test_arena__copies_strings),
        cmocka_unit_test(test_arena__hides_released_memory_from_the_address_sanitizer),
        cmocka_unit_test(test_arena__what_it_owns_dies_with_the_blocks_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
