/* Strings -> padded ids, exactly. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "models/tokenizer.h"

/* How many of a row's ids are not transformers'. */
static int differences(struct golden *t, const struct draft_tokenizer *tokenizer, const char *text, const json_t *ids,
                       int length)
{
    int32_t *ours = malloc((size_t)length * sizeof *ours);
    int wrong = 0;
    if (ours == NULL || !draft_tokenize(tokenizer, text, length, ours, NULL, &t->error)) {
        free(ours);
        return length;
    }
    for (int i = 0; i < length; i++)
        wrong += json_integer_value(json_array_get(ids, (size_t)i)) != ours[i];
    free(ours);
    return wrong;
}

void golden_tokenizer(struct golden *t, const char *path)
{
    char folder[4096];
    golden_companion(t, "vocab.json", "emoji-sd/tokenizer", folder, sizeof folder);
    json_t *root = json_load_file(path, 0, NULL), *rows = json_object_get(root, "rows"), *row;
    struct draft_tokenizer *tokenizer = draft_tokenizer_open(folder, &t->error);
    if (tokenizer != NULL) {
        int length = (int)json_integer_value(json_object_get(root, "model_max_length"));
        golden_row(t, GOLDEN_OTHER, abs(draft_tokenizer_max_length(tokenizer) - length), 0, "model_max_length");
        size_t i;
        json_array_foreach (rows, i, row) {
            const char *text = json_string_value(json_object_get(row, "text"));
            const json_t *ids = json_object_get(row, "ids");
            char *shown = json_dumps(json_object_get(row, "text"), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
            golden_row(t, GOLDEN_OTHER, differences(t, tokenizer, text, ids, (int)json_array_size(ids)), 0, "%.80s",
                       shown);
            free(shown);
        }
    }
    golden_ok(t);
    draft_tokenizer_close(tokenizer);
    json_decref(root);
}
