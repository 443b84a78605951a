/* Matrix products and the grouped expert FFN: which thread takes which panel and rows, and what happens to a finished
 * tile. The multiplying itself is cpu_kernels.panel.
 *
 * Two things decide here, and they pull apart. With few rows a product costs the reading of its weights: threads take
 * neighbouring panels, so that each reads memory in long runs, and what comes next is fetched ahead. With many rows it
 * costs arithmetic: rows are cut into tiles, and a chunk of weights is used by all tiles while it is near.
 *
 * Nothing here may change a bit: a task is a whole output panel for some rows, and K is never split between threads. A
 * chain that goes on over several chunks continues in the accumulator where it stopped, as one chain (docs/numeric.md).
 * Figures: docs/benchmarks.md. */
#include "compute/cpu_priv.h"

#include <string.h>

/* FEW_ROWS: parts of rows are multiples of it, as AVX-512 takes so many at once. SOME_ROWS: up to this many rows a
 * product is still near the memory's limit; with shorter chunks there the experts of OLMoE went from 74 to 86 % of the
 * limit at 8 rows and from 69 to 82 % at 16 (one thread, Zen 5). */
#define FEW_ROWS  6
#define SOME_ROWS 18

/* f32 that n_rows rows take in `wide` for so many units of m; 0: kernels take them as they are. */
static size_t wide_floats(const cpu_device *d, const compute_matrix *m, size_t n_rows, size_t n_units)
{
    const cpu_rows *rows = d->kernels->rows;

    return rows == NULL || rows->of[m->kind] == NULL
               ? 0
               : (n_units + rows->piece_units - 1) / rows->piece_units * n_rows * rows->floats;
}

/* Short chunks keep memory busy while few rows are computed; long ones save the accumulators' way to L1 and back. */
static size_t chunk_units(const cpu_device *d, const compute_matrix *m, size_t n_rows)
{
    if (!m->packed) {
        return CPU_CHUNK_UNITS;
    }
    if (n_rows <= d->kernels->rows_at_once && wide_floats(d, m, n_rows, m->n_units) <= CPU_WIDE_FLOATS) {
        return m->n_units;
    }
    return n_rows <= SOME_ROWS ? CPU_CHUNK_UNITS / 2 : d->kernels->chunk_units;
}

/* Rows of a product: of this group of the op, n from `row` on. */
typedef struct row_set {
    const void *const *x;
    size_t group, row, n;
} row_set;

/* Widening rows takes up to a twelfth of what multiplying them by a panel takes, so a thread keeps the last ones if all
 * of their k fit. True: `wide` holds these. False: it is going to be written. */
static bool wide_kept(const cpu_device *d, size_t thread, const row_set *rows, bool fit)
{
    cpu_wide_of *of = &d->wide_of[thread];
    bool same = fit && of->op == d->op && of->group == rows->group && of->row == rows->row && of->n_rows == rows->n;

    *of = (cpu_wide_of){fit ? d->op : 0, rows->group, rows->row, rows->n};
    return same;
}

/* acc[r][0 .. CPU_PANEL) = rows x through one panel of m, chunk by chunk, so that every row has used a chunk while it
 * is near. A mapped panel is packed a chunk at a time. A few rows pass over a packed panel at once. after: the panel
 * that this thread reads next, if it knows. */
static void multiply(const cpu_device *d, const compute_matrix *m, size_t panel, const row_set *rows, float *acc,
                     size_t stride, size_t thread, const uint32_t *after)
{
    size_t per_unit = m->kind == CPU_F32 ? 1 : 2;
    size_t k_end = m->kind == CPU_PAIR ? 2 * m->n_units : m->n_in; /* only the bf16 class feeds its padding */
    size_t step = chunk_units(d, m, rows->n), wide_step = wide_floats(d, m, rows->n, step);
    bool fit = (m->n_units + step - 1) / step * wide_step <= CPU_WIDE_FLOATS;
    bool kept = wide_step > 0 && wide_kept(d, thread, rows, fit);
    float *wide = wide_step > 0 ? d->wide + thread * CPU_WIDE_FLOATS : NULL;

    for (size_t begin = 0; begin < m->n_units; begin += step) {
        size_t end = cpu_min(begin + step, m->n_units), k = begin * per_unit, k_last = cpu_min(end * per_unit, k_end);
        const uint32_t *w = cpu_matrix_units(d, m, panel, begin, end, thread);
        const uint32_t *next = !m->packed ? NULL : end < m->n_units ? w + step * CPU_PANEL : after;
        const void *prepared[1] = {wide};

        if (wide != NULL && !kept) {
            d->kernels->rows->of[m->kind](wide, rows->x, rows->n, k, k_last);
        }
        d->kernels->panel[m->kind](acc, stride, wide == NULL ? rows->x : prepared, rows->n, w, k, k_last, next);
        wide = wide != NULL && fit ? wide + wide_step : wide;
    }
}

static float *thread_acc(const cpu_device *d, size_t thread)
{
    return d->acc + thread * 2 * CPU_TILE_ROWS * CPU_PANEL;
}

/* Copies rows of an odd width behind each other with a zero after each; rows NULL: 0, 1, 2, ... */
static void pad_rows(cpu_device *d, const unsigned char *x, const uint32_t *rows, size_t n, size_t width, size_t at)
{
    uint16_t *to = (uint16_t *)(void *)d->padded + at * (width + 1);

    for (size_t i = 0; i < n; i++) {
        memcpy(to + i * (width + 1), x + (rows == NULL ? i : rows[i]) * width * 2, width * 2);
        to[i * (width + 1) + width] = 0;
    }
}

static bool needs_padding(const compute_matrix *m)
{
    return m->kind == CPU_PAIR && m->n_in % 2 != 0;
}

static size_t n_panels(const compute_matrix *m)
{
    return (m->n_out + CPU_PANEL - 1) / CPU_PANEL;
}

/* Parts that the rows of a matrix are cut into when its panels alone are too few tasks for the threads: about four
 * tasks a thread. Chosen, not measured. */
static size_t row_parts(const cpu_device *d, size_t n_rows, size_t n_tasks)
{
    return d->n_threads == 1 ? 1 : MOE_MAX(1, cpu_min((n_rows + FEW_ROWS - 1) / FEW_ROWS, 4 * d->n_threads / n_tasks));
}

/* n rows in equal pieces of at most `most`, a multiple of what a kernel takes at once. */
static size_t equal_rows(size_t n, size_t most)
{
    size_t pieces = (n + most - 1) / most;

    return pieces <= 1 ? most : moe_round_up((n + pieces - 1) / pieces, FEW_ROWS);
}

/* The first rows and number of rows of one of the parts. */
static size_t part_rows(size_t n, size_t parts, size_t part, size_t *first)
{
    size_t each = moe_round_up((n + parts - 1) / parts, FEW_ROWS);

    *first = cpu_min(part * each, n);
    return cpu_min(each, n - *first);
}

/* The tasks of one pass over the threads, in this order: group, tile, panel, part. A part is a share of a group's rows, and
 * has tiles where its rows, widened, would have to be made again for each panel: every panel takes one tile before the
 * next. Where rows are taken as they are there is one, and a panel that is near takes all rows. */
typedef struct grid {
    size_t n_groups, panels, parts, tiles; /* the most that any group has */
    bool even;                             /* tasks of few rows take equally long */
} grid;

typedef struct grid_task {
    size_t group, tile, panel, part;
} grid_task;

static grid make_grid(const cpu_device *d, const compute_matrix *m, size_t n_groups, size_t panels, size_t most_rows,
                      size_t even_rows)
{
    grid g = {n_groups, panels, row_parts(d, most_rows, n_groups * panels), 1, most_rows <= even_rows};
    size_t first, n = part_rows(most_rows, g.parts, 0, &first);

    if (wide_floats(d, m, 1, 1) > 0) {
        g.tiles = MOE_MAX(1, (n + CPU_TILE_ROWS - 1) / CPU_TILE_ROWS);
    }
    return g;
}

static grid_task find_task(const grid *g, size_t task)
{
    size_t panel = task / g->parts, tile = panel / g->panels;

    return (grid_task){tile / g->tiles, tile % g->tiles, panel % g->panels, task % g->parts};
}

/* The rows of a task of a group with n rows; 0: none. */
static size_t task_rows(const grid *g, const grid_task *t, size_t n, size_t *first)
{
    size_t n_part = part_rows(n, g->parts, t->part, first);

    if (g->tiles == 1) {
        return n_part;
    }
    size_t each = equal_rows(n_part, CPU_TILE_ROWS), row = cpu_min(t->tile * each, n_part);
    *first += row;
    return cpu_min(each, n_part - row);
}

/* The one that the same thread probably takes next; a group that is not there: none. */
static grid_task next_task(const cpu_device *d, const grid *g, size_t task)
{
    return find_task(g, task + (g->even ? 1 : d->n_threads));
}

/* Even tasks, those of few rows, only read memory, which is fastest in long runs: threads take neighbours. */
static void run_tasks(cpu_device *d, const grid *g, moe_threads_fn fn, void *job)
{
    size_t n_tasks = g->n_groups * g->tiles * g->panels * g->parts;

    d->op++;
    (g->even ? moe_threads_run_even : moe_threads_run)(d->options.threads, n_tasks, fn, job);
}

/* Where packed panel `panel` starts, for prefetching; NULL: there is none. */
static const uint32_t *panel_start(const cpu_device *d, const compute_matrix *m, size_t panel)
{
    return m->packed && panel < n_panels(m) ? cpu_matrix_units(d, m, panel, 0, 1, 0) : NULL;
}

/* ------------------------------------------------------------------------------------------------ matmul */
typedef struct matmul_job {
    const cpu_device *d;
    const compute_matrix *w;
    const unsigned char *x;
    const float *bias; /* NULL: none */
    float *out;
    size_t row_bytes, n;
    grid tasks;
} matmul_job;

static void matmul_tile(const matmul_job *job, size_t panel, size_t row, size_t n, size_t thread, const uint32_t *after)
{
    const compute_matrix *w = job->w;
    size_t first = panel * CPU_PANEL, width = cpu_min(CPU_PANEL, w->n_out - first);
    bool direct = width == CPU_PANEL;
    float *out = job->out + row * w->n_out + first;
    float *acc = direct ? out : thread_acc(job->d, thread);
    size_t stride = direct ? w->n_out : CPU_PANEL;
    const void *x[CPU_TILE_ROWS] = {NULL};

    for (size_t r = 0; r < n; r++) {
        x[r] = job->x + (row + r) * job->row_bytes;
    }
    multiply(job->d, w, panel, &(row_set){x, 0, row, n}, acc, stride, thread, after);
    for (size_t r = 0; r < n; r++) {
        if (job->bias != NULL) {
            job->d->kernels->add(acc + r * stride, job->bias + first, width);
        }
        if (!direct) {
            memcpy(out + r * w->n_out, acc + r * stride, width * sizeof(*out));
        }
    }
}

static void matmul_task(void *ctx, size_t task, size_t thread)
{
    const matmul_job *job = ctx;
    grid_task t = find_task(&job->tasks, task), next = next_task(job->d, &job->tasks, task);
    size_t first, n = task_rows(&job->tasks, &t, job->n, &first), each = equal_rows(n, CPU_TILE_ROWS);
    const uint32_t *after = next.group == 0 ? panel_start(job->d, job->w, next.panel) : NULL;

    for (size_t row = 0; row < n; row += each) {
        matmul_tile(job, t.panel, first + row, cpu_min(each, n - row), thread, row + each < n ? NULL : after);
    }
}

static void matmul(cpu_device *d, float *out, const unsigned char *x, const compute_matrix *w, const float *bias,
                   size_t n)
{
    matmul_job job = {d, w, x, bias, out, w->n_in * (w->kind == CPU_PAIR ? 2 : 4), n, {0}};

    MOE_ASSERT(n <= d->options.max_rows);
    if (n == 0) {
        return;
    }
    if (needs_padding(w)) {
        pad_rows(d, x, NULL, n, w->n_in, 0);
        job.x = d->padded;
        job.row_bytes += 2;
    }
    job.tasks = make_grid(d, w, 1, n_panels(w), n, SOME_ROWS);
    run_tasks(d, &job.tasks, matmul_task, &job);
}

void cpu_matmul(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                const compute_mem *bias, size_t n)
{
    MOE_ASSERT((w->kind == CPU_PAIR) == (d->numeric_class == COMPUTE_CLASS_BF16_1));
    matmul((cpu_device *)d, (float *)(void *)out, (const unsigned char *)x, w, (const float *)(const void *)bias, n);
}

void cpu_matmul_f32(compute_device *d, compute_mem *out, const compute_mem *x, const compute_matrix *w,
                    const compute_mem *bias, size_t n)
{
    MOE_ASSERT(w->kind != CPU_PAIR);
    matmul((cpu_device *)d, (float *)(void *)out, (const unsigned char *)x, w, (const float *)(const void *)bias, n);
}

/* ------------------------------------------------------------------------------------------------ routed matmul */
typedef struct routed_job {
    const cpu_device *d;
    const compute_routed *groups;
    const unsigned char *x;
    float *out;
    size_t row_bytes;
    grid tasks;
} routed_job;

/* Row i of a group: where the caller has it or, padded, behind the rows of the groups before. */
static const unsigned char *routed_row(const routed_job *job, const compute_routed *g, size_t i)
{
    size_t first = 0;

    if (!needs_padding(g->w)) {
        return job->x + g->rows[i] * job->row_bytes;
    }
    for (const compute_routed *before = job->groups; before < g; before++) {
        first += before->n_rows;
    }
    return job->d->padded + (first + i) * job->row_bytes;
}

static void routed_tile(const routed_job *job, const compute_routed *g, size_t panel, size_t row, size_t n,
                        size_t thread, const uint32_t *after)
{
    size_t first = panel * CPU_PANEL, width = cpu_min(CPU_PANEL, g->w->n_out - first);
    float *acc = thread_acc(job->d, thread);
    const void *x[CPU_TILE_ROWS] = {NULL};

    for (size_t r = 0; r < n; r++) {
        x[r] = routed_row(job, g, row + r);
    }
    multiply(job->d, g->w, panel, &(row_set){x, (size_t)(g - job->groups), row, n}, acc, CPU_PANEL, thread, after);
    for (size_t r = 0; r < n; r++) {
        memcpy(job->out + g->out_rows[row + r] * g->w->n_out + first, acc + r * CPU_PANEL, width * sizeof(*acc));
    }
}

static void routed_task(void *ctx, size_t task, size_t thread)
{
    const routed_job *job = ctx;
    grid_task t = find_task(&job->tasks, task), next = next_task(job->d, &job->tasks, task);
    const compute_routed *g = &job->groups[t.group];
    size_t first, n = task_rows(&job->tasks, &t, g->n_rows, &first), each = equal_rows(n, CPU_TILE_ROWS);
    const uint32_t *after =
        next.group < job->tasks.n_groups ? panel_start(job->d, job->groups[next.group].w, next.panel) : NULL;

    for (size_t row = 0; row < n; row += each) {
        routed_tile(job, g, t.panel, first + row, cpu_min(each, n - row), thread, row + each < n ? NULL : after);
    }
}

void cpu_matmul_routed(compute_device *device, compute_mem *out, const compute_mem *x, const compute_routed *groups,
                       size_t n_groups)
{
    cpu_device *d = (cpu_device *)device;
    routed_job job = {.d = d, .groups = groups, .x = (const unsigned char *)x, .out = (float *)(void *)out};
    size_t most_rows = 0, n_rows = 0;

    for (size_t i = 0; i < n_groups; i++) {
        const compute_matrix *w = groups[i].w;

        MOE_ASSERT((w->kind == CPU_PAIR) == (device->numeric_class == COMPUTE_CLASS_BF16_1));
        MOE_ASSERT(w->n_in == groups[0].w->n_in && w->n_out == groups[0].w->n_out);
        if (needs_padding(w)) {
            MOE_ASSERT(n_rows + groups[i].n_rows <= d->options.max_routed_rows);
            pad_rows(d, job.x, groups[i].rows, groups[i].n_rows, w->n_in, n_rows);
        }
        job.row_bytes = w->kind == CPU_PAIR ? moe_round_up(w->n_in, 2) * 2 : w->n_in * 4;
        most_rows = MOE_MAX(most_rows, groups[i].n_rows);
        n_rows += groups[i].n_rows;
    }
    if (n_rows == 0) {
        return;
    }
    job.tasks = make_grid(d, groups[0].w, n_groups, n_panels(groups[0].w), most_rows, FEW_ROWS);
    run_tasks(d, &job.tasks, routed_task, &job);
}

/* ------------------------------------------------------------------------------------------------ expert FFN
 * Two passes over the threads: gate and up of all experts, then down of all experts. */
typedef struct ffn_job {
    cpu_device *d;
    unsigned char *out;
    const unsigned char *x;
    const compute_group *groups;
    size_t bytes;  /* of the class dtype */
    grid tasks[2]; /* of each pass */
} ffn_job;

/* Of every expert, whatever its width: groups must not overlap. */
static size_t hidden_stride(const ffn_job *job)
{
    return moe_round_up(job->d->options.max_d_ff, 2);
}

/* Brings near what store_class will write, so that its stores do not wait for lines of other caches one by one. */
static void fetch_class(const ffn_job *job, const unsigned char *to, size_t stride, size_t n_rows, size_t width)
{
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t i = 0; i < width * job->bytes; i += 64) {
            __builtin_prefetch(to + r * stride * job->bytes + i, 1);
        }
    }
}

/* Rows of a tile, rounded to the class dtype at to, rows stride elements apart. */
static void store_class(const ffn_job *job, unsigned char *to, size_t stride, const float *tile, size_t n_rows,
                        size_t width)
{
    for (size_t r = 0; r < n_rows; r++) {
        unsigned char *row = to + r * stride * job->bytes;

        if (job->bytes == 2) {
            job->d->kernels->round_bf16((uint16_t *)(void *)row, tile + r * CPU_PANEL, width);
        } else {
            memcpy(row, tile + r * CPU_PANEL, width * sizeof(*tile));
        }
    }
}

static void inner_tile(const ffn_job *job, const compute_group *g, size_t panel, size_t row, size_t n, size_t thread,
                       const uint32_t *after)
{
    const compute_expert *e = g->expert;
    size_t stride = hidden_stride(job), width = cpu_min(CPU_PANEL, e->gate.n_out - panel * CPU_PANEL);
    float *gate = thread_acc(job->d, thread), *up = gate + CPU_TILE_ROWS * CPU_PANEL;
    unsigned char *hidden = job->d->hidden + ((g->out_row + row) * stride + panel * CPU_PANEL) * job->bytes;
    const void *x[CPU_TILE_ROWS] = {NULL};
    row_set rows = {x, (size_t)(g - job->groups), row, n};

    for (size_t r = 0; r < n; r++) {
        x[r] = needs_padding(&e->gate) ? job->d->padded + (g->out_row + row + r) * (e->gate.n_in + 1) * 2
                                       : job->x + g->rows[row + r] * e->gate.n_in * job->bytes;
    }
    fetch_class(job, hidden, stride, n, width);
    if (e->ffn == COMPUTE_FFN_SWIGLU) {
        multiply(job->d, &e->gate, panel, &rows, gate, CPU_PANEL, thread, panel_start(job->d, &e->up, panel));
        multiply(job->d, &e->up, panel, &rows, up, CPU_PANEL, thread, after);
        job->d->kernels->swiglu(gate, up, n * CPU_PANEL);
    } else {
        multiply(job->d, &e->gate, panel, &rows, gate, CPU_PANEL, thread, after);
        job->d->kernels->gelu_tanh(gate, n * CPU_PANEL);
    }
    store_class(job, hidden, stride, gate, n, width);
    if (needs_padding(&e->down) && panel + 1 == n_panels(&e->gate)) {
        for (size_t r = 0; r < n; r++) {
            memset(hidden + (r * stride + width) * job->bytes, 0, job->bytes);
        }
    }
}

static void outer_tile(const ffn_job *job, const compute_group *g, size_t panel, size_t row, size_t n, size_t thread,
                       const uint32_t *after)
{
    const compute_matrix *down = &g->expert->down;
    size_t stride = hidden_stride(job), first = panel * CPU_PANEL, width = cpu_min(CPU_PANEL, down->n_out - first);
    unsigned char *out = job->out + ((g->out_row + row) * down->n_out + first) * job->bytes;
    float *acc = thread_acc(job->d, thread);
    const void *x[CPU_TILE_ROWS] = {NULL};

    for (size_t r = 0; r < n; r++) {
        x[r] = job->d->hidden + (g->out_row + row + r) * stride * job->bytes;
    }
    fetch_class(job, out, down->n_out, n, width);
    multiply(job->d, down, panel, &(row_set){x, (size_t)(g - job->groups), row, n}, acc, CPU_PANEL, thread, after);
    store_class(job, out, down->n_out, acc, n, width);
}

static const compute_matrix *first_matrix(const compute_group *g, size_t pass)
{
    return pass == 0 ? &g->expert->gate : &g->expert->down;
}

static void ffn_task(const ffn_job *job, size_t task, size_t thread, size_t pass)
{
    const grid *tasks = &job->tasks[pass];
    grid_task t = find_task(tasks, task), next = next_task(job->d, tasks, task);
    const compute_group *g = &job->groups[t.group];
    size_t first, n = task_rows(tasks, &t, g->n_rows, &first), each = equal_rows(n, CPU_TILE_ROWS);
    const uint32_t *after = next.group < tasks->n_groups
                                ? panel_start(job->d, first_matrix(&job->groups[next.group], pass), next.panel)
                                : NULL;

    if (t.panel >= n_panels(first_matrix(g, pass))) {
        return;
    }
    for (size_t row = 0; row < n; row += each) {
        (pass == 0 ? inner_tile : outer_tile)(job, g, t.panel, first + row, cpu_min(each, n - row), thread,
                                              row + each < n ? NULL : after);
    }
}

static void inner_task(void *ctx, size_t task, size_t thread)
{
    ffn_task(ctx, task, thread, 0);
}

static void outer_task(void *ctx, size_t task, size_t thread)
{
    ffn_task(ctx, task, thread, 1);
}

void cpu_expert_ffn(compute_device *device, compute_mem *out, const compute_mem *x, const compute_group *groups,
                    size_t n_groups)
{
    cpu_device *d = (cpu_device *)device;
    ffn_job job = {.d = d,
                   .out = (unsigned char *)out,
                   .x = (const unsigned char *)x,
                   .groups = groups,
                   .bytes = compute_dtype_bytes(compute_class_dtype(device->numeric_class))};
    size_t most_rows = 0, panels[2] = {0, 0};

    for (size_t i = 0; i < n_groups; i++) {
        const compute_group *g = &groups[i];

        MOE_ASSERT(g->out_row + g->n_rows <= d->options.max_ffn_rows);
        MOE_ASSERT(g->expert->gate.n_in == groups[0].expert->gate.n_in);
        most_rows = MOE_MAX(most_rows, g->n_rows);
        panels[0] = MOE_MAX(panels[0], n_panels(&g->expert->gate));
        panels[1] = MOE_MAX(panels[1], n_panels(&g->expert->down));
        if (needs_padding(&g->expert->gate)) {
            pad_rows(d, job.x, g->rows, g->n_rows, g->expert->gate.n_in, g->out_row);
        }
    }
    if (most_rows == 0) {
        return;
    }
    for (size_t pass = 0; pass < 2; pass++) {
        const compute_matrix *any = first_matrix(&groups[0], pass);

        job.tasks[pass] = make_grid(d, any, n_groups, panels[pass], most_rows, FEW_ROWS);
        run_tasks(d, &job.tasks[pass], pass == 0 ? inner_task : outer_task, &job);
    }
}
