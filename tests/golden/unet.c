/* sample, timestep, context -> output; d_output -> d_sample, d_context and the gradients of named weights, or of an
 * adapter whose matrices the case holds (models of full size). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "models/unet.h"

struct run {
    struct golden *t;
    const struct draft_safetensors *file;
    struct draft_unet *unet;
    struct draft_adapter *adapter; /* NULL: the weights themselves are trained */
    struct draft_unet_call call;
    double timestep;
    struct draft_tensor *sample, *output;
};

static void observe(void *observer, const char *block, const struct draft_tensor *result)
{
    struct run *run = observer;
    char name[64];
    snprintf(name, sizeof name, "block/%s", block);
    if (draft_safetensors_find(run->file, name) != NULL)
        golden_compare(run->t, run->file, name, result);
}

/* Fresh inputs that need gradients, and the forward pass. */
static bool forward(struct run *run)
{
    struct golden *t = run->t;
    draft_graph_reset(&t->g, NULL);
    run->sample = golden_input(t, run->file, "sample");
    run->call.context = golden_input(t, run->file, "context");
    run->call.t = draft_scalar(&t->g, run->timestep);
    if (run->sample == NULL || run->call.context == NULL)
        return golden_ok(t);
    run->sample->needs_grad = run->call.context->needs_grad = t->g.recording;
    run->output = draft_unet_forward(&t->g, run->unet, run->sample, &run->call);
    return golden_ok(t);
}

static bool backward(struct run *run)
{
    float *seed = golden_numbers(run->t, run->file, "d_output", NULL);
    if (seed == NULL)
        return false;
    draft_graph_backward(&run->t->g, run->output, seed);
    free(seed);
    return golden_ok(run->t);
}

struct search {
    const char *name;
    struct draft_tensor *found;
};

static void match(void *context, struct draft_tensor *weight)
{
    struct search *search = context;
    if (strcmp(weight->name, search->name) == 0)
        search->found = weight;
}

static void compare_adapter(struct run *run)
{
    static const char *const NAME[] = {"down", "up"};
    for (int i = 0; i < run->adapter->count; i++) {
        const struct draft_adapter_entry *entry = &run->adapter->entry[i];
        const struct draft_tensor *half[] = {entry->lora.down, entry->lora.up};
        for (int k = 0; k < 2; k++) {
            char key[320];
            snprintf(key, sizeof key, "grad/%s.lora.%s.weight", entry->module, NAME[k]);
            golden_compare_gradient(run->t, run->file, key, half[k]);
        }
    }
}

static void compare_weights(struct run *run)
{
    for (int i = 0; i < draft_safetensors_count(run->file); i++) {
        const char *name = draft_safetensors_at(run->file, i)->name;
        if (strncmp(name, "grad/", 5) != 0)
            continue;
        struct search search = {.name = name + 5};
        draft_unet_each_weight(run->unet, match, &search);
        if (search.found == NULL)
            golden_fail(run->t, "%s: no such weight in the model", name);
        else
            golden_compare_gradient(run->t, run->file, name, search.found);
    }
}

static void recorded(struct run *run)
{
    struct golden *t = run->t;
    if (t->options->verbose) {
        run->call.observe = observe;
        run->call.observer = run;
    }
    bool ok = forward(run);
    run->call.observe = NULL;
    if (!ok)
        return;
    golden_compare(t, run->file, "output", run->output);
    if (!backward(run))
        return;
    golden_compare_gradient(t, run->file, "d_sample", run->sample);
    golden_compare_gradient(t, run->file, "d_context", run->call.context);
    if (run->adapter != NULL)
        compare_adapter(run);
    else
        compare_weights(run);
}

/* The same with every block run twice, under the same names. */
static void recomputed(struct run *run)
{
    golden_note("recomputed block by block:");
    draft_unet_set_recompute(run->unet, true);
    recorded(run);
    draft_unet_set_recompute(run->unet, false);
}

static void cached(struct run *run)
{
    struct draft_graph *g = &run->t->g;
    golden_note("without gradient, keys and values of the context computed beforehand:");
    draft_graph_reset(g, NULL);
    bool was = draft_no_grad(g);
    struct draft_tensor *sample = golden_input(run->t, run->file, "sample");
    run->call.context = golden_input(run->t, run->file, "context");
    run->call.t = draft_scalar(g, run->timestep);
    if (sample != NULL && run->call.context != NULL) {
        run->call.cached = draft_unet_precompute(g, run->unet, run->call.context);
        run->output = draft_unet_forward(g, run->unet, sample, &run->call);
        if (golden_ok(run->t))
            golden_compare(run->t, run->file, "output", run->output);
    }
    run->call.cached = NULL;
    g->recording = was;
}

static bool open_model(struct run *run, const char *folder)
{
    struct golden *t = run->t;
    char path[4096];
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    run->file = draft_safetensors_open(path, &t->error);
    const char *rank = run->file != NULL ? draft_safetensors_metadata(run->file, "rank") : NULL;
    if (rank != NULL)
        run->adapter = draft_adapter_create(t->weights, atoi(rank), (float)atoi(rank), 0, &t->error);
    if (t->error.code == DRAFT_OK)
        run->unet = draft_unet_open(folder, t->weights, run->adapter, &t->error);
    if (!golden_ok(t))
        return false;
    if (run->adapter != NULL)
        return golden_load_adapter(t, run->file, "lora", run->adapter, false);
    return draft_unet_train_weights(run->unet, true, &t->error) || golden_ok(t);
}

void golden_unet(struct golden *t, const char *folder)
{
    struct run run = {.t = t};
    int64_t *timestep = NULL, count = 0;
    if (open_model(&run, folder) && golden_integers(t, run.file, "timestep", &timestep, &count) && count >= 1) {
        run.timestep = (double)timestep[0];
        if (!t->options->full_size)
            recorded(&run);
        if (golden_ok(t))
            recomputed(&run);
        if (golden_ok(t))
            cached(&run);
    }
    free(timestep);
    draft_safetensors_close((struct draft_safetensors *)run.file);
}
