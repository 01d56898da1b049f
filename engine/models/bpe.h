/*
 * Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2's byte alphabet; CLIP's "</w>" at a word's end) over a
 * vocab.json and a merges.txt, both hostile until checked.
 * Thread: read-only after open.
 */
#ifndef DRAFT_MODELS_BPE_H
#define DRAFT_MODELS_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct draft_bpe;

struct draft_bpe *draft_bpe_open(const char *vocab_path, const char *merges_path, struct draft_error *err);
void draft_bpe_close(struct draft_bpe *bpe);
int draft_bpe_size(const struct draft_bpe *bpe);                        /* tokens; ids are 0 .. size-1 */
int32_t draft_bpe_find(const struct draft_bpe *bpe, const char *token); /* -1 when it is not in the vocabulary */
void draft_bpe_set_unknown(struct draft_bpe *bpe,
                           int32_t id); /* stands for bytes without a token; before the first encode */

/* The tokens of one word of `length` > 0 bytes. `ids` has room for `length`. False when memory is out. */
bool draft_bpe_encode(const struct draft_bpe *bpe, const char *word, size_t length, int32_t *ids, size_t *count);

#endif
