/* CLIP's score of pictures as a reward uses it: pixels -> score -> gradient to the pixels, the texts' side remembered.
 * Command line: part.h. */
#include <stdlib.h>

#include "models/clip.h"
#include "part.h"

struct run {
    struct bench_part part;
    struct draft_clip *clip;
    struct draft_tensor *pixels, *text, *score;
};

/* Without gradient, before the clock runs. */
static struct draft_tensor *embed_text(struct run *r)
{
    struct golden *t = &r->part.t;
    int64_t *ids, count;
    if (!golden_integers(t, r->part.file, "ids", &ids, &count))
        return NULL;
    const struct draft_safetensors_entry *entry = draft_safetensors_find(r->part.file, "ids");
    struct draft_tensor *tokens = entry->rank == 2 ? draft_new(&t->g, DRAFT_I32, 2, entry->dim) : NULL;
    for (int64_t i = 0; tokens && i < count; i++)
        ((int32_t *)tokens->data)[i] = (int32_t)ids[i];
    free(ids);
    bool was = draft_no_grad(&t->g);
    struct draft_tensor *text = tokens ? draft_clip_text_embed(&t->g, r->clip, tokens) : NULL;
    t->g.recording = was;
    return text;
}

static bool open_part(void *context)
{
    struct run *r = context;
    struct golden *t = &r->part.t;
    return (r->clip = draft_clip_open(r->part.model, t->weights, &t->error)) != NULL;
}

static bool begin(void *context)
{
    struct run *r = context;
    if (!(r->text = embed_text(r)) || !(r->pixels = golden_input(&r->part.t, r->part.file, "pixels")))
        return false;
    r->pixels->needs_grad = true;
    return true;
}

static bool run(void *context)
{
    struct run *r = context;
    struct draft_graph *g = &r->part.t.g;
    r->score = draft_clip_score(g, r->clip, draft_clip_image_embed(g, r->clip, r->pixels, NULL), r->text);
    struct draft_tensor *mean = draft_mean(g, r->score);
    return draft_graph_ok(g) && draft_graph_backward(g, mean, NULL);
}

static void compare(void *context)
{
    struct run *r = context;
    bench_part_compare(&r->part, "score", draft_f32(r->score));
    bench_part_compare(&r->part, "d_pixels", r->pixels->grad);
}

int main(int argc, char **argv)
{
    struct run r = {.part = {.runs = 0}};
    if (!bench_part_open(&r.part, argc, argv))
        return 1;
    int status = bench_part_time(&r.part, &(struct bench_part_calls){open_part, begin, run, compare, &r});
    return status;
}
