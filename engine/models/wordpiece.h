/*
 * BERT's uncased WordPiece tokenizer from a vocab.txt (one token a line, its id the line), as transformers'
 * BertTokenizer reads it, with the two tokens that BLIP adds: [DEC] and [ENC] take the next ids when the file has them
 * not. Text is cleaned, its accents stripped, lower case; words end at white space, punctuation and Chinese characters;
 * of each word the longest known piece is taken from its left, "##" before those that follow; a word that cannot be put
 * together is [UNK]. Special tokens written in a text are themselves. Thread: read-only after open.
 */
#ifndef DRAFT_MODELS_WORDPIECE_H
#define DRAFT_MODELS_WORDPIECE_H

#include <stdint.h>

#include "base/error.h"

struct draft_wordpiece;

struct draft_wordpiece *draft_wordpiece_open(const char *path, struct draft_error *err);
void draft_wordpiece_close(struct draft_wordpiece *wordpiece);           /* NULL is fine */
int draft_wordpiece_vocabulary(const struct draft_wordpiece *wordpiece); /* ids, with the added tokens' */
/* Writes [CLS], the text's ids as far as they fit, [SEP]: at most `length` (2 or more) in all, *count of them, no
 * padding. `text` is UTF-8, at most 1 MiB. */
bool draft_wordpiece_encode(const struct draft_wordpiece *wordpiece, const char *text, int length, int32_t *ids,
                            int *count, struct draft_error *err);

#endif
