/* The mains of the checks, under these names where they are built into gpu_check. Exit statuses: tests/gpu/README.md.
 */
#ifndef DRAFT_GPU_CHECK_H
#define DRAFT_GPU_CHECK_H

int check_ops(int argc, char **argv);
int check_golden(int argc, char **argv);
int check_job(int argc, char **argv);
int check_bench(int argc, char **argv);

#endif
