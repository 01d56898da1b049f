#include "models/bpe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/read_file.h"

enum { MAX_VOCABULARY = 1 << 20, MAX_MERGES_FILE = 16 << 20 };

struct token {
    const char *text;
    int32_t id;
};

/* Two neighbours that may become one; the rank is the line in merges.txt: lower goes first. */
struct merge {
    uint64_t pair; /* left id << 32 | right id */
    int32_t rank, result;
};

struct draft_bpe {
    struct token *tokens; /* sorted by text */
    int token_count;
    char *texts;          /* all of them, each with its NUL */
    struct merge *merges; /* sorted by pair */
    size_t merge_count;
    int32_t unknown;
    int32_t inside[256], at_end[256]; /* id of a byte inside a word and as its last; -1: none */
};

/* --- Vocabulary ----------------------------------------------------------------------------------------------------
 */

struct gather {
    struct draft_bpe *bpe;
    const char *path;
    bool *seen;
    size_t used, capacity;
    int size;
    struct draft_error *err;
};

static bool gather_token(void *context, const char *key, size_t length, int64_t id)
{
    struct gather *gather = context;
    if (gather->seen[id])
        return draft_fail(gather->err, DRAFT_INVALID_ARGUMENT, "%s gives the id %lld to two tokens", gather->path,
                          (long long)id);
    gather->seen[id] = true;
    if (gather->used + length + 1 > gather->capacity) {
        size_t capacity = 2 * (gather->used + length + 1);
        char *more = realloc(gather->bpe->texts, capacity);
        if (more == NULL)
            return draft_fail(gather->err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", gather->path);
        gather->bpe->texts = more;
        gather->capacity = capacity;
    }
    memcpy(gather->bpe->texts + gather->used, key, length + 1);
    gather->used += length + 1;
    gather->bpe->tokens[gather->bpe->token_count++].id = (int32_t)id;
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct token *)a)->text, ((const struct token *)b)->text);
}

static bool read_vocabulary(struct draft_bpe *bpe, const char *path, struct draft_error *err)
{
    struct draft_json *json = draft_json_open(path, err);
    if (json == NULL)
        return false;
    int size = draft_json_size(json);
    if (size == 0 || size > MAX_VOCABULARY) {
        draft_json_close(json);
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s holds %d tokens, expected 1 to %d", path, size,
                          MAX_VOCABULARY);
    }
    bool *seen = calloc((size_t)size, sizeof *seen);
    bpe->tokens = calloc((size_t)size, sizeof *bpe->tokens);
    struct gather gather = {.bpe = bpe, .path = path, .seen = seen, .size = size, .err = err};
    bool ok = seen != NULL && bpe->tokens != NULL;
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
    ok = ok && draft_json_each(json, &gather, gather_token, 0, size - 1, err);
    draft_json_close(json);
    free(seen);
    if (!ok)
        return false;
    const char *text = bpe->texts;
    for (int i = 0; i < bpe->token_count; i++) {
        bpe->tokens[i].text = text;
        text += strlen(text) + 1;
    }
    qsort(bpe->tokens, (size_t)bpe->token_count, sizeof *bpe->tokens, by_text);
    return true;
}

int draft_bpe_size(const struct draft_bpe *bpe)
{
    return bpe->token_count;
}

int32_t draft_bpe_find(const struct draft_bpe *bpe, const char *token)
{
    struct token wanted = {.text = token};
    const struct token *found = bsearch(&wanted, bpe->tokens, (size_t)bpe->token_count, sizeof wanted, by_text);
    return found == NULL ? -1 : found->id;
}

void draft_bpe_set_unknown(struct draft_bpe *bpe, int32_t id)
{
    bpe->unknown = id;
}

/* GPT-2 shows every byte as a printable character: the printable ones of Latin-1 as themselves, the others as
 * U+0100 and up, in order. */
static void name_bytes(struct draft_bpe *bpe)
{
    int next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        int code = printable ? byte : next++;
        char name[8];
        int length = 0;
        if (code < 0x80) {
            name[length++] = (char)code;
        } else {
            name[length++] = (char)(0xC0 | code >> 6);
            name[length++] = (char)(0x80 | (code & 0x3F));
        }
        name[length] = '\0';
        bpe->inside[byte] = draft_bpe_find(bpe, name);
        strcpy(name + length, "</w>");
        bpe->at_end[byte] = draft_bpe_find(bpe, name);
    }
}

/* --- Merges --------------------------------------------------------------------------------------------------------
 */

/* "left right" -> a merge. The line is written into. */
static bool read_merge(const struct draft_bpe *bpe, char *line, struct merge *merge)
{
    char *gap = strchr(line, ' ');
    if (gap == NULL || gap == line || gap[1] == '\0' || strchr(gap + 1, ' ') != NULL)
        return false;
    *gap = '\0';
    int32_t left = draft_bpe_find(bpe, line), right = draft_bpe_find(bpe, gap + 1);
    memmove(gap, gap + 1, strlen(gap + 1) + 1); /* the two as one word */
    int32_t result = draft_bpe_find(bpe, line);
    if (left < 0 || right < 0 || result < 0)
        return false;
    merge->pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    merge->result = result;
    return true;
}

static int by_pair(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static bool parse_merges(struct draft_bpe *bpe, const char *path, char *text, size_t length, struct draft_error *err)
{
    size_t lines = 1;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    bpe->merges = calloc(lines, sizeof *bpe->merges);
    if (bpe->merges == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", path);
    char *line = text, *end = text + length;
    for (long number = 1; line < end; number++) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop != NULL ? stop : end;
        char *next = stop + 1;
        if (stop > line && stop[-1] == '\r')
            stop--;
        bool binary = memchr(line, '\0', (size_t)(stop - line)) != NULL;
        *stop = '\0';
        if (*line != '\0' && strncmp(line, "#version", 8) != 0) {
            struct merge *merge = &bpe->merges[bpe->merge_count];
            if (binary || !read_merge(bpe, line, merge))
                return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                                  "%s: line %ld is not two tokens of the vocabulary that make a third", path, number);
            merge->rank = (int32_t)bpe->merge_count++;
        }
        line = next;
    }
    if (bpe->merge_count > 0)
        qsort(bpe->merges, bpe->merge_count, sizeof *bpe->merges, by_pair);
    return true;
}

/* The last line of a pair counts, as in the tokenizers library: of equal pairs the one before the next pair. */
static const struct merge *find_merge(const struct draft_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t low = 0, high = bpe->merge_count; /* the first merge beyond the pair */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bpe->merges[middle].pair <= pair)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && bpe->merges[low - 1].pair == pair ? &bpe->merges[low - 1] : NULL;
}

struct draft_bpe *draft_bpe_open(const char *vocab_path, const char *merges_path, struct draft_error *err)
{
    struct draft_bpe *bpe = calloc(1, sizeof *bpe);
    if (bpe == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", vocab_path);
        return NULL;
    }
    size_t length = 0;
    char *merges = NULL;
    bpe->unknown = -1;
    bool ok = read_vocabulary(bpe, vocab_path, err) &&
              (merges = draft_read_file(merges_path, MAX_MERGES_FILE, &length, err)) != NULL &&
              parse_merges(bpe, merges_path, merges, length, err);
    free(merges);
    if (!ok) {
        draft_bpe_close(bpe);
        return NULL;
    }
    name_bytes(bpe);
    return bpe;
}

void draft_bpe_close(struct draft_bpe *bpe)
{
    if (bpe == NULL)
        return;
    free(bpe->tokens);
    free(bpe->texts);
    free(bpe->merges);
    free(bpe);
}

/* --- Encoding a word -----------------------------------------------------------------------------------------------
 */

/* The word's symbols are a linked list in place; a symbol that was merged into its left neighbour has id -1. */
struct symbol {
    int32_t id;
    int64_t previous, next; /* -1 at the ends */
};

/* A possible merge of the symbol at `place` with its right neighbour, in a heap by rank, then place. */
struct candidate {
    int32_t rank, result;
    int64_t place;
};

struct work {
    struct symbol *symbols;
    struct candidate *heap;
    size_t heaped;
};

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static void push(struct work *work, const struct draft_bpe *bpe, int64_t place)
{
    const struct symbol *left = &work->symbols[place];
    const struct merge *merge = find_merge(bpe, left->id, work->symbols[left->next].id);
    if (merge == NULL)
        return;
    struct candidate added = {merge->rank, merge->result, place};
    size_t at = work->heaped++;
    while (at > 0 && before(&added, &work->heap[(at - 1) / 2])) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = added;
}

static struct candidate pop(struct work *work)
{
    struct candidate top = work->heap[0], last = work->heap[--work->heaped];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < work->heaped) {
        if (child + 1 < work->heaped && before(&work->heap[child + 1], &work->heap[child]))
            child++;
        if (!before(&work->heap[child], &last))
            break;
        work->heap[at] = work->heap[child];
        at = child;
    }
    work->heap[at] = last;
    return top;
}

static void merge_symbols(struct work *work, const struct draft_bpe *bpe)
{
    while (work->heaped > 0) {
        struct candidate top = pop(work);
        struct symbol *left = &work->symbols[top.place];
        if (left->id < 0 || left->next < 0)
            continue;
        struct symbol *right = &work->symbols[left->next];
        const struct merge *now = find_merge(bpe, left->id, right->id);
        if (now == NULL || now->result != top.result)
            continue; /* one of the two has changed since */
        left->id = top.result;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0) {
            work->symbols[left->next].previous = top.place;
            push(work, bpe, top.place);
        }
        if (left->previous >= 0)
            push(work, bpe, left->previous);
    }
}

bool draft_bpe_encode(const struct draft_bpe *bpe, const char *word, size_t length, int32_t *ids, size_t *count)
{
    assert(length > 0 && bpe->unknown >= 0);
    /* Every merge takes one symbol away and adds two candidates at most. */
    struct work work = {.symbols = malloc(length * sizeof *work.symbols),
                        .heap = malloc(3 * length * sizeof *work.heap)};
    bool ok = work.symbols != NULL && work.heap != NULL;
    for (size_t i = 0; ok && i < length; i++) {
        unsigned char byte = (unsigned char)word[i];
        bool last = i + 1 == length;
        int32_t id = last ? bpe->at_end[byte] : bpe->inside[byte];
        work.symbols[i] = (struct symbol){id >= 0 ? id : bpe->unknown, (int64_t)i - 1, last ? -1 : (int64_t)i + 1};
    }
    for (size_t i = 0; ok && i + 1 < length; i++)
        push(&work, bpe, (int64_t)i);
    if (ok) {
        merge_symbols(&work, bpe);
        *count = 0;
        for (int64_t i = 0; i >= 0; i = work.symbols[i].next)
            ids[(*count)++] = work.symbols[i].id;
    }
    free(work.symbols);
    free(work.heap);
    return ok;
}
