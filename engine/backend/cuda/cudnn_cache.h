/*
 * cuDNN's plans on disk: one file each, named by the fingerprint of its key. A file is taken only when it is whole and
 * its key is the same to the letter; anything else in its place is as good as no file, and is written over.
 *
 * A plan may hold machine code, so the folder is ours alone: made with mode 0700, and left unused when somebody else
 * owns it or may write to it. Thread: pure; several processes may share a folder.
 */
#ifndef DRAFT_BACKEND_CUDA_CUDNN_CACHE_H
#define DRAFT_BACKEND_CUDA_CUDNN_CACHE_H

#include <stdbool.h>
#include <stddef.h>

/* Where plans are kept: $DRAFT_CUDA_CACHE, else $XDG_CACHE_HOME/draftd, else $HOME/.cache/draftd, made when it is not
 * there. False: nowhere ($DRAFT_CUDA_CACHE is empty, or no such folder is ours). */
bool draft_cudnn_cache_folder(char *folder, size_t size);

/* malloc'd, 0-terminated text; NULL: none is kept. */
char *draft_cudnn_cache_read(const char *folder, const char *key);
/* A failure is nobody's concern: the plan is made again next time. */
void draft_cudnn_cache_write(const char *folder, const char *key, const char *plan);

#endif
