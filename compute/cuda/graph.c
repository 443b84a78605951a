/* Stretches as CUDA graphs. What a step queues between two tickets is a dozen launches of a few microseconds each, and with few rows the host cannot queue them as fast as
 * the GPU runs them. A stretch (compute/ops.h) is the same launches with the same arguments whenever step, part and number of rows are the same, so it is recorded once and
 * from then on queued by one call.
 *
 * It is recorded on a stream of its own: other threads may queue on the device's meanwhile (alloc zeroes there). Seen for the first time it is queued op by op, so that
 * nothing of it is loaded while it is recorded; and shapes that do not come again cost nothing. */
#include "compute/cuda/device_priv.h"

#include <stdlib.h>

moe_status cuda_graphs_open(compute_step *s)
{
    s->graphs = calloc((size_t)CUDA_GRAPH_PARTS * CUDA_GRAPH_ROWS, sizeof(*s->graphs));
    return s->graphs == NULL ? MOE_ERR_NO_MEMORY : MOE_OK;
}

void cuda_graphs_close(cuda_device *d, compute_step *s)
{
    (void)cudaStreamSynchronize(d->stream); /* none of them is under way */
    for (size_t i = 0; s->graphs != NULL && i < (size_t)CUDA_GRAPH_PARTS * CUDA_GRAPH_ROWS; i++) {
        if (s->graphs[i].graph != NULL) {
            (void)cudaGraphExecDestroy(s->graphs[i].graph);
        }
    }
    free(s->graphs);
}

bool cuda_op_stretch_begin(compute_device *device, compute_step *s, uint32_t part)
{
    cuda_device *d = cuda_of(device);
    cudaStream_t stream = cuda_queue(d); /* a burst begins here, and not in the graph */
    cuda_graph *g;

    MOE_ASSERT(d->recorded == NULL);
    if (d->failed != MOE_OK || d->options.no_graphs || s->n == 0 || s->n > CUDA_GRAPH_ROWS ||
        part >= CUDA_GRAPH_PARTS) {
        return false;
    }
    g = &s->graphs[part * CUDA_GRAPH_ROWS + s->n - 1];
    if (g->graph != NULL) {
        cuda_note(d, cudaGraphLaunch(g->graph, stream));
        return true;
    }
    if (!g->seen) {
        g->seen = true;
    } else if (cudaStreamBeginCapture(d->recorder, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
        d->recorded = g;
        d->record_failed = cudaSuccess;
    } else {
        (void)cudaGetLastError(); /* then op by op */
    }
    return false;
}

bool cuda_op_stretch_end(compute_device *device)
{
    cuda_device *d = cuda_of(device);
    cuda_graph *g = d->recorded;
    cudaGraph_t graph = NULL;
    cudaError_t e, ended;

    if (g == NULL) {
        return true;
    }
    d->recorded = NULL;
    ended = cudaStreamEndCapture(d->recorder, &graph);
    e = d->record_failed != cudaSuccess ? d->record_failed : ended;
    e = e == cudaSuccess ? cudaGraphInstantiate(&g->graph, graph, 0) : e;
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    if (e != cudaSuccess) { /* what is wrong with an op is found out when it is queued by itself */
        (void)cudaGetLastError();
        MOE_WARN("device %s: no CUDA graphs from now on: %s", d->place, cudaGetErrorString(e));
        d->options.no_graphs = true;
        g->graph = NULL;
        return false;
    }
    cuda_note(d, cudaGraphLaunch(g->graph, cuda_queue(d)));
    return true;
}
