/* What a tokenizer is made of: filled in by tokenizer_open.c, read by tokenizer.c. */
#ifndef DRAFT_MODELS_TOKENIZER_STATE_H
#define DRAFT_MODELS_TOKENIZER_STATE_H

#include "models/bpe.h"
#include "models/tokenizer.h"

enum { MAX_SPECIAL = 16 };

/* A token that is found in text as it stands there, before any word is split. */
struct special {
    char *text; /* as searched for: normalised itself when `normalized` */
    int32_t id;
    bool normalized; /* searched for after normalisation of the text, else in the text as it is written */
    bool changed;    /* while opening: two opinions about `normalized` were seen */
};

struct draft_tokenizer {
    struct draft_bpe *bpe;
    int max_length;
    int32_t begin, end, pad;
    struct special special[MAX_SPECIAL];
    int special_count;
};

/* NFC, lower case and single spaces, as CLIP reads text before it splits words; malloc()ed. NULL: no memory. */
char *draft_tokenizer_normalize(const char *text, size_t length, size_t *out_length);

#endif
