/* Matrix products: cutting them into tasks, packing, and the linear layer's three. */
#include <assert.h>

#include "backend/cpu/state.h"

enum { TASK_ROWS = 96, TASKS_PER_THREAD = 4 };
static const double TASK_FLOPS = 1e6; /* 10 us of one core: below that a task is not worth handing over */

struct product_tasks {
    struct draft_backend *backend;
    const struct draft_product *product;
    int64_t nr;
    int64_t rows, columns; /* of a task; columns is a multiple of nr */
    int64_t row_tasks, column_tasks;
};

static void run_product_task(void *context, int64_t task, int thread)
{
    const struct product_tasks *tasks = context;
    const struct draft_kernels *kernels = tasks->backend->kernels;
    const struct draft_product *product = tasks->product;
    int64_t column = task % tasks->column_tasks * tasks->columns;
    int64_t row = task / tasks->column_tasks % tasks->row_tasks * tasks->rows;
    int64_t matrix = task / (tasks->column_tasks * tasks->row_tasks);
    struct draft_block block = product->block;
    block.m = block.m - row < tasks->rows ? block.m - row : tasks->rows;
    block.n = block.n - column < tasks->columns ? block.n - column : tasks->columns;
    block.a += matrix * product->stride_a + row * block.a_row;
    block.b += matrix * product->stride_b + column / tasks->nr * block.b_panel;
    block.c += matrix * product->stride_c + row * block.ldc + column;
    block.bias = block.bias ? block.bias + column : NULL;
    if (product->pairs) {
        float *pairs = draft_scratch_of(tasks->backend, thread);
        int64_t step = draft_pairs_step(block.k);
        kernels->pair_columns(block.m, block.k, block.a, block.a_row, pairs, step);
        block.a = pairs;
        block.a_row = step;
        block.k = draft_pairs_of(block.k);
        kernels->block_pairs(&block);
    } else {
        kernels->block(&block);
    }
    if (!product->plus)
        return;
    struct draft_block plus = *product->plus;
    plus.m = block.m;
    plus.n = block.n;
    plus.a += row * plus.a_row;
    plus.b += column / tasks->nr * plus.b_panel;
    plus.c = block.c;
    plus.ldc = block.ldc;
    plus.accumulate = true;
    kernels->block(&plus);
}

bool draft_product_reserve(struct draft_backend *backend, const struct draft_product *product, struct draft_error *err)
{
    size_t pairs = TASK_ROWS * (size_t)draft_pairs_step(product->block.k) * sizeof(float);
    return !product->pairs || draft_scratch_reserve(backend, 0, pairs, err);
}

/* As many rows for each thread: 1024 in pieces of 96 would be six for one and five for the other. */
static void even_out(int threads, int64_t m, int64_t others, struct product_tasks *tasks)
{
    while (tasks->row_tasks * others % threads != 0 && tasks->row_tasks > 1 && tasks->row_tasks < 16 * threads)
        tasks->row_tasks++;
    tasks->rows = (m + tasks->row_tasks - 1) / tasks->row_tasks;
    tasks->row_tasks = (m + tasks->rows - 1) / tasks->rows;
}

void draft_product_run(struct draft_backend *backend, const struct draft_product *product)
{
    const struct draft_block *block = &product->block;
    int64_t mr = backend->kernels->mr, nr = backend->kernels->nr;
    if (product->batch == 0 || block->m == 0 || block->n == 0)
        return;
    int64_t panels = (block->n + nr - 1) / nr;
    double flops = 2.0 * (double)product->batch * (double)block->m * (double)block->n * (double)block->k;
    int64_t want = (int64_t)(flops / TASK_FLOPS) + 1;
    if (want > (int64_t)TASKS_PER_THREAD * backend->threads)
        want = (int64_t)TASKS_PER_THREAD * backend->threads;
    if (backend->threads == 1)
        want = 1;

    struct product_tasks tasks = {.backend = backend, .product = product, .nr = nr};
    tasks.rows = block->m < TASK_ROWS ? block->m : TASK_ROWS;
    tasks.row_tasks = (block->m + tasks.rows - 1) / tasks.rows;
    int64_t pieces = (want + product->batch * tasks.row_tasks - 1) / (product->batch * tasks.row_tasks);
    int64_t panels_each = (panels + pieces - 1) / pieces;
    tasks.columns = (panels_each > 0 ? panels_each : 1) * nr;
    tasks.column_tasks = (block->n + tasks.columns - 1) / tasks.columns;
    int64_t have = product->batch * tasks.row_tasks * tasks.column_tasks;
    if (have < want && tasks.rows > mr) {
        tasks.rows = draft_round_up((tasks.rows * have + want - 1) / want, mr);
        tasks.row_tasks = (block->m + tasks.rows - 1) / tasks.rows;
    }
    even_out(backend->threads, block->m, product->batch * tasks.column_tasks, &tasks);
    draft_parallel(backend, product->batch * tasks.row_tasks * tasks.column_tasks, run_product_task, &tasks);
}

int64_t draft_packed_size(const struct draft_backend *backend, int64_t k, int64_t n)
{
    return draft_round_up(n, backend->kernels->nr) * k;
}

struct packing {
    const struct draft_kernels *kernels;
    int64_t k, n, ldb;
    const float *b;
    bool transposed;
    float *packed;
};

static void pack_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct packing *p = context;
    int64_t nr = p->kernels->nr, column = task * nr;
    p->kernels->pack_panel(p->k, p->n - column < nr ? p->n - column : nr,
                           p->b + (p->transposed ? column * p->ldb : column), p->ldb, p->transposed,
                           p->packed + column * p->k);
}

void draft_pack(struct draft_backend *backend, int64_t k, int64_t n, const float *b, int64_t ldb, bool transposed,
                float *packed)
{
    enum { WORTH_SHARING = 1 << 16 };
    struct packing packing = {backend->kernels, k, n, ldb, b, transposed, packed};
    int64_t panels = (n + backend->kernels->nr - 1) / backend->kernels->nr;
    if (k * n >= WORTH_SHARING)
        draft_parallel(backend, panels, pack_task, &packing);
    else
        for (int64_t panel = 0; panel < panels; panel++)
            pack_task(&packing, panel, 0);
}

/* --- Few output columns ------------------------------------------------------------------------------------------- */

struct thin_tasks {
    const struct draft_kernels *kernels;
    struct draft_block block; /* b is [n, k] with step b_row */
};

static void run_thin_task(void *context, int64_t task, int thread)
{
    (void)thread;
    const struct thin_tasks *tasks = context;
    const struct draft_block *b = &tasks->block;
    int64_t row = task * TASK_ROWS, rows = b->m - row < TASK_ROWS ? b->m - row : TASK_ROWS;
    tasks->kernels->thin(rows, b->n, b->k, b->a + row * b->a_row, b->a_row, b->b, b->b_row, b->c + row * b->ldc, b->ldc,
                         b->alpha, b->bias, b->accumulate);
}

static void run_thin(struct draft_backend *backend, const struct draft_block *block)
{
    struct thin_tasks tasks = {backend->kernels, *block};
    draft_parallel(backend, (block->m + TASK_ROWS - 1) / TASK_ROWS, run_thin_task, &tasks);
}

/* --- Linear ------------------------------------------------------------------------------------------------------- */

/* y[m, n] = x[m, k] b (+ bias) (+ y), where b [k, n] is a form of w in panels. */
struct form_product {
    int64_t m, n, k;
    const float *x, *bias;
    const struct draft_low_rank *term;
    float *y;
    bool accumulate;
};

/* The right matrix of a term: packed into `scratch`, or as it is where its rows are whole panels. */
static struct draft_block term_block(struct draft_backend *backend, const struct draft_low_rank *term, int64_t n,
                                     float *scratch)
{
    int64_t nr = backend->kernels->nr;
    bool plain = !term->trans_right && n % nr == 0;
    if (!plain)
        draft_pack(backend, term->r, n, term->right, term->trans_right ? term->r : n, term->trans_right, scratch);
    return (struct draft_block){.k = term->r,
                                .a = term->left,
                                .a_row = term->r,
                                .a_col = 1,
                                .b = plain ? term->right : scratch,
                                .b_panel = plain ? nr : term->r * nr,
                                .b_row = plain ? n : nr,
                                .alpha = term->scale};
}

static bool run_form_product(struct draft_backend *backend, const struct form_product *p, struct draft_tensor *w,
                             const struct draft_recipe *recipe, struct draft_error *err)
{
    int64_t nr = backend->kernels->nr;
    bool pairs = draft_is_pairs(recipe->form);
    size_t form_bytes = draft_prepared_scratch(backend, w, recipe);
    size_t term_bytes = p->term ? (size_t)draft_packed_size(backend, p->term->r, p->n) * sizeof(float) : 0;
    if (!draft_scratch_reserve(backend, form_bytes + term_bytes, 0, err))
        return false;
    char *scratch = draft_scratch_shared(backend);
    struct draft_block plus;
    struct draft_product product = {.block = {.m = p->m,
                                              .n = p->n,
                                              .k = p->k,
                                              .a = p->x,
                                              .a_row = p->k,
                                              .a_col = 1,
                                              .b = draft_prepared_get(backend, w, recipe, scratch, err),
                                              .b_row = nr,
                                              .b_panel = (pairs ? draft_pairs_of(p->k) : p->k) * nr,
                                              .c = p->y,
                                              .ldc = p->n,
                                              .alpha = 1.0f,
                                              .bias = p->bias,
                                              .accumulate = p->accumulate},
                                    .batch = 1,
                                    .pairs = pairs};
    if (!product.block.b || !draft_product_reserve(backend, &product, err))
        return false;
    if (p->term) {
        plus = term_block(backend, p->term, p->n, (float *)(void *)(scratch + form_bytes));
        product.plus = &plus;
    }
    draft_product_run(backend, &product);
    return true;
}

/* Few outputs: the form is w's own rows. */
static bool run_thin_linear(struct draft_backend *backend, const struct form_product *p, struct draft_tensor *w,
                            struct draft_error *err)
{
    struct draft_recipe recipe = draft_rows_recipe(w);
    struct draft_block block = {.m = p->m,
                                .n = p->n,
                                .k = p->k,
                                .a = p->x,
                                .a_row = p->k,
                                .a_col = 1,
                                .b = draft_form_of(backend, w, &recipe, err),
                                .b_row = p->k,
                                .c = p->y,
                                .ldc = p->n,
                                .alpha = 1.0f,
                                .bias = p->bias,
                                .accumulate = p->accumulate};
    if (!block.b)
        return false;
    run_thin(backend, &block);
    return true;
}

/* y += the term, on its own. */
static bool add_term(struct draft_backend *backend, int64_t m, int64_t n, const struct draft_low_rank *term, float *y,
                     struct draft_error *err)
{
    struct draft_gemm gemm = {.batch = 1,
                              .m = m,
                              .n = n,
                              .k = term->r,
                              .trans_b = term->trans_right,
                              .alpha = term->scale,
                              .beta = 1.0f,
                              .a = term->left,
                              .b = term->right,
                              .c = y,
                              .lda = term->r,
                              .ldb = term->trans_right ? term->r : n,
                              .ldc = n};
    return draft_cpu_gemm(backend, &gemm, err);
}

bool draft_cpu_linear(struct draft_backend *backend, int64_t m, const float *x, struct draft_tensor *w,
                      const float *bias, const struct draft_low_rank *term, float *y, bool accumulate,
                      struct draft_error *err)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    struct form_product product = {m, n, k, x, bias, term, y, accumulate};
    if (draft_is_thin(backend, n, k))
        return run_thin_linear(backend, &product, w, err) && (!term || add_term(backend, m, n, term, y, err));
    struct draft_recipe recipe = draft_forward_product_recipe(backend, w);
    return run_form_product(backend, &product, w, &recipe, err);
}

bool draft_cpu_merges(const struct draft_backend *backend, const struct draft_tensor *w)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    /* In bf16 the sum would lose what an adapter adds below the weight's last digit. */
    return w->every_step && !w->needs_grad && !draft_has_pairs(backend) && !draft_is_thin(backend, n, k);
}

bool draft_cpu_linear_merged(struct draft_backend *backend, int64_t m, const float *x, struct draft_tensor *w,
                             const float *bias, const struct draft_merge *merge, float *y, struct draft_error *err)
{
    assert(merge->run != 0 && draft_cpu_merges(backend, w));
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    struct draft_recipe recipe = draft_merged_recipe(backend, w, merge);
    return run_form_product(backend, &(struct form_product){m, n, k, x, bias, NULL, y, false}, w, &recipe, err);
}

bool draft_cpu_linear_dx(struct draft_backend *backend, int64_t m, const float *dy, struct draft_tensor *w,
                         const struct draft_low_rank *term, float *dx, bool accumulate, struct draft_error *err)
{
    int64_t n = w->dim[0], k = draft_tensor_count(w) / n;
    struct form_product product = {m, k, n, dy, NULL, term, dx, accumulate};
    struct draft_recipe recipe = draft_backward_product_recipe(backend, w);
    return run_form_product(backend, &product, w, &recipe, err);
}

bool draft_cpu_linear_dw(struct draft_backend *backend, int64_t m, int64_t n, int64_t k, const float *x,
                         const float *dy, float *dw, bool accumulate, struct draft_error *err)
{
    struct draft_gemm gemm = {
        .batch = 1,
        .m = n,
        .n = k,
        .k = m,
        .trans_a = true,
        .alpha = 1.0f,
        .beta = accumulate ? 1.0f : 0.0f,
        .a = dy,
        .b = x,
        .c = dw,
        .lda = n,
        .ldb = k,
        .ldc = k,
    };
    return draft_cpu_gemm(backend, &gemm, err);
}

/* --- General ------------------------------------------------------------------------------------------------------ */

static void scale_matrix(const struct draft_gemm *g, int64_t matrix)
{
    for (int64_t i = 0; i < g->m; i++) {
        float *row = g->c + matrix * g->stride_c + i * g->ldc;
        for (int64_t j = 0; j < g->n; j++)
            row[j] *= g->beta;
    }
}

/* Few columns of a [k, n] matrix: turned into [n, k] for dot products. */
static bool thin_turned(struct draft_backend *backend, const struct draft_block *block, const struct draft_gemm *g,
                        struct draft_error *err)
{
    if (!draft_scratch_reserve(backend, (size_t)(g->n * g->k) * sizeof(float), 0, err))
        return false;
    float *turned = draft_scratch_shared(backend);
    for (int64_t p = 0; p < g->k; p++)
        for (int64_t j = 0; j < g->n; j++)
            turned[j * g->k + p] = g->b[p * g->ldb + j];
    struct draft_block thin = *block;
    thin.b = turned;
    thin.b_row = g->k;
    run_thin(backend, &thin);
    return true;
}

/* Few columns of a^T b: computed as (b^T a)^T, whose rows are long. */
static bool thin_result(struct draft_backend *backend, const struct draft_gemm *g, struct draft_error *err)
{
    int64_t nr = backend->kernels->nr, result = draft_round_up(g->n * g->m, 16);
    bool plain = g->m % nr == 0;
    int64_t packed = plain ? 0 : draft_packed_size(backend, g->k, g->m);
    if (!draft_scratch_reserve(backend, (size_t)(result + packed) * sizeof(float), 0, err))
        return false;
    float *turned = draft_scratch_shared(backend), *right = turned + result;
    if (!plain)
        draft_pack(backend, g->k, g->m, g->a, g->lda, false, right);
    struct draft_product product = {.block = {.m = g->n,
                                              .n = g->m,
                                              .k = g->k,
                                              .a = g->b,
                                              .a_row = g->trans_b ? g->ldb : 1,
                                              .a_col = g->trans_b ? 1 : g->ldb,
                                              .b = plain ? g->a : right,
                                              .b_panel = plain ? nr : g->k * nr,
                                              .b_row = plain ? g->lda : nr,
                                              .c = turned,
                                              .ldc = g->m,
                                              .alpha = g->alpha},
                                    .batch = 1};
    draft_product_run(backend, &product);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            float *c = g->c + i * g->ldc + j;
            *c = g->beta != 0.0f ? *c + turned[j * g->m + i] : turned[j * g->m + i];
        }
    return true;
}

bool draft_cpu_gemm(struct draft_backend *backend, const struct draft_gemm *g, struct draft_error *err)
{
    enum { SCRATCH_FLOATS = 1 << 24 }; /* packed matrices at a time */
    int64_t nr = backend->kernels->nr;
    if (g->beta != 0.0f && g->beta != 1.0f)
        for (int64_t i = 0; i < g->batch; i++)
            scale_matrix(g, i);
    struct draft_product product = {.block = {.m = g->m,
                                              .n = g->n,
                                              .k = g->k,
                                              .a = g->a,
                                              .a_row = g->trans_a ? 1 : g->lda,
                                              .a_col = g->trans_a ? g->lda : 1,
                                              .c = g->c,
                                              .ldc = g->ldc,
                                              .alpha = g->alpha,
                                              .accumulate = g->beta != 0.0f},
                                    .batch = g->batch,
                                    .stride_a = g->stride_a,
                                    .stride_c = g->stride_c};
    if (g->batch == 1 && g->trans_b && !g->trans_a && draft_is_thin(backend, g->n, g->k)) {
        product.block.b = g->b;
        product.block.b_row = g->ldb;
        run_thin(backend, &product.block);
        return true;
    }
    if (g->batch == 1 && draft_is_thin(backend, g->n, g->k))
        return g->trans_a ? thin_result(backend, g, err) : thin_turned(backend, &product.block, g, err);
    if (!g->trans_b && g->n % nr == 0) {
        product.block.b = g->b;
        product.block.b_panel = nr;
        product.block.b_row = g->ldb;
        product.stride_b = g->stride_b;
        draft_product_run(backend, &product);
        return true;
    }
    int64_t floats = draft_round_up(draft_packed_size(backend, g->k, g->n), 16);
    int64_t together = floats > 0 ? SCRATCH_FLOATS / floats : g->batch;
    together = together < 1 ? 1 : together > g->batch ? g->batch : together;
    if (!draft_scratch_reserve(backend, (size_t)(floats * together) * sizeof(float), 0, err))
        return false;
    float *packed = draft_scratch_shared(backend);
    product.block.b = packed;
    product.block.b_panel = g->k * nr;
    product.block.b_row = nr;
    product.stride_b = floats;
    for (int64_t first = 0; first < g->batch; first += together) {
        product.batch = g->batch - first < together ? g->batch - first : together;
        product.block.a = g->a + first * g->stride_a;
        product.block.c = g->c + first * g->stride_c;
        for (int64_t i = 0; i < product.batch; i++)
            draft_pack(backend, g->k, g->n, g->b + (first + i) * g->stride_b, g->ldb, g->trans_b, packed + i * floats);
        draft_product_run(backend, &product);
    }
    return true;
}
