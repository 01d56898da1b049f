/* Random numbers for the tests of kernels: the same in every run (xorshift, Marsaglia 2003). */
#ifndef TESTS_ENGINE_BACKEND_UNIFORM_H
#define TESTS_ENGINE_BACKEND_UNIFORM_H

#include <stdint.h>

static uint64_t random_state = 88172645463325252u;

static inline double uniform(void) /* (0, 1) */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

#endif
