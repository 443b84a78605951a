/* Shared by the files of model/ that run layers: the weights on the device and the buffers of a batch.
 *
 * Shapes: R rows, d = d_model, H = n_heads * head_dim, G = n_kv_heads * head_dim, N = n_experts of the checkpoint, k picks; attention
 * experts: A of them, a picks (both 1 where there are none). */
#ifndef CONCLAVE_MODEL_PRIV_H
#define CONCLAVE_MODEL_PRIV_H

#include "model/model.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct norm_weights {
    compute_mem *gain, *bias; /* f32 [d]; bias NULL in an RMS norm */
} norm_weights;

/* From a normed row to router logits. */
typedef struct gate_weights {
    compute_matrix *inner; /* [gate_width, d]; NULL in a linear gate */
    compute_mem *bias;     /* f32 [gate_width]; NULL: none */
    compute_matrix *out;   /* [experts, gate_width or d]; centroids: unit rows times the learned factor */
    compute_matrix *map;   /* [experts, experts of the layer before] of their logits; NULL: none */
} gate_weights;

/* What a pack adds to attention, loaded once: all gates that have it share it. */
typedef struct attention_pack {
    struct attention_pack *next; /* of the model's list */
    size_t refs;                 /* under the model's lock */
    uint32_t slot;               /* of the pack's first expert: packs are in this order */
    unsigned char hash[32];      /* of that expert: the pack's name here */
    router_expert *experts;      /* owned [n_experts]: who has one of them in his set has these attention experts */
    size_t n_experts;
    compute_matrix **q, **o; /* owned [n], layer after layer */
    uint32_t *ends; /* owned [n_layers]: where a layer's are over; they begin where those of the one before are */
    uint32_t n;
} attention_pack;

/* The attention experts of one layer, the checkpoint's and then those of packs, and their gate. None: n is 0. */
typedef struct attention_experts {
    gate_weights gate;
    compute_matrix **q, **o; /* [n] */
    uint32_t n;
} attention_experts;

/* The gates of one layer, and what stays in the coordinator of the experts behind them. Later versions of the space share what has
 * not grown with the first. */
typedef struct gate_layer {
    gate_weights w;     /* the MLP's */
    uint32_t n_columns; /* the layer's experts */
    attention_experts att;
} gate_layer;

struct model_gates {
    atomic_uint refs;
    model *m;                   /* borrowed: its device closes the matrices */
    router_space *space;        /* shared */
    model_gates *own;           /* shared: the model's own gates; NULL: these are */
    gate_layer *layers;         /* owned [n_layers]; what is the same as in own is theirs */
    attention_pack **att_packs; /* owned, shared each [n_att_packs] */
    size_t n_att_packs;
};

struct model_room {
    compute_device *device; /* borrowed */
    model_gates *gates;     /* shared */
    size_t max_rows;
    float *
        gate_logits; /* owned [R, W], W the most columns that a gate has, A of attention experts too; host memory of the
                          * device's */
    size_t gate_bytes;
    float *gate_scratch; /* owned [2 * W] */
    compute_mem *router; /* f32 [R, W] */
    compute_mem *before; /* f32 [R, W]: the router logits of the layer before, where a gate map reads them; else NULL */
    compute_mem *mapped; /* f32 [R, W] */
    uint64_t
        *att_marks; /* owned [R, att_words]: by pack of the gates, whether the row's set has its attention experts */
    size_t att_words;
    int32_t *att_ids;       /* owned [A]: those of a row's choice */
    uint32_t *att_columns;  /* owned [A] */
    uint32_t *group_ends;   /* owned [A]: of the picks sorted by attention expert */
    compute_routed *routed; /* owned [A]: rows by attention expert */
};

typedef struct constant_weights {
    compute_mem *value, *gate; /* f32 [d], [2, d] */
} constant_weights;

typedef struct layer_weights {
    norm_weights input_norm, post_norm;
    compute_mem *q_norm, *k_norm;                   /* f32 [H], [G] or [head_dim]; NULL: none */
    compute_matrix *q, *o;                          /* NULL where there are attention experts */
    compute_matrix *k, *v;                          /* NULL with shared_kv */
    compute_mem *q_bias, *k_bias, *v_bias, *o_bias; /* f32; NULL: none */
    constant_weights *constants;                    /* owned [n_constant_experts] */
} layer_weights;

struct model {
    model_config config;
    compute_device *device; /* borrowed */
    size_t max_context;
    compute_mem *embedding; /* [vocab_size, d_model] as stored */
    compute_dtype embedding_dtype;
    layer_weights *layers; /* owned [n_layers] */
    model_gates *gates;    /* shared: the checkpoint's own */
    norm_weights final_norm;
    compute_matrix *head;
    compute_mem *rope; /* f32 [max_context][2][head_dim / 2]; NULL with no_positions */
    size_t bytes;      /* of matrices, as the device reads them in a step of one row */
    compute_layout layout;
    pthread_mutex_t lock;      /* of the next; a leaf */
    attention_pack *att_packs; /* that some gates have */
};

/* Picks of the rows of one layer, host memory. */
typedef struct row_picks {
    int32_t *ids;        /* owned [R, k], ascending per row */
    float *weights;      /* owned [R, k] */
    compute_pick *picks; /* owned [R, k] */
} row_picks;

struct model_batch {
    model *m;         /* borrowed */
    model_kv *kv;     /* borrowed */
    model_room *room; /* owned */
    size_t max_rows, max_logit_rows;

    /* the step */
    const model_row *rows; /* borrowed from begin to the last op */
    size_t n_rows, n_logit_rows;
    uint32_t layer;         /* last routed */
    bool routing, reading;  /* router logits, logits are on their way to the host, and there when */
    compute_ticket arrives; /* this is reached */
    compute_row *places;    /* owned [R] */
    compute_step *step;     /* owned: places, as the device has them */
    int32_t *token_ids;     /* owned [R] */
    uint32_t *logit_rows;   /* owned [max_logit_rows] */
    bool *failed;           /* owned [R] */

    /* of the last routed layer, host */
    row_picks experts, att_experts;
    int32_t *remote_ids;             /* owned [R, k]: ids, -1 where the coordinator evaluates */
    uint32_t *n_picks;               /* owned [R]: picks that combine adds */
    uint32_t *from_rows, *pick_rows; /* owned [R * max(k, a)] */

    /* device memory, owned */
    compute_mem *x;       /* f32 [R, d]: the residual */
    compute_mem *norm;    /* f32 [R, d] */
    compute_mem *in;      /* class [R, d]: rounded norm */
    compute_mem *q;       /* f32 [R * a, H], then attention's output */
    compute_mem *k, *v;   /* f32 [R, G] */
    compute_mem *q_class; /* class [R * a, H]: rounded q, then rounded attention */
    compute_mem *out;     /* f32 [R * a, d]: O's output */
    compute_mem *inner;   /* f32 [R, gate_width] */
    compute_mem *results; /* class [R * k, d] */
    compute_mem *last;    /* f32 [L, d] */
    compute_mem *last_in; /* class [L, d] */
    compute_mem *logits;  /* f32 [L, head width] */
};

/* For messages, behind the bytes wanted: ", 12345 free on cuda:0"; of a device that has the host's memory "". */
#define MODEL_LEFT_TEXT 80
const char *model_left(compute_device *d, char out[MODEL_LEFT_TEXT]);
const compute_kv_shape *model_kv_shape(const model_kv *kv);
compute_mem *model_kv_memory(const model_kv *kv);

/* forward.c: the family's norm of n rows of x into b->norm and b->in. */
void model_batch_norm(model_batch *b, const norm_weights *w);
/* A row with NaN in it has failed; it gets harmless picks so that the rows beside it go on. */
void model_batch_fail(model_batch *b, size_t row, const router_set_layer *set, uint32_t k, const row_picks *out);
/* gates.c: without matrices yet. MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status model_gates_alloc(model *m, router_space *space, model_gates *own, model_gates **out);
/* n values widened to f32. */
void model_widen(float *out, const unsigned char *data, compute_dtype dtype, size_t n);
/* Rows of unit length times exp(temperature), so that a product with a unit row is the logit. */
void model_scale_centroids(float *rows, size_t n_rows, size_t width, float temperature);

/* attention_experts.c: those of a pack, loaded by the maker, or the same as other gates have. Their shapes were checked.
 * Errors: those of the device; MOE_ERR_NO_MEMORY; MOE_ERR_BUSY: more memory than is free. */
MOE_NODISCARD moe_status model_attention_pack_open(model *m, compute_device *maker, const router_space *space,
                                                   const model_gate_pack *from, attention_pack **out, moe_error *err);
void model_attention_pack_unref(model *m, attention_pack *p); /* NULL is fine */
uint32_t model_attention_pack_count(const attention_pack *p, uint32_t layer, uint32_t *first_out);
/* At the begin of a step: which packs' attention experts the rows' sets have. */
void model_attention_mark(model_batch *b);
/* Those that a row may pick in a layer: row by row, the first one before all others. */
void model_attention_choose(model_batch *b, uint32_t layer, size_t row, router_set_layer *choice);
/* gate.c: router logits of the normed rows, n_experts per row, in the room's router; in its gate_logits when the ticket is
 * reached. */
MOE_NODISCARD compute_ticket model_gate_logits(model_batch *b, const gate_weights *w, uint32_t n_experts);
/* gate.c: the logits of the MLP's gate, as above. */
MOE_NODISCARD compute_ticket model_gate_begin(model_batch *b, uint32_t layer);
/* gate.c: the picks, when the logits are there; the experts' input is then in b->in. */
void model_gate_pick(model_batch *b, uint32_t layer);
/* attention.c: the attention half of a layer, added to the residual. */
MOE_NODISCARD moe_status model_attend(model_batch *b, uint32_t layer);

#endif
