/* model: tokens -> logits, with a hook where the experts go. What the family decides stands in one table per family
 * (family/<name>.c); the rest of the folder serves all families.
 *
 * Nouns:
 *   model_config    validated hyper-parameters of a checkpoint, and the features of its family
 *   model_family    one table per family: how its config reads, what its tensors are called
 *   model_tensors   the logical tensors of a checkpoint, checked to be exactly the expected set
 *   model           the coordinator's part: embeddings, attention, routers, norms, head; immutable, on one device
 *   model_kv        paged KV cache: pages, their reference counts, prefix cache keyed by (expert set, tokens)
 *   model_kv_seq    the pages of one sequence
 *   model_batch     the rows of one micro-batch on their way through the layers
 *
 * A step:
 *   model_batch_begin          embeds the rows
 *   for every layer
 *     model_batch_route        attention and gate: the picks
 *     (the caller)             has the experts of other members computed: exchange
 *     model_batch_local        meanwhile: the experts that the coordinator evaluates itself
 *     model_batch_combine      adds the results
 *   model_batch_logits         head
 *
 * No file here dereferences an activation: those are compute_mem.
 *
 * Threads: a model, its kv and its batches belong to the engine thread. Configs and tensors are constant after open. Gates and
 *          rooms are made and closed on any thread that has called compute_thread_init, while the engine's computes. */
#ifndef CONCLAVE_MODEL_H
#define CONCLAVE_MODEL_H

#include "base/base.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "router/router.h"

/* ------------------------------------------------------------------------------------------------ config */
#define MODEL_MAX_LAYERS  512
#define MODEL_MAX_EXPERTS 4096
#define MODEL_MAX_EOS     16
#define MODEL_NO_WINDOW   UINT32_MAX

typedef struct model_family model_family;

typedef enum { MODEL_NORM_RMS, MODEL_NORM_LAYER } model_norm;
typedef enum { MODEL_QK_NORM_NONE, MODEL_QK_NORM_FULL, MODEL_QK_NORM_PER_HEAD } model_qk_norm;
/* Stick-breaking (arXiv 2306.04640): sigmoids from the newest key to the oldest, no positions. */
typedef enum { MODEL_ATTENTION_SOFTMAX, MODEL_ATTENTION_STICK_BREAKING } model_attention;
/* How a normed row becomes router logits:
 *   LINEAR      one matrix
 *   GELU        matrix and bias, GELU (erf), matrix
 *   TANH        matrix, tanh, matrix
 *   CENTROIDS   cosine of a projection with each expert's centroid, times a learned factor */
typedef enum { MODEL_GATE_LINEAR, MODEL_GATE_GELU, MODEL_GATE_TANH, MODEL_GATE_CENTROIDS } model_gate;

/* What generation_config.json says for requests that do not say; within the limits of a request. Negative: not given, but
 * 0 of the last two penalties, which may be negative. */
typedef struct model_defaults {
    double temperature; /* 0 too where do_sample is false */
    double top_p, min_p, repetition_penalty;
    double frequency_penalty, presence_penalty;
    int32_t top_k;
    int32_t max_new_tokens, min_new_tokens;
    int32_t max_length;   /* of prompt and answer; not given beside max_new_tokens */
    char not_served[512]; /* what the file asks for and does not get, "key: value" or a reason each, for one warning */
    bool is_missing;      /* there is no such file; not_served is of config.json, where old files have these keys */
} model_defaults;
extern const model_defaults model_no_defaults;

/* How q and k are turned by their position (rope.c): pair j of a head by position * position_scale * frequency[j]. */
typedef enum { MODEL_ROPE_PLAIN, MODEL_ROPE_YARN, MODEL_ROPE_LLAMA3 } model_rope_kind;
typedef struct model_rope {
    model_rope_kind kind;
    double theta;
    double position_scale; /* 1; linear scaling: 1 / factor */
    double magnitude;      /* 1; of turned vectors (yarn) */
    /* yarn, llama3: what turns more often than fast within original_positions keeps its frequency, what turns less
     * often than slow has it divided by factor */
    double factor, original_positions, fast, slow;
    bool truncate; /* yarn: the ends of the ramp are whole pairs */
} model_rope;

typedef struct model_config {
    const model_family *family;
    char model_type[32];
    uint32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab_size;
    uint32_t n_labels; /* 0: a language model; else a classifier: its head is score.weight [n_labels, d_model] */

    /* The checkpoint's expert ids are in this order: FFN, constant, copy, zero; the counts are of every layer (sets may
     * differ by layer). n_experts is their sum. Only FFN experts have matrices worth a node (MoE++,
     * arXiv 2410.07348). */
    uint32_t n_experts, n_ffn_experts, n_constant_experts, n_copy_experts, n_zero_experts;
    router_gate_rule gate;
    model_gate gate_kind;
    uint32_t gate_width; /* of a gate of two layers, inside */
    bool gate_map;       /* a layer's router logits are added, through a matrix, to those of the next */
    bool double_input;   /* experts (not the router) read twice the normed row */
    compute_ffn ffn;

    model_attention attention;
    uint32_t n_att_experts;    /* attention experts: q and o per expert, k and v shared; 0: one q and o for all */
    router_gate_rule att_gate; /* of attention experts; their gate is of gate_kind too */
    bool shared_kv;            /* keys and values are both the normed row itself */
    model_qk_norm qk_norm;
    bool attention_bias, kv_bias; /* q, k, v and o have one; only k and v */
    bool clip_qkv;
    float clip_qkv_bound;

    bool no_positions; /* nothing is rotated */
    model_rope rope;
    uint32_t max_positions;     /* max_position_embeddings, times the factor of a scaled rope; the default context */
    const char *positions_by;   /* what max_positions is, for an error */
    bool positions_are_a_limit; /* OLMoE: a context beyond max_positions is refused */
    uint32_t window;            /* attention is to see no further back; served are contexts that it hides nothing of */
    model_norm norm;
    float norm_eps;
    bool tied_head;
    int32_t bos_id, pad_id; /* -1: none */
    int32_t eos_ids[MODEL_MAX_EOS];
    uint32_t n_eos;
    model_defaults defaults;
} model_config;

/* Reads DIR/config.json and DIR/generation_config.json. Errors name the key, the value and the limit. */
MOE_NODISCARD moe_status model_config_load(const char *dir, model_config *out, moe_error *err);
/* The same from memory (fuzz target, tests). generation_json may be NULL. */
MOE_NODISCARD moe_status model_config_parse(const char *json, size_t bytes, const char *generation_json,
                                            size_t generation_bytes, model_config *out, moe_error *err);
/* The context to serve: wanted, or with 0 max_positions. Errors: MOE_ERR_INVALID_ARG beyond positions that are a limit,
 * MOE_ERR_UNSUPPORTED beyond the window; both say what would do. */
MOE_NODISCARD moe_status model_config_context(const model_config *c, uint32_t wanted, uint32_t *out, moe_error *err);
/* Canonical text of everything that decides an answer, for the manifest: "key value" lines. */
void model_config_text(const model_config *c, moe_text *out);
/* Radians per position of each pair of a head; out [head_dim / 2]. */
void model_rope_frequencies(const model_rope *r, uint32_t head_dim, double *out);
/* Values per row that wants logits: the labels of a classifier, else the vocabulary. */
uint32_t model_head_width(const model_config *c);

/* What an expert computes of its row x: the FFN, a vector of its own mixed with x, x itself, nothing. */
typedef enum {
    MODEL_EXPERT_FFN,
    MODEL_EXPERT_CONSTANT,
    MODEL_EXPERT_COPY,
    MODEL_EXPERT_ZERO,
    MODEL_N_EXPERT_KINDS
} model_expert_kind;
extern const char *const model_expert_kind_names[MODEL_N_EXPERT_KINDS]; /* "ffn", ... */
/* Ids beyond the checkpoint's are added experts: FFNs. */
model_expert_kind model_expert_kind_of(const model_config *c, int32_t expert_id);
/* Evaluated by the coordinator, on no node: all but the FFNs. */
bool model_expert_is_local(const model_config *c, int32_t expert_id);
/* The space of the checkpoint's experts. Errors: as router_space_open_base. */
MOE_NODISCARD moe_status model_config_space(const model_config *c, router_space **out, moe_error *err);

/* ------------------------------------------------------------------------------------------------ tensors */
typedef struct model_tensors model_tensors;

/* Resolves the checkpoint's tensors into logical ones. They must be exactly those that the config demands: a missing,
 * unexpected or misshapen tensor is an error that names it. Norms and router weights must be finite. cp is borrowed for
 * the life of *out. Errors: MOE_ERR_INVALID_ARG names the tensor; MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status model_tensors_open(const model_config *c, const checkpoint *cp, model_tensors **out,
                                            moe_error *err);
void model_tensors_close(model_tensors *t);
/* The manifest of config and tensors: checkpoint_manifest_build, which has the errors and the rest. */
MOE_NODISCARD moe_status model_tensors_manifest(const model_tensors *t, moe_threads *threads, const char *cache_dir,
                                                checkpoint_progress progress, void *progress_ctx,
                                                checkpoint_manifest *out, moe_error *err);
size_t model_tensors_count(const model_tensors *t);
const checkpoint_logical *model_tensors_all(const model_tensors *t); /* [count], name order */
const checkpoint_logical *model_tensors_find(const model_tensors *t, const char *name);
/* The tensor was copied: its pages of the file leave this process (checkpoint_forget). */
void model_tensors_forget(const model_tensors *t, const checkpoint_logical *tensor);
/* Of all tensors but the FFN experts': what a coordinator loads. */
size_t model_tensors_coordinator_bytes(const model_tensors *t);
/* --dtype auto: BF16 when every matrix of the checkpoint is BF16, else F32. */
compute_class model_tensors_auto_class(const model_tensors *t);

/* Where the *n_out matrices of an FFN expert are in model_tensors_all, for checking them against a manifest: gate if it
 * has one, up, down. Errors: MOE_ERR_NOT_FOUND when the checkpoint has no such layer or FFN expert. */
#define MODEL_MAX_EXPERT_TENSORS 3
MOE_NODISCARD moe_status model_expert_tensors(const model_config *c, const model_tensors *t, uint32_t layer,
                                              int32_t expert_id, size_t idx_out[MODEL_MAX_EXPERT_TENSORS],
                                              size_t *n_out, moe_error *err);
/* Prepares one expert of a layer for a device: what an expert node loads. */
MOE_NODISCARD moe_status model_expert_open(const model_config *c, const model_tensors *t, compute_device *d,
                                           compute_layout layout, uint32_t layer, int32_t expert_id,
                                           compute_expert **out, moe_error *err);
/* The same of an added expert's tensors, which the config's shapes hold for (a pack's do: pack_open has checked them, and their
 * bytes). gate NULL: the family's experts have none. With COMPUTE_MAPPED the files behind them stay open as long as the
 * expert. Errors: of the device. */
typedef struct model_expert_parts {
    const checkpoint_tensor *gate, *up, *down; /* [d_ff, d_model] twice, [d_model, d_ff]; borrowed */
} model_expert_parts;
MOE_NODISCARD moe_status model_expert_open_parts(const model_config *c, const model_expert_parts *parts,
                                                 compute_device *d, compute_layout layout, compute_expert **out,
                                                 moe_error *err);
size_t model_expert_bytes(const model_config *c, const model_tensors *t); /* of the largest expert in the checkpoint */

/* ------------------------------------------------------------------------------------------------ KV cache */
#define MODEL_KV_PAGE_TOKENS 32

typedef struct model_kv model_kv;
typedef struct model_kv_seq model_kv_seq; /* one sequence's pages; embedded in the request's choice */

struct model_kv_seq {
    uint32_t *pages; /* owned [max_pages], allocated by model_kv_seq_init */
    uint32_t n_pages, max_pages;
    uint32_t n_cached; /* tokens whose pages are registered in the prefix cache */
    uint64_t parent;   /* serial of the last registered page; 0: none */
};

typedef struct model_kv_stats {
    size_t n_pages, n_free, n_cached, n_used; /* cached: unreferenced but kept for their prefix */
    uint64_t prefix_hit_tokens;
} model_kv_stats;

/* memory_bytes bounds the pages of all layers together; MOE_ERR_INVALID_ARG when not even one page fits. */
MOE_NODISCARD moe_status model_kv_open(const model_config *c, compute_device *d, size_t memory_bytes, bool prefix_cache,
                                       model_kv **out, moe_error *err);
void model_kv_close(model_kv *kv);
/* Of all layers together. */
size_t model_kv_page_bytes(const model_config *c, compute_class numeric_class);
size_t model_kv_capacity_tokens(const model_kv *kv);
void model_kv_get_stats(const model_kv *kv, model_kv_stats *out);

MOE_NODISCARD moe_status model_kv_seq_init(model_kv_seq *s, size_t max_tokens);
void model_kv_seq_fini(model_kv *kv, model_kv_seq *s); /* releases its pages, frees memory */
/* Drops all pages (put back, finished). Registered pages stay in the prefix cache until their room is needed. */
void model_kv_seq_release(model_kv *kv, model_kv_seq *s);
/* Takes pages so that n_tokens positions fit. MOE_ERR_BUSY: none free, nothing changed. */
MOE_NODISCARD moe_status model_kv_seq_reserve(model_kv *kv, model_kv_seq *s, size_t n_tokens);
/* Adopts cached full pages that hold exactly this prefix under this set; s must be empty. Returns the number of tokens
 * now present, a multiple of the page size and at most max_tokens. */
size_t model_kv_seq_adopt(model_kv *kv, model_kv_seq *s, const router_set *set, const int32_t *tokens,
                          size_t max_tokens);
/* Registers pages that are complete after n_tokens tokens have been computed. */
void model_kv_seq_register(model_kv *kv, model_kv_seq *s, const router_set *set, const int32_t *tokens,
                           size_t n_tokens);

/* ------------------------------------------------------------------------------------------------ model and batch */
typedef struct model model;
typedef struct model_batch model_batch;
typedef struct model_gates model_gates;
typedef struct model_room model_room;

typedef struct model_row {
    int32_t token_id;
    uint32_t position;
    const uint32_t *pages; /* borrowed for the step */
    const router_set *set; /* borrowed for the step */
    bool want_logits;
} model_row;

/* Reads the coordinator's weights from t and packs (or maps) them on d. max_context bounds positions: it sizes the rope
 * table. progress may be NULL. */
MOE_NODISCARD moe_status model_open(const model_config *c, const model_tensors *t, compute_device *d,
                                    compute_layout layout, size_t max_context, checkpoint_progress progress,
                                    void *progress_ctx, model **out, moe_error *err);
void model_close(model *m);
const model_config *model_get_config(const model *m);
/* Bytes of the coordinator's matrices that a step of one row reads. */
size_t model_coordinator_bytes(const model *m);

MOE_NODISCARD moe_status model_batch_open(model *m, model_kv *kv, size_t max_rows, size_t max_logit_rows,
                                          model_batch **out);
void model_batch_close(model_batch *b);

/* ------------------------------------------------------------------------------------------------ gates that grow
 * An expert's column is its place in its layer of the space. What is added stands after what was there, so sets of earlier
 * versions route by later gates as they did: the logits of old columns keep their bits, and what a row's set has not does not
 * reach the gate of the next layer. */

/* An added attention expert's matrices: [n_heads * head_dim, d_model] and [d_model, n_heads * head_dim]. With COMPUTE_MAPPED the
 * files behind them stay open as long as gates that have it. */
typedef struct model_attention_parts {
    const checkpoint_tensor *q, *o;
} model_attention_parts;

/* What one pack brings for the gates of one layer. Tensors are row-major, finite, of one of our dtypes; all is borrowed for the
 * call. */
typedef struct model_gate_part {
    uint32_t layer, n_experts;
    const int32_t *ids; /* [n_experts] ascending, as the space has them */
    const int32_t
        *like; /* [n_experts] experts of the checkpoint, whose rows, map rows and map columns they get; NULL: these */
    const checkpoint_tensor *router; /* [n_experts, width of the gate's last layer] */
    const checkpoint_tensor
        *map_rows; /* with a gate map, above the first layer: [n_experts, N + before], N the checkpoint's
                                        * experts, before this pack's in the layer before */
    const checkpoint_tensor *map_columns; /* with a gate map, where before > 0: [N, before] */
    /* Attention experts, of models that have them. Whoever's set has any of the pack's experts routes to all of these, in the layers
     * that have them; they have no ids and no place in the space. Of several packs the one that was added first stands first. */
    const checkpoint_tensor *attention_router; /* [n_attention, width of the attention gate's last layer] */
    const model_attention_parts *attention;    /* [n_attention] */
    uint32_t n_attention;                      /* 0: none, as with `like` */
} model_gate_part;
typedef struct model_gate_pack {
    const model_gate_part *parts; /* ascending by layer */
    size_t n_parts;
} model_gate_pack;

/* The gates for a space that has grown out of the model's own, from its tensors and from what packs bring. Between experts of
 * two packs a gate map has zeros. An expert that no pack brings has zeros in its row and must be in no set. maker: a device of
 * the model's kind and class that nobody else uses meanwhile. They are closed before the model.
 * Errors: MOE_ERR_INVALID_ARG names a layer and an expert that the space or the checkpoint has not, or a tensor of another
 * shape; MOE_ERR_NO_MEMORY; MOE_ERR_BUSY: attention experts take more memory than is free; those of the device. */
MOE_NODISCARD moe_status model_gates_open(model *m, const model_tensors *t, compute_device *maker, router_space *space,
                                          const model_gate_pack *packs, size_t n_packs, model_gates **out,
                                          moe_error *err);
model_gates *model_own_gates(model *m); /* of the checkpoint alone; borrowed */
model_gates *model_gates_ref(model_gates *g);
void model_gates_unref(model_gates *g);                /* NULL is fine */
router_space *model_gates_space(const model_gates *g); /* borrowed */

/* Buffers for a batch of max_rows rows, which route by these gates (referenced). */
MOE_NODISCARD moe_status model_room_open(model *m, model_gates *g, size_t max_rows, model_room **out);
void model_room_close(model_room *r); /* NULL is fine */
/* Between two steps: the batch takes the room, and the one that it had is the caller's. */
model_room *model_batch_move(model_batch *b, model_room *r);

/* ------------------------------------------------------------------------------------------------ a batch's step */
/* Embeds the rows. Rows of one sequence are consecutive and ascending; their pages are reserved. rows is borrowed until
 * the step ends. At most max_rows rows, max_logit_rows of them with want_logits. */
void model_batch_begin(model_batch *b, const model_row *rows, size_t n_rows);
/* Attention of `layer`, then the gate. Afterwards the picks are in model_batch_ids and the experts' input in
 * model_batch_x. A row whose router logits are NaN is marked failed (model_batch_failed) and gets the first k experts
 * of its set with weight 0, so that the others go on.
 * MOE_ERR_BUSY: the device has not come so far yet; the same call goes on from there. Other errors: of the device. */
MOE_NODISCARD moe_status model_batch_route(model_batch *b, uint32_t layer);
size_t model_batch_n_rows(const model_batch *b);
uint32_t model_batch_layer(const model_batch *b); /* the layer routed last; what follows is of it */
/* Host [n_rows, k], ascending within a row. */
const int32_t *model_batch_ids(const model_batch *b);
const float *model_batch_weights(const model_batch *b); /* the same, of the picks: what combine multiplies by */
/* The same for the exchange: -1 where model_batch_local computes the result. */
const int32_t *model_batch_remote_ids(const model_batch *b);
const compute_mem *model_batch_x(const model_batch *b); /* class dtype [n_rows, d_model] */
compute_mem *model_batch_results(model_batch *b); /* class dtype [n_rows * k, d_model]: pick j of row i at i * k + j */
bool model_batch_failed(const model_batch *b, size_t row);
/* Evaluates the local experts into model_batch_results: any time between route and combine, best while the others are
 * on their way. */
void model_batch_local(model_batch *b);
/* Adds the experts' results (all in model_batch_results) to the residual. */
void model_batch_combine(model_batch *b);
/* After the last layer: final norm and head of the rows that want logits. out: host f32 [n_wanted, model_head_width],
 * in row order; best memory of compute_host_alloc, as the device's until this has returned anything but MOE_ERR_BUSY. */
MOE_NODISCARD moe_status model_batch_logits(model_batch *b, float *out);
compute_device *model_device(const model *m);

#endif
