/* Which kernels this machine runs. */
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels/tables.h"

#if defined(__x86_64__)
static bool supported(const struct draft_kernels *kernels)
{
    if (kernels == &draft_kernels_x86_64_v4)
        return __builtin_cpu_supports("x86-64-v4");
    if (kernels == &draft_kernels_x86_64_v3)
        return __builtin_cpu_supports("x86-64-v3");
    return true;
}
static const struct draft_kernels *const best_first[] = {&draft_kernels_x86_64_v4, &draft_kernels_x86_64_v3,
                                                         &draft_kernels_x86_64};
static const char *const names = "\"x86-64\", \"x86-64-v3\" or \"x86-64-v4\"";
#else /* one table: nothing to choose */
static bool supported(const struct draft_kernels *kernels)
{
    (void)kernels;
    return true;
}
#if defined(__aarch64__)
static const struct draft_kernels *const best_first[] = {&draft_kernels_armv8_a};
static const char *const names = "\"armv8-a\"";
#else
static const struct draft_kernels *const best_first[] = {&draft_kernels_generic};
static const char *const names = "\"generic\"";
#endif
#endif

enum { TABLES = sizeof(best_first) / sizeof(best_first[0]) };

const struct draft_kernels *draft_kernels_find(const char *isa, struct draft_error *err)
{
    bool any = !isa || strcmp(isa, "auto") == 0;
    for (int i = 0; i < TABLES; i++) {
        if (!any && strcmp(isa, best_first[i]->isa) != 0)
            continue;
        if (supported(best_first[i]))
            return best_first[i];
        if (!any) {
            draft_fail(err, DRAFT_FAILED_PRECONDITION,
                       "this processor does not have the instruction set \"%s\"; use \"auto\" or a lower one of %s",
                       isa, names);
            return NULL;
        }
    }
    draft_fail(err, DRAFT_INVALID_ARGUMENT, "no kernels for the instruction set \"%s\"; use \"auto\", %s", isa, names);
    return NULL;
}
