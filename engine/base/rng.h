/*
 * Random numbers of two kinds.
 *
 * draft_philox_*: counter-based (Philox 4x32-10, Salmon et al. 2011), keyed by seed, purpose, step and index: no
 * state to save, so a resumed job continues bit for bit and a preview never disturbs training.
 *
 * draft_torch_*: the numbers of torch.randn on PyTorch's CPU generator (mt19937), so that a user's seed gives the
 * picture that diffusers gives. Sizes below 16 take PyTorch's scalar path, larger ones its vectorised one.
 *
 * Thread: pure functions; a generator belongs to one thread.
 */
#ifndef DRAFT_BASE_RNG_H
#define DRAFT_BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum draft_purpose {
    DRAFT_PURPOSE_NOISE = 1,            /* x_T of a training sample; index = its place in the global batch */
    DRAFT_PURPOSE_RENOISE,              /* DRaFT-LV's fresh noise; index = copy * global batch + place */
    DRAFT_PURPOSE_LORA_INIT,            /* step 0; index = the adapter's place */
    DRAFT_PURPOSE_SHUFFLE,              /* the permutation of an epoch; step = epoch */
    DRAFT_PURPOSE_EVALUATION,           /* fixed noise; step 0; index = sample */
    DRAFT_PURPOSE_ANCESTRAL,            /* a sampler's fresh noise in training; index = place * network calls + call */
    DRAFT_PURPOSE_EVALUATION_ANCESTRAL, /* the same of an evaluation; step 0; index = sample * network calls + call */
};

/* One block of the generator itself: 128 bits from a key and a counter. */
void draft_philox_block(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

/* n standard normal numbers for (seed, purpose, step, index). */
void draft_philox_randn(uint64_t seed, enum draft_purpose purpose, uint64_t step, uint64_t index, float *out, size_t n);

/* A permutation of 0 .. n-1 for (seed, epoch). */
void draft_philox_permutation(uint64_t seed, uint64_t epoch, uint32_t *out, size_t n);

/* torch.Generator() on the CPU, in the middle of its numbers. */
struct draft_torch_generator {
    uint32_t state[624]; /* mt19937 */
    int next;
    double kept; /* the second of a pair of normal numbers, for the next small draw */
    bool has_kept;
};
void draft_torch_generator_seed(struct draft_torch_generator *generator, uint64_t seed);
/* torch.randn(n elements, generator), goes on from where the last draw ended. */
void draft_torch_generator_randn(struct draft_torch_generator *generator, float *out, size_t n);

/* torch.randn(n elements) of torch.Generator().manual_seed(seed): the first draw. */
void draft_torch_randn(uint64_t seed, float *out, size_t n);

#endif
