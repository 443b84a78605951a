/* Shared by the files of model/ that run layers: the weights on the device and the buffers of a batch. */
#ifndef CONCLAVE_MODEL_PRIV_H
#define CONCLAVE_MODEL_PRIV_H

#include "model/model.h"

typedef struct layer_weights {
    compute_mem *input_norm, *post_norm; /* f32 [d_model] */
    compute_mem *q_norm, *k_norm;        /* f32 [n_heads * head_dim], [n_kv_heads * head_dim] */
    compute_matrix *q, *k, *v, *o;
    compute_mem *q_bias, *k_bias, *v_bias, *o_bias; /* f32; NULL without attention_bias */
    compute_matrix *router;                         /* [n_experts, d_model], the f32 chain */
} layer_weights;

struct model {
    model_config config;
    compute_device *device; /* borrowed */
    size_t max_context;
    compute_mem *embedding; /* [vocab_size, d_model] as stored */
    compute_dtype embedding_dtype;
    layer_weights *layers;   /* owned [n_layers] */
    compute_mem *final_norm; /* f32 [d_model] */
    compute_matrix *head;
    compute_mem *rope; /* f32 [max_context][2][head_dim / 2] */
    size_t bytes;      /* of matrices, as the device reads them in one step */
};

const compute_kv_shape *model_kv_shape(const model_kv *kv);
compute_mem *model_kv_memory(const model_kv *kv);

#endif
