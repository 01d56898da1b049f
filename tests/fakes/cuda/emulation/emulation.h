/*
 * The emulated device, for those who launch on it: tests, and the fake CUDA runtime. The kernels themselves see
 * cuda_runtime.h beside this file.
 *
 * A launch runs at once and to its end, block after block; or, when emulated_submit is set, it is handed over instead,
 * and its new owner runs it when its stream or graph comes to it. Thread: one.
 */
#ifndef TESTS_FAKES_CUDA_EMULATION_H
#define TESTS_FAKES_CUDA_EMULATION_H

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;
struct emulated_launch; /* a kernel with its grid and a copy of its arguments */

/* Takes ownership. NULL (the default): run at once. */
extern void (*emulated_submit)(struct CUstream_st *stream, struct emulated_launch *launch);
void emulated_run(const struct emulated_launch *launch); /* as often as wanted */
void emulated_free(struct emulated_launch *launch);
const char *emulated_name(const struct emulated_launch *launch); /* tells kernels apart by their arguments' types */

/* The first failure since the last call, as the runtime's number: 0 none, 1 too much shared memory, 9 a wrong grid or
 * block, 719 a kernel that ended badly; what went wrong is on stderr. After 719 nothing runs until this is read. */
int emulated_take_error(void);

/* The order in which the blocks of a grid, the warps of a block and the threads of a warp run: 0 forwards, 1 backwards,
 * more: shuffled by that seed. A warp runs until it waits for others. A kernel with a barrier missing gives results
 * that depend on it. Starts as the environment's EMULATED_ORDER. */
extern int emulated_order;

#ifdef __cplusplus
}
#endif

#endif
