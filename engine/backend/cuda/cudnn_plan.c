#include "backend/cuda/cudnn_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cudnn_cache.h"

enum { BUCKETS = 256, CONFIGURATIONS = 24 };

struct entry {
    struct draft_cudnn_plan plan; /* first: what the caller is given */
    struct entry *next;
    int64_t number[DRAFT_CUDNN_NUMBERS];
    void (*describe)(struct draft_cudnn_graph *graph, const int64_t *number);
    struct draft_cudnn_graph graph; /* keeps the plan's descriptor, and those it stands on, alive */
    draft_cudnn_descriptor executable;
};

struct draft_cudnn {
    cudnnHandle_t handle; /* NULL: the device is only described */
    struct draft_cudnn_graph device_graph;
    draft_cudnn_descriptor device;
    char *device_text;
    char *cache;
    struct entry *bucket[BUCKETS];
};

/* --- The library and the device -------------------------------------------------------------------------------------
 */

bool draft_cudnn_usable(struct draft_error *err)
{
    enum { FIRST_WITH_DESCRIPTIONS = 90800, CUDA_MAJOR = 1000 };
    size_t version = cudnnGetVersion(), runtime = cudnnGetCudartVersion();
    if (version / 10000 != CUDNN_MAJOR || version < FIRST_WITH_DESCRIPTIONS)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "the cuDNN found is %zu.%zu.%zu, 9.8 or a newer 9 is needed; install it, name its folder in "
                          "DRAFT_CUDA_LIBRARIES, or use --device cpu",
                          version / 10000, version % 10000 / 100, version % 100);
    if (runtime / CUDA_MAJOR != CUDART_VERSION / CUDA_MAJOR)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "the cuDNN found is the one for CUDA %zu, this program needs the one for CUDA %d; install "
                          "it, name its folder in DRAFT_CUDA_LIBRARIES, or use --device cpu",
                          runtime / CUDA_MAJOR, CUDART_VERSION / CUDA_MAJOR);
    return true;
}

/* malloc'd text of an attribute; NULL: the graph's error is set. */
static char *text_of(struct draft_cudnn_graph *graph, draft_cudnn_descriptor descriptor,
                     cudnnBackendAttributeName_t name, const char *doing)
{
    int64_t size = 0;
    if (!draft_cudnn_ok(graph, cudnnBackendGetAttribute(descriptor, name, CUDNN_TYPE_CHAR, 0, &size, NULL), doing))
        return NULL;
    char *text = calloc(1, (size_t)size + 1);
    if (text == NULL) {
        draft_fail(&graph->error, DRAFT_OUT_OF_MEMORY, "no memory for %lld letters of cuDNN's", (long long)size);
        return NULL;
    }
    if (!draft_cudnn_ok(graph, cudnnBackendGetAttribute(descriptor, name, CUDNN_TYPE_CHAR, size, &size, text), doing)) {
        free(text);
        return NULL;
    }
    return text;
}

static bool open_device(struct draft_cudnn *cudnn, const char *described, struct draft_error *err)
{
    struct draft_cudnn_graph *graph = &cudnn->device_graph;
    cudnn->device = draft_cudnn_make(graph, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    if (described != NULL)
        draft_cudnn_set(graph, cudnn->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                        (int64_t)strlen(described), described);
    else
        draft_cudnn_set(graph, cudnn->device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &cudnn->handle);
    draft_cudnn_finish(graph, cudnn->device, "looking at the device");
    if (graph->error.code == DRAFT_OK)
        cudnn->device_text =
            text_of(graph, cudnn->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, "looking at the device");
    return cudnn->device_text != NULL || draft_fail(err, graph->error.code, "%s", graph->error.message);
}

static bool start(struct draft_cudnn *cudnn, const struct draft_cudnn_options *options, struct draft_error *err)
{
    struct draft_cudnn_graph *graph = &cudnn->device_graph;
    if (draft_cudnn_ok(graph, cudnnCreate(&cudnn->handle), "starting") &&
        draft_cudnn_ok(graph, cudnnSetStream(cudnn->handle, options->stream), "taking the stream"))
        return true;
    return draft_fail(err, DRAFT_FAILED_PRECONDITION, "%s; is there memory left on the GPU?", graph->error.message);
}

struct draft_cudnn *draft_cudnn_create(const struct draft_cudnn_options *options, struct draft_error *err)
{
    if (!draft_cudnn_usable(err))
        return NULL;
    struct draft_cudnn *cudnn = calloc(1, sizeof *cudnn);
    if (cudnn == NULL || (options->cache != NULL && (cudnn->cache = strdup(options->cache)) == NULL)) {
        free(cudnn);
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for cuDNN's plans");
        return NULL;
    }
    if ((options->described != NULL || start(cudnn, options, err)) && open_device(cudnn, options->described, err))
        return cudnn;
    draft_cudnn_destroy(cudnn);
    return NULL;
}

static void free_entry(struct entry *entry)
{
    draft_cudnn_graph_clear(&entry->graph);
    free(entry);
}

void draft_cudnn_destroy(struct draft_cudnn *cudnn)
{
    if (cudnn == NULL)
        return;
    for (int i = 0; i < BUCKETS; i++)
        while (cudnn->bucket[i] != NULL) {
            struct entry *entry = cudnn->bucket[i];
            cudnn->bucket[i] = entry->next;
            free_entry(entry);
        }
    draft_cudnn_graph_clear(&cudnn->device_graph);
    if (cudnn->handle != NULL)
        cudnnDestroy(cudnn->handle);
    free(cudnn->device_text);
    free(cudnn->cache);
    free(cudnn);
}

/* --- Choosing an engine ---------------------------------------------------------------------------------------------
 */

/* An engine's notes: whether its sums have a fixed order, and whether it is compiled at run time. */
static bool read_notes(draft_cudnn_descriptor configuration, draft_cudnn_descriptor engine, bool *compiled,
                       int64_t *number)
{
    int64_t n = 0;
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behaviour[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    if (cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                 &engine) != CUDNN_STATUS_SUCCESS ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, number) !=
            CUDNN_STATUS_SUCCESS ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, numerical) != CUDNN_STATUS_SUCCESS)
        return false;
    for (int64_t i = 0; i < n; i++)
        if (numerical[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
            return false;
    if (cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &n, behaviour) != CUDNN_STATUS_SUCCESS)
        return false;
    *compiled = false;
    for (int64_t i = 0; i < n; i++)
        *compiled |= behaviour[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    return true;
}

static void set_reason(struct draft_cudnn_plan *plan, const char *reason)
{
    snprintf(plan->reason, sizeof plan->reason, "%.*s", (int)strcspn(reason, "\n"), reason);
}

/* How much workspace a finished plan needs; false: more than is allowed, or cuDNN does not say. */
static bool fits(struct entry *entry, draft_cudnn_descriptor plan, const struct draft_cudnn_request *request)
{
    int64_t n = 0, workspace = 0;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &workspace) !=
            CUDNN_STATUS_SUCCESS ||
        workspace < 0 || (size_t)workspace > request->most_workspace) {
        snprintf(entry->plan.reason, sizeof entry->plan.reason, "it needs a workspace of %lld bytes",
                 (long long)workspace);
        return false;
    }
    entry->plan.workspace = (size_t)workspace;
    return true;
}

static bool finish_plan(struct draft_cudnn *cudnn, struct entry *entry, draft_cudnn_descriptor configuration,
                        const struct draft_cudnn_request *request)
{
    struct draft_cudnn_graph *graph = &entry->graph;
    draft_cudnn_descriptor engine = draft_cudnn_make(graph, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (graph->error.code != DRAFT_OK ||
        !read_notes(configuration, engine, &entry->plan.compiled, &entry->plan.engine)) {
        set_reason(&entry->plan, "its engines do not give the same bits every run");
        return false;
    }
    if (entry->plan.compiled && !request->compiled) {
        set_reason(&entry->plan, "there are only engines that are compiled at run time");
        return false;
    }
    draft_cudnn_descriptor plan = draft_cudnn_make(graph, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    draft_cudnn_attach(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    draft_cudnn_attach(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, cudnn->device);
    draft_cudnn_finish(graph, plan, "finishing a plan");
    if (graph->error.code == DRAFT_INTERNAL) { /* this engine cannot; the next may */
        set_reason(&entry->plan, graph->error.message);
        graph->error = (struct draft_error){0};
        return false;
    }
    if (graph->error.code != DRAFT_OK || !fits(entry, plan, request))
        return false;
    entry->executable = plan;
    return true;
}

/* The first configuration, best first, that can be finished. */
static void choose(struct draft_cudnn *cudnn, struct entry *entry, draft_cudnn_descriptor operations,
                   cudnnBackendHeurMode_t mode, const struct draft_cudnn_request *request)
{
    struct draft_cudnn_graph *graph = &entry->graph;
    draft_cudnn_descriptor heuristics = draft_cudnn_make(graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    draft_cudnn_descriptor configuration[CONFIGURATIONS];
    int64_t found = 0;
    draft_cudnn_attach(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    draft_cudnn_set(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    draft_cudnn_attach(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, cudnn->device);
    draft_cudnn_finish(graph, heuristics, "asking for engines");
    for (int i = 0; i < CONFIGURATIONS; i++)
        configuration[i] = draft_cudnn_make(graph, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (graph->error.code == DRAFT_OK)
        draft_cudnn_ok(graph,
                       cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, CONFIGURATIONS, &found, configuration),
                       "asking for engines");
    if (graph->error.code == DRAFT_INTERNAL) {
        set_reason(&entry->plan, graph->error.message);
        graph->error = (struct draft_error){0};
        found = 0;
    }
    for (int64_t i = 0; i < found && entry->executable == NULL && graph->error.code == DRAFT_OK; i++)
        finish_plan(cudnn, entry, configuration[i], request);
}

/* --- Plans on disk --------------------------------------------------------------------------------------------------
 */

/* malloc'd; NULL: no memory, or no cache. */
static char *key_of(const struct draft_cudnn *cudnn, const struct draft_cudnn_graph *graph,
                    const struct draft_cudnn_request *request)
{
    char *key = NULL;
    if (cudnn->cache == NULL || asprintf(&key, "cuDNN %zu CUDA %zu workspace %zu compiled %d\n%s\n%s",
                                         cudnnGetVersion(), cudnnGetCudartVersion(), request->most_workspace,
                                         request->compiled, cudnn->device_text, graph->text) < 0)
        return NULL;
    return key;
}

static bool read_back(struct draft_cudnn *cudnn, struct entry *entry, const char *key,
                      const struct draft_cudnn_request *request)
{
    char *text = key != NULL ? draft_cudnn_cache_read(cudnn->cache, key) : NULL;
    if (text == NULL)
        return false;
    struct draft_cudnn_graph *graph = &entry->graph;
    draft_cudnn_descriptor plan = draft_cudnn_make(graph, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    draft_cudnn_attach(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, cudnn->device);
    draft_cudnn_set(graph, plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(text),
                    text);
    draft_cudnn_finish(graph, plan, "reading a plan");
    free(text);
    bool ok = graph->error.code == DRAFT_OK && fits(entry, plan, request);
    graph->error = (struct draft_error){0};
    if (ok) {
        entry->executable = plan;
        entry->plan.engine = -1;
    }
    return ok;
}

static void write_down(struct draft_cudnn *cudnn, struct entry *entry, const char *key)
{
    struct draft_cudnn_graph unseen = {0};
    char *text = key != NULL ? text_of(&unseen, entry->executable, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                       "writing a plan down")
                             : NULL;
    if (text != NULL)
        draft_cudnn_cache_write(cudnn->cache, key, text);
    free(text);
}

/* --- The table ------------------------------------------------------------------------------------------------------
 */

static bool make_plan(struct draft_cudnn *cudnn, struct entry *entry, const struct draft_cudnn_request *request,
                      struct draft_error *err)
{
    struct draft_cudnn_graph *graph = &entry->graph;
    request->describe(graph, request->number);
    draft_cudnn_descriptor operations = draft_cudnn_make(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    draft_cudnn_set(graph, operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->operations,
                    graph->operation);
    draft_cudnn_finish(graph, operations, "finishing a graph");
    if (graph->error.code == DRAFT_INTERNAL) { /* cuDNN knows no such graph */
        set_reason(&entry->plan, graph->error.message);
        return true;
    }
    char *key = graph->error.code == DRAFT_OK ? key_of(cudnn, graph, request) : NULL;
    if (graph->error.code == DRAFT_OK && !read_back(cudnn, entry, key, request)) {
        choose(cudnn, entry, operations, CUDNN_HEUR_MODE_A, request);
        if (entry->executable == NULL && graph->error.code == DRAFT_OK)
            choose(cudnn, entry, operations, CUDNN_HEUR_MODE_FALLBACK, request);
        if (entry->executable != NULL)
            write_down(cudnn, entry, key);
    }
    free(key);
    entry->plan.supported = entry->executable != NULL;
    return graph->error.code == DRAFT_OK ||
           draft_fail(err, graph->error.code, "%s: %s", request->what, graph->error.message);
}

const struct draft_cudnn_plan *draft_cudnn_plan(struct draft_cudnn *cudnn, const struct draft_cudnn_request *request,
                                                struct draft_error *err)
{
    uint64_t hash = 0;
    for (int i = 0; i < DRAFT_CUDNN_NUMBERS; i++)
        hash = (hash ^ (uint64_t)request->number[i]) * UINT64_C(0x9e3779b97f4a7c15);
    struct entry **bucket = &cudnn->bucket[hash >> 56];
    for (struct entry *e = *bucket; e != NULL; e = e->next)
        if (e->describe == request->describe && memcmp(e->number, request->number, sizeof e->number) == 0)
            return &e->plan;
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the plan of %s", request->what);
        return NULL;
    }
    memcpy(entry->number, request->number, sizeof entry->number);
    entry->describe = request->describe;
    if (!make_plan(cudnn, entry, request, err)) {
        free_entry(entry);
        return NULL;
    }
    entry->next = *bucket;
    *bucket = entry;
    return &entry->plan;
}

/* --- Execution ------------------------------------------------------------------------------------------------------
 */

bool draft_cudnn_execute(struct draft_cudnn *cudnn, const struct draft_cudnn_plan *plan, int count, const int64_t *id,
                         const void *const *memory, void *workspace, struct draft_error *err)
{
    const struct entry *entry = (const struct entry *)plan;
    struct draft_cudnn_graph pack = {0};
    draft_cudnn_descriptor bound = draft_cudnn_make(&pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    draft_cudnn_set(&pack, bound, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, id);
    draft_cudnn_set(&pack, bound, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, memory);
    draft_cudnn_set(&pack, bound, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    draft_cudnn_finish(&pack, bound, "binding memory");
    if (pack.error.code == DRAFT_OK)
        draft_cudnn_ok(&pack, cudnnBackendExecute(cudnn->handle, entry->executable, bound), "executing a plan");
    bool ok = pack.error.code == DRAFT_OK || draft_fail(err, pack.error.code, "%s", pack.error.message);
    draft_cudnn_graph_clear(&pack);
    return ok;
}
