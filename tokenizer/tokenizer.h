/* tokenizer: text <-> token ids, chat templates, UTF-8-safe streaming.
 *
 * Nouns:
 *   tokenizer          immutable after open; shared by all threads (the piece cache has its own lock)
 *   tokenizer_decode   one stream of ids -> text; one thread
 *   tokenizer_chat     the chat template of a model; part of the tokenizer
 *
 * Files come from outside: every field is checked; a type, a value or an expression that is not supported is a load
 * error that names it, never ignored. Of tokenizer.json BPE is read, with the normalizers, pre-tokenizers (Split's
 * expressions: regex_priv.h), post-processors and decoders of published checkpoints (docs/decisions.md). Bounds:
 * tokenizer.json and tokenizer.model <= 256 MiB, vocabulary <= 4,194,304 entries, one token's text <= 4 KiB.
 * Source: models' own tokenizer.json files; byte-level BPE (GPT-2); SentencePiece 0.1.97; Unicode data by utf8proc. */
#ifndef CONCLAVE_TOKENIZER_H
#define CONCLAVE_TOKENIZER_H

#include "base/base.h"
#include "template/template.h"

typedef struct tokenizer tokenizer;

/* Ids from the model's config: never guessed from strings. */
typedef struct tokenizer_specials {
    const int32_t *ids; /* borrowed during open: bos, eos, pad; skipped in decoded text like `special: true` tokens */
    size_t n_ids;
    int32_t bos_id, eos_id; /* for chat templates and TemplateProcessing; -1: none */
} tokenizer_specials;

/* Opens DIR/tokenizer.json, or without one DIR/tokenizer.model (SentencePiece, BPE with identity normalisation), and
 * DIR/tokenizer_config.json, DIR/chat_template.jinja where present.
 * vocab_size: the model's; every id of the file must be below it. specials may be NULL (no ids).
 * Errors: MOE_ERR_NOT_FOUND when there is neither file (the server then works with token ids only);
 * MOE_ERR_CORRUPT / MOE_ERR_UNSUPPORTED naming the field. */
MOE_NODISCARD moe_status tokenizer_open(const char *dir, size_t vocab_size, const tokenizer_specials *specials,
                                        tokenizer **out, moe_error *err);
/* The same from memory: the fuzz target and the tests. config_json and chat_template may be NULL. */
MOE_NODISCARD moe_status tokenizer_open_memory(const char *json, size_t json_bytes, const char *config_json,
                                               size_t config_bytes, const char *chat_template, size_t template_bytes,
                                               size_t vocab_size, const tokenizer_specials *specials, tokenizer **out,
                                               moe_error *err);
/* And a tokenizer.model from memory. As in tokenizer.json, text is an added token where tokenizer_config.json says so
 * (added_tokens_decoder; bos_token and its like): control pieces of the model are otherwise never found in text.
 * Without add_bos_token a bos goes first, as with LlamaTokenizer, unless tokenizer_class names another class. */
MOE_NODISCARD moe_status tokenizer_open_model_memory(const void *model, size_t model_bytes, const char *config_json,
                                                     size_t config_bytes, const char *chat_template,
                                                     size_t template_bytes, size_t vocab_size,
                                                     const tokenizer_specials *specials, tokenizer **out,
                                                     moe_error *err);
void tokenizer_close(tokenizer *t);

/* Encodes UTF-8 text. Adds no special tokens unless add_special (then what post-processor and tokenizer_config say).
 *   text      any bytes that are valid UTF-8, NUL included
 *   spans     optional: n_spans byte ranges [begin, end) of text, ascending, in which added tokens that are special or have
 *             normalized:false are not matched (text typed by a user inside a chat prompt)
 *   ids       out, at most max_ids
 * Errors: MOE_ERR_INVALID_ARG for invalid UTF-8 (names the byte offset) and when more than max_ids come out (names the
 * limit and how much was encoded). It stops as soon as that is certain: before it reads text that is longer than
 * tokenizer_max_text_bytes, before it merges a stretch whose bytes exceed the longest token's times what is left, and
 * else at the first token too many. Work and memory are O(n log n) in the text, whatever it is. Any thread. */
typedef struct tokenizer_span {
    size_t begin, end;
} tokenizer_span;
MOE_NODISCARD moe_status tokenizer_encode(tokenizer *t, const char *text, size_t bytes, bool add_special,
                                          const tokenizer_span *spans, size_t n_spans, int32_t *ids, size_t max_ids,
                                          size_t *n_ids_out, moe_error *err);

/* Bytes of one token as the decoder writes them (not yet UTF-8-safe); 0 for ids without text. Borrowed for the
 * tokenizer's life. For logprobs and Detokenize of single ids. */
const char *tokenizer_token_bytes(const tokenizer *t, int32_t id, size_t *bytes_out);
bool tokenizer_is_special(const tokenizer *t, int32_t id);
size_t tokenizer_longest_token_bytes(const tokenizer *t);
/* Longest text that can encode to at most n_ids tokens; longer text may be refused unread. */
size_t tokenizer_max_text_bytes(const tokenizer *t, size_t n_ids);

/* Decoding stream: at most 3 bytes are held back until a code point is complete; invalid bytes become U+FFFD (each
 * maximal invalid subpart; each byte with a tokenizer.model). Chunks joined equal the one-shot decode. */
typedef struct tokenizer_decode {
    const tokenizer *t; /* borrowed */
    bool skip_special;
    bool first;               /* next token is the first of its sequence (left strip of some decoders) */
    unsigned char pending[8]; /* head of an unfinished code point */
    size_t n_pending;
    unsigned char byte_run[64]; /* ByteFallback decoders: run of byte tokens not yet judged */
    size_t n_byte_run;
    size_t strip_left; /* decoders that strip: how often still; a continuation clears this and first */
} tokenizer_decode;

void tokenizer_decode_init(tokenizer_decode *d, const tokenizer *t, bool skip_special);
/* Appends the text that id completes, possibly none. Ids without text append nothing. */
void tokenizer_decode_push(tokenizer_decode *d, int32_t id, moe_text *out);
/* Flushes what is held back: an unfinished code point as one U+FFFD. */
void tokenizer_decode_finish(tokenizer_decode *d, moe_text *out);

/* Chat: renders a conversation with the model's chat template (template/template.h) and encodes the text. The template is
 * chat_template.jinja's, else tokenizer_config.json's chat_template (a text, or a list of {name, template}: "default", or
 * the first; "tool_use" where tools are given; additional_chat_templates/tool_use.jinja beside the file).
 *
 * What the conversation brings (contents, names, tools, arguments) is data: no special token is found in it, whatever the
 * template does with it. bos_token and eos_token of the template go out as the model's ids. */
typedef enum {
    TOKENIZER_ROLE_SYSTEM,
    TOKENIZER_ROLE_USER,
    TOKENIZER_ROLE_ASSISTANT,
    TOKENIZER_ROLE_TOOL,
    TOKENIZER_ROLE_DEVELOPER
} tokenizer_role;

typedef struct tokenizer_message {
    tokenizer_role role;
    const char *content; /* UTF-8 */
    size_t bytes;
    const char *name, *tool_call_id, *reasoning_content; /* UTF-8; NULL: not given, and undefined in the template */
    const char *tool_calls;                              /* JSON, a list; NULL: none */
} tokenizer_message;

typedef struct tokenizer_conversation {
    const tokenizer_message *messages;
    size_t n_messages;
    bool add_generation_prompt;
    const char *tools;         /* JSON, a list of functions; NULL: none */
    const char *template_args; /* JSON, an object: more variables ({"enable_thinking": false}); NULL: none */
    const template_time *now;  /* for strftime_now; NULL: a template that asks for it fails */
} tokenizer_conversation;

/* "tulu" or "olmo2" for a template that renders as those do, "default" for another one of the model, "file" for one set by
 * hand, "" when there is none. */
const char *tokenizer_chat_name(const tokenizer *t);
/* Why the model's template cannot be used ("line 3: the filter 'x' is not known"); "" when it can, or there is none. */
const char *tokenizer_chat_problem(const tokenizer *t);
/* Takes a template by name ("tulu", "olmo2"; MOE_ERR_NOT_FOUND for others), or by its source (errors of template_compile),
 * instead of the model's. Before the first encode. */
MOE_NODISCARD moe_status tokenizer_chat_select(tokenizer *t, const char *name, moe_error *err);
MOE_NODISCARD moe_status tokenizer_chat_use(tokenizer *t, const char *source, size_t n, moe_error *err);
/* Errors: MOE_ERR_UNSUPPORTED without a template; MOE_ERR_INVALID_ARG naming the field for what is malformed, for more than
 * max_ids tokens, for what the template refuses (its raise_exception text) or cannot do with this conversation. Any thread. */
MOE_NODISCARD moe_status tokenizer_chat_encode(tokenizer *t, const tokenizer_conversation *c, int32_t *ids,
                                               size_t max_ids, size_t *n_ids_out, moe_error *err);
#endif
