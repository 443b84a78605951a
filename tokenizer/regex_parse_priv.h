/* What the two files that read expressions share: regex_parse.c the whole, regex_class.c characters and sets of
 * them. */
#ifndef CONCLAVE_TOKENIZER_REGEX_PARSE_PRIV_H
#define CONCLAVE_TOKENIZER_REGEX_PARSE_PRIV_H

#include "tokenizer/regex_priv.h"

typedef struct regex_parser {
    syntax *s;
    const char *text;
    size_t n, at;
    size_t depth, class_depth; /* groups and classes around here; classes alone */
    bool ignore_case, dot_all;
    moe_error *err;
} regex_parser;

/* MOE_ERR_UNSUPPORTED: what stands at that byte, and why it is refused. */
moe_status regex_refuse(const regex_parser *p, size_t at, const char *what);
bool regex_looks_at(const regex_parser *p, const char *what);
bool regex_take(regex_parser *p, const char *what); /* if it stands here */

/* ---- regex_class.c */
charset set_of_words(bool in_class); /* \w; sealed */
/* At a backslash: one character (*single_out), or a set that is added to set. */
MOE_NODISCARD moe_status regex_escape(regex_parser *p, bool in_class, charset *set, bool *single_out, int32_t *c_out);
/* At a "[". out is sealed, and the caller's also on failure. */
MOE_NODISCARD moe_status regex_class(regex_parser *p, charset *out);

#endif
