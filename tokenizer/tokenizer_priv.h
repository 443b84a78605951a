/* tokenizer, inside: what the files of this folder share.
 *
 *   vocab, merge_table   the model: text -> id, (left id, right id) -> rank and merged id
 *   added_set            added tokens, found in text before the model sees it
 *   text_step            one normalizer or decoder step on text
 *   encoding             one call of encode: where ids go, scratch; one thread
 *
 * Everything in `tokenizer` but the cache is constant after open. */
#ifndef CONCLAVE_TOKENIZER_PRIV_H
#define CONCLAVE_TOKENIZER_PRIV_H

#include "tokenizer/regex_priv.h"
#include "tokenizer/tokenizer.h"

#include <pthread.h>

#define TOKENIZER_MAX_FILE   ((size_t)256 << 20)
#define TOKENIZER_MAX_CONFIG ((size_t)16 << 20)
#define TOKENIZER_MAX_VOCAB  ((size_t)4194304)
#define TOKENIZER_MAX_MERGES ((size_t)16777216)
#define TOKENIZER_MAX_TOKEN  ((size_t)4096) /* bytes of one token's text, and of one pattern */
#define TOKENIZER_MAX_TEXT   ((size_t)16 << 20)
#define TOKENIZER_MAX_STEPS  16
#define TOKENIZER_MAX_AFFIX  16 /* ids a post-processor may add at one end */

/* ---- unicode.c: text here is valid UTF-8 */
typedef enum { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER } char_class;

size_t utf8_put(int32_t c, char out[4]);
/* Looks at the head of n > 0 bytes from anywhere. VALID: *length is a whole code point. INVALID: *length is a maximal
 * invalid subpart. PARTIAL: all n bytes are a proper prefix of a code point. */
typedef enum { UTF8_VALID, UTF8_INVALID, UTF8_PARTIAL } utf8_head;
utf8_head utf8_look(const unsigned char *bytes, size_t n, size_t *length);
char_class char_classify(int32_t c);
bool char_is_word(int32_t c); /* \w: Alphabetic, Mark, Decimal_Number, Connector_Punctuation, Join_Control */
int32_t byte_to_char(unsigned char byte); /* the byte-level alphabet: U+0021 .. U+0143 */
int char_to_byte(int32_t c);              /* -1: not in the alphabet */
typedef enum { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD } normal_form;
bool normal_is_trivial(const char *text, size_t n, normal_form form); /* a quick look: true is certain */
MOE_NODISCARD moe_status normal_append(const char *text, size_t n, normal_form form, moe_text *out);
void lower_append(const char *text, size_t n, moe_text *out);
void unmarked_append(const char *text, size_t n, moe_text *out); /* without combining marks */
void bytes_append(const char *text, size_t n, moe_text *out);    /* each byte as a character of the alphabet */

/* ---- vocab.c */
typedef struct vocab_entry {
    uint32_t offset, length; /* of text */
    int32_t id;
} vocab_entry;

typedef struct vocab {
    char *text; /* owned; all tokens' texts, back to back */
    size_t text_used, text_capacity;
    vocab_entry *entries; /* owned */
    size_t n_entries, capacity;
    uint32_t *slots; /* owned; entry index + 1, 0 = empty */
    size_t slot_mask;
    uint64_t seed;
} vocab;

typedef struct merge {
    int32_t left, right; /* left -1: empty slot */
    uint32_t rank;
    int32_t merged;
} merge;

typedef struct merge_table {
    merge *slots; /* owned */
    size_t slot_mask;
    uint64_t seed;
} merge_table;

uint64_t bytes_hash(const void *bytes, size_t n, uint64_t seed);
MOE_NODISCARD moe_status vocab_init(vocab *v, size_t capacity, size_t text_capacity);
void vocab_fini(vocab *v);
MOE_NODISCARD moe_status vocab_add(vocab *v, const char *text, size_t n, int32_t id); /* MOE_ERR_EXISTS */
int32_t vocab_find(const vocab *v, const char *text, size_t n);                       /* -1: not there */
MOE_NODISCARD moe_status merge_table_init(merge_table *m, size_t capacity);
void merge_table_fini(merge_table *m);
MOE_NODISCARD moe_status merge_table_add(merge_table *m, merge entry); /* MOE_ERR_EXISTS */
const merge *merge_find(const merge_table *m, int32_t left, int32_t right);

/* ---- pattern.c: {"String": ...} or {"Regex": ...} */
typedef struct text_pattern {
    char *literal; /* owned; NULL: a regex */
    size_t n;
    regex *regex; /* owned */
} text_pattern;

typedef struct text_view {
    const char *data;
    size_t size;
} text_view;

/* One walk over a text; the scan's memory is kept from text to text. */
typedef struct pattern_walk {
    regex_scan scan;
    text_view text;
    size_t next; /* of a literal */
} pattern_walk;

void text_pattern_fini(text_pattern *p);
void pattern_walk_start(pattern_walk *w, const text_pattern *p, text_view text);
/* The next match; MOE_ERR_NOT_FOUND: no more. */
MOE_NODISCARD moe_status pattern_walk_next(pattern_walk *w, const text_pattern *p, size_t *begin_out, size_t *end_out);
void pattern_walk_fini(pattern_walk *w);

/* ---- steps.c: Prepend, Replace, ... */
typedef enum {
    STEP_NORMAL_FORM,
    STEP_LOWERCASE,
    STEP_STRIP_ACCENTS,
    STEP_STRIP_SPACE,
    STEP_BYTES,
    STEP_PREPEND,
    STEP_REPLACE,
    STEP_STRIP,
    STEP_METASPACE
} step_kind;

typedef struct text_step {
    step_kind kind;
    normal_form form;
    text_pattern pattern; /* REPLACE: what; STRIP: the character; METASPACE: the mark */
    char *content;        /* owned; REPLACE and PREPEND */
    size_t n_content;
    size_t start, stop; /* STRIP: at most so many at each end; STRIP_SPACE: 1 for an end that is stripped */
    bool drop_first;    /* METASPACE: marks of the first token vanish */
} text_step;

typedef struct text_steps {
    text_step *steps; /* owned */
    size_t n;
} text_steps;

const char *text_find(const char *text, size_t n, const char *pattern, size_t n_pattern); /* NULL: not there */
void text_steps_fini(text_steps *s);
/* Runs all steps over in; the result is in itself or lies in one of the two scratch texts. first: in is the head of the
 * text (PREPEND) or the first token (METASPACE). */
MOE_NODISCARD moe_status text_steps_run(const text_steps *s, text_view in, bool first, moe_text scratch[2],
                                        text_view *out);

/* ---- added.c */
typedef struct added_token {
    char *match; /* owned; what is looked for (normalized:true: the normalised content) */
    size_t n_match;
    int32_t id;
    bool single_word, lstrip, rstrip;
    bool special;
} added_token;

typedef struct added_set {
    added_token *tokens; /* owned, ascending by match */
    size_t n;
    uint32_t first[257]; /* tokens that begin with byte b: [first[b], first[b + 1]) */
    bool any_special;
} added_set;

typedef struct added_item {
    int32_t id;
    text_view content; /* borrowed from the JSON value */
    bool single_word, lstrip, rstrip, normalized, special;
} added_item;

typedef struct added_list {
    added_item *items; /* owned, ascending by id */
    size_t n;
} added_list;

typedef struct added_match {
    size_t begin, end; /* with the white space it takes in */
    int32_t id;
} added_match;

void added_set_seal(added_set *s); /* sorts */
void added_set_fini(added_set *s);
/* The longest token whose text stands at text[at], at < text.size; NULL: none. */
const added_token *added_set_longest(const added_set *s, text_view text, size_t at);
/* The next match at or after from, before end; spans: masked ranges (only special tokens are masked when
 * special_only). */
bool added_set_next(const added_set *s, text_view text, size_t from, const tokenizer_span *spans, size_t n_spans,
                    bool special_only, added_match *match_out);

/* ---- pretokenize.c: stages, each cutting up the pieces of the one before, piece by piece */
typedef enum { PRE_PREFIX_SPACE, PRE_SPLIT, PRE_METASPACE, PRE_BYTES } pre_kind;
typedef enum { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend_scheme;
typedef enum {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
} split_behavior;

typedef struct pre_stage {
    pre_kind kind;
    text_pattern pattern; /* SPLIT */
    split_behavior behavior;
    bool invert;           /* SPLIT: what lies between matches is the match */
    prepend_scheme scheme; /* METASPACE */
    char mark[4];          /* METASPACE: stands for a space */
    size_t n_mark;
} pre_stage;

typedef struct pre_tokenizer {
    pre_stage *stages; /* owned */
    size_t n;
} pre_tokenizer;

typedef struct encoding encoding;
void pre_tokenizer_fini(pre_tokenizer *p);
/* Cuts text up and encodes the pieces. head: it is where the whole text begins. */
MOE_NODISCARD moe_status pretokenize(encoding *e, text_view text, bool head);

/* ---- bpe.c */
#define CACHE_SETS  4096
#define CACHE_WAYS  4
#define CACHE_BYTES 40
#define CACHE_IDS   12

typedef struct cache_entry {
    uint32_t stamp;
    uint8_t n_bytes, n_ids; /* n_bytes 0: empty */
    char bytes[CACHE_BYTES];
    int32_t ids[CACHE_IDS];
} cache_entry;

typedef struct piece_cache {
    pthread_mutex_t lock;
    cache_entry *entries; /* owned; [CACHE_SETS][CACHE_WAYS] */
    uint32_t now;
} piece_cache;

typedef struct bpe {
    vocab vocab;
    merge_table merges;
    int32_t low_id[0x180]; /* ids of one-character texts below U+0180, -1: none */
    int32_t byte_id[256];  /* ids of <0x00> .. <0xFF>, -1: none */
    int32_t unk_id;        /* -1: none */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool byte_level; /* pieces are bytes, symbols are characters of the byte alphabet */
} bpe;

typedef struct symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t prev, next;
    uint32_t begin; /* in the text; SentencePiece merges by text */
} symbol;

typedef struct heap_entry {
    uint64_t key; /* rank, position */
    int32_t merged;
} heap_entry;

struct encoding {
    tokenizer *t;
    int32_t *ids;
    size_t n_ids, max_ids;
    moe_text norm[2], pre;                /* scratch of normalizer; of SentencePiece */
    moe_text mapped;                      /* a piece in the byte alphabet */
    moe_text staged[TOKENIZER_MAX_STEPS]; /* scratch of a pre-tokenizer's stages */
    pattern_walk walks[TOKENIZER_MAX_STEPS];
    symbol *symbols;
    size_t n_symbols, symbol_capacity;
    heap_entry *heap;
    size_t n_heap, heap_capacity;
    text_view pieces_text;       /* SentencePiece: what the symbols are of */
    const tokenizer_span *spans; /* in the text being encoded */
    size_t n_spans;
    size_t n_read; /* bytes of normalised text that have become tokens, or would have been one too many */
    bool head;     /* nothing stands before the text being encoded (Metaspace with prepend_scheme first) */
};

/* MOE_ERR_BUSY: more than max_ids. */
MOE_NODISCARD moe_status encoding_emit(encoding *e, int32_t id);
bool symbol_add(encoding *e, int32_t id, size_t begin); /* false: no memory */
bool symbols_merge(encoding *e);                        /* until no pair is known; false: no memory */
MOE_NODISCARD moe_status bpe_encode(encoding *e, const char *piece, size_t n);
MOE_NODISCARD moe_status piece_cache_init(piece_cache *c);
void piece_cache_fini(piece_cache *c);

/* ---- encode.c */
void encoding_init(encoding *e, tokenizer *t, int32_t *ids, size_t max_ids);
void encoding_fini(encoding *e);
/* Encodes text[begin, end) as a text of its own. */
MOE_NODISCARD moe_status encoding_text(encoding *e, const char *text, size_t begin, size_t end);
MOE_NODISCARD moe_status encoding_error(moe_status status, const char *what, size_t max_ids, moe_error *err);

/* ---- decode.c */
typedef struct decoder {
    text_steps steps; /* on each token */
    bool byte_level, byte_fallback, fused, join_with_space, has_metaspace;
    char strip[4]; /* taken off the head of the whole text, at most n_strip times */
    size_t strip_bytes, n_strip;
} decoder;

/* ---- sentencepiece.c: a model from tokenizer.model. Encoding and decoding are those of SentencePiece: merges are
 * found by the text of two neighbours, which need not be pieces themselves. */
typedef struct sentencepiece {
    bool present;
    bool dummy_prefix; /* a space is put before the text, ... */
    bool prefix_again; /* ... and before the text behind an added token */
    bool remove_extra_spaces, escape_spaces;
    uint32_t *order; /* owned; [n_pieces]: the pair whose result has the lowest is merged first */
    size_t n_pieces, longest;
    int32_t bos_id, eos_id; /* control pieces; -1: none */
    added_set user;         /* user-defined pieces: units of the text, whatever stands around them */
} sentencepiece;

MOE_NODISCARD moe_status sentencepiece_encode(encoding *e, text_view text, bool head);
/* The pair that begins at symbol left, if together they are a piece. */
bool sentencepiece_pair(const encoding *e, int32_t left, heap_entry *out);
void sentencepiece_decode(tokenizer_decode *d, int32_t id, moe_text *out);
void sentencepiece_flush(tokenizer_decode *d, moe_text *out);

/* ---- sentencepiece_load.c */
MOE_NODISCARD moe_status sentencepiece_load(tokenizer *t, text_view file, moe_error *err);
/* What tokenizer_config.json says of such a model: which tokens are matched in text, whether a bos goes first. */
MOE_NODISCARD moe_status sentencepiece_load_added(tokenizer *t, const moe_json *config, added_list *list,
                                                  moe_error *err);
MOE_NODISCARD moe_status sentencepiece_load_affixes(tokenizer *t, const moe_json *config, moe_error *err);
void sentencepiece_fini(sentencepiece *s);

/* ---- chat.c */
typedef struct model_chat {
    template *main, *tools; /* owned; tools: where tools are given; NULL: main serves both */
    const char *name;       /* of main; NULL: there is none */
    bool needs_eos;         /* one of ours, which end an answer with it */
    moe_error problem;      /* why the model's own could not be taken */
    moe_json *variables;    /* owned; object: bos_token, eos_token, ... */
} model_chat;

typedef struct chat_sources {
    text_view main, tools; /* data NULL: none */
} chat_sources;

/* Takes the model's templates and tokens; config may be NULL. A template that cannot be used is a problem, not an error. */
MOE_NODISCARD moe_status chat_load(tokenizer *t, const moe_json *config, const chat_sources *from, moe_error *err);
void chat_fini(model_chat *c);
/* The ids that bos_token and eos_token stand for: config.json's, else tokenizer_config.json's. OLMoE names no bos; its
 * templates begin with the eos. -1: none. */
int32_t chat_end_id(const tokenizer *t);
int32_t chat_begin_id(const tokenizer *t);

/* ---- load.c */
enum {
    TOKEN_SPECIAL = 1,
    TOKEN_BYTE = 2,
    TOKEN_RESERVED = 4, /* SentencePiece: unknown, control, byte; text is never that piece */
    TOKEN_USER = 8      /* SentencePiece: user-defined; never merged */
};

typedef struct vocab_token {
    const char *text; /* borrowed from vocab or added_text; NULL: no text */
    uint32_t n_text;
    uint32_t decoded, n_decoded; /* of tokenizer.decoded */
    uint32_t flags;
} vocab_token;

struct tokenizer {
    bpe bpe;
    vocab_token *tokens; /* owned; [vocab_size] */
    size_t vocab_size;
    char *added_text;                     /* owned */
    int32_t config_bos_id, config_eos_id; /* what tokenizer_config.json names; -1: nothing */
    added_set raw, normalized;
    text_steps normalizer;
    pre_tokenizer pre;
    int32_t prefix[TOKENIZER_MAX_AFFIX], suffix[TOKENIZER_MAX_AFFIX];
    size_t n_prefix, n_suffix;
    bool has_template; /* the post-processor has said what stands there */
    decoder decoder;
    sentencepiece pieces; /* instead of normalizer, pre and decoder */
    moe_text decoded;
    size_t longest;
    size_t max_bytes_per_id;    /* of text as it was given that one id can stand for; 0: no such bound */
    size_t max_bytes_per_piece; /* of normalised text that one token of the model can stand for; 0: no such bound */
    uint16_t *reach; /* owned; [256][256] by the first two bytes: the same for tokens that begin so; NULL: not known */
    int32_t bos_id, eos_id;
    model_chat chat;
    piece_cache cache;
};

/* ---- fields.c: typed fields; path is the object's place in the file, for the message. Absent or null gives the
 * fallback; NULL as fallback of a text means required. */
enum { MAX_PATH = 192 };
const moe_json *field(const moe_json *object, const char *key); /* NULL: absent or null */
MOE_NODISCARD moe_status field_bool(const moe_json *object, const char *path, const char *key, bool fallback, bool *out,
                                    moe_error *err);
MOE_NODISCARD moe_status field_text(const moe_json *object, const char *path, const char *key, const char *fallback,
                                    text_view *out, moe_error *err);
MOE_NODISCARD moe_status field_char(const moe_json *object, const char *path, const char *key, const char *fallback,
                                    text_view *out, moe_error *err);
MOE_NODISCARD moe_status field_count(const moe_json *object, const char *path, const char *key, size_t *out,
                                     moe_error *err);
MOE_NODISCARD moe_status field_id(const tokenizer *t, const moe_json *value, const char *path, int32_t *out,
                                  moe_error *err);
MOE_NODISCARD moe_status field_type(const moe_json *object, const char *path, text_view *out, moe_error *err);
MOE_NODISCARD moe_status field_pattern(const moe_json *object, const char *path, text_pattern *out, moe_error *err);
/* What the pre-tokenizer and the decoder of that name share. Old files say add_prefix_space, not prepend_scheme. */
MOE_NODISCARD moe_status field_metaspace(const moe_json *json, const char *path, text_view *mark,
                                         prepend_scheme *scheme, moe_error *err);
bool text_is(text_view text, const char *word);
moe_status refuse_type(const char *path, text_view type, moe_error *err);
MOE_NODISCARD bool pattern_set(text_pattern *out, const char *text, size_t n); /* false: no memory */
/* Take over what the step owns. */
MOE_NODISCARD moe_status steps_add(text_steps *steps, text_step step, const char *path, moe_error *err);
MOE_NODISCARD moe_status steps_add_replace(text_steps *steps, const moe_json *json, const char *path, moe_error *err);
/* Calls load for each element of json[key]. */
typedef moe_status (*load_step)(tokenizer *t, const moe_json *json, const char *path, moe_error *err);
MOE_NODISCARD moe_status load_sequence(tokenizer *t, const moe_json *json, const char *path, const char *key,
                                       load_step load, moe_error *err);

/* ---- load_input.c, load_output.c: the objects of tokenizer.json that have a type */
MOE_NODISCARD moe_status load_normalizer(tokenizer *t, const moe_json *json, moe_error *err);
MOE_NODISCARD moe_status load_pre_tokenizer(tokenizer *t, const moe_json *json, moe_error *err);
MOE_NODISCARD moe_status load_post_processor(tokenizer *t, const moe_json *json, moe_error *err);
MOE_NODISCARD moe_status load_decoder(tokenizer *t, const moe_json *json, moe_error *err);

/* ---- model.c: vocab and merges */
MOE_NODISCARD moe_status load_model(tokenizer *t, const moe_json *json, moe_error *err);

/* ---- bounds.c */
MOE_NODISCARD moe_status bounds_load(tokenizer *t, moe_error *err); /* all else but reach is known by now */
/* Is it certain that normalised text is more than max_ids tokens? Looks at each byte once at most. */
bool bounds_exceed(const tokenizer *t, text_view text, size_t max_ids);

/* ---- added_load.c: added_tokens, and added_tokens_decoder of tokenizer_config.json */
MOE_NODISCARD moe_status added_list_load(const tokenizer *t, const moe_json *json, const moe_json *config,
                                         added_list *list, moe_error *err);
/* Gives the tokens their texts and flags. */
MOE_NODISCARD moe_status added_list_apply(tokenizer *t, const added_list *list, moe_error *err);
/* Builds the sets that are matched; all TOKEN_SPECIAL flags are known by now. */
MOE_NODISCARD moe_status added_list_match(tokenizer *t, const added_list *list, moe_error *err);

/* ---- config.c: tokenizer_config.json; json may be NULL */
/* A token is a string, or an object with its content. Strings the tokenizer does not know name nothing: *out is -1. */
MOE_NODISCARD moe_status load_config_token(const tokenizer *t, const moe_json *json, const added_list *list,
                                           const char *key, int32_t *out, moe_error *err);
MOE_NODISCARD moe_status load_config_tokens(tokenizer *t, const moe_json *json, const added_list *list, moe_error *err);
MOE_NODISCARD moe_status load_config_affixes(tokenizer *t, const moe_json *json, moe_error *err);
char *text_copy(const char *text, size_t n); /* owned, NUL-terminated; NULL: no memory */
#endif
