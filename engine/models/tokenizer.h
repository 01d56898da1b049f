/*
 * CLIPTokenizer: vocab.json + merges.txt (+ tokenizer_config.json, special_tokens_map.json) as transformers reads them:
 * NFC, white space collapsed, lower case per code point, byte-level BPE with </w>, special tokens recognised in text,
 * padded to model_max_length with the tokenizer's own pad token, truncated with the end token last.
 * Thread: read-only after open.
 */
#ifndef DRAFT_MODELS_TOKENIZER_H
#define DRAFT_MODELS_TOKENIZER_H

#include <stdint.h>

#include "base/error.h"

struct draft_tokenizer;

struct draft_tokenizer *draft_tokenizer_open(const char *folder, struct draft_error *err);
void draft_tokenizer_close(struct draft_tokenizer *tokenizer);
/* model_max_length of tokenizer_config.json; 77 when it is absent or transformers' "very large" sentinel. */
int draft_tokenizer_max_length(const struct draft_tokenizer *tokenizer);
int draft_tokenizer_vocabulary(const struct draft_tokenizer *tokenizer);
int draft_tokenizer_end_token(const struct draft_tokenizer *tokenizer);
/* Pads with another token of the vocabulary, for a vocabulary without a configuration; before the first draft_tokenize.
 */
bool draft_tokenizer_pad_with(struct draft_tokenizer *tokenizer, const char *token, struct draft_error *err);
/* Writes `length` ids: begin token, text, end token, padding. `text` is valid UTF-8. Optionally says how many tokens
 * the text had before truncation (begin and end included). */
bool draft_tokenize(const struct draft_tokenizer *tokenizer, const char *text, int length, int32_t *ids,
                    int *full_length, struct draft_error *err);

#endif
