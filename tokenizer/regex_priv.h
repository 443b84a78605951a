/* regex: the patterns of a tokenizer.json, matched in linear time.
 *
 *   charset      a set of code points as ranges
 *   syntax       a pattern, parsed: nodes in an array, each set of characters kept once
 *   automaton    a table [state][class of the next character], worked out whole when the file is opened
 *   regex        two automata: one finds where a match ends, one (backwards) where matches begin
 *   regex_scan   one walk over one text; one thread
 *
 * The language is what published patterns use of Oniguruma's: alternatives, classes (nested, &&, \p{..}, [:..:]),
 * greedy and lazy repetition, (?i: ), groups, ^ $ \A \z \b \B, and looking ahead or behind by one character. Of
 * alternatives the first wins, as in Oniguruma; a match is the leftmost. `{1,3}+` repeats `{1,3}`, it does not make it
 * possessive. What would need backtracking (references, longer look-around) is refused by name.
 *
 * Why not a library: a backtracking matcher is quadratic on `\s+$` and a run of spaces, and its limits count per place
 * at which a match may begin (docs/decisions.md).
 *
 * A regex is constant after regex_compile; any number of threads may scan with it. */
#ifndef CONCLAVE_TOKENIZER_REGEX_PRIV_H
#define CONCLAVE_TOKENIZER_REGEX_PRIV_H

#include "base/base.h"

/* ---- charset.c: ranges ascend, do not touch and lie in [0, CHAR_LAST] once sealed */
#define CHAR_LAST    0x10ffff
#define CHARSET_MAX  ((size_t)1 << 16) /* ranges */
#define MAX_PROPERTY 24                /* bytes of a name */

typedef struct char_range {
    int32_t first, last;
} char_range;

typedef struct charset {
    char_range *ranges; /* owned */
    size_t n, capacity;
    bool failed; /* no memory, or more than CHARSET_MAX; checked once, at the end */
} charset;

void charset_fini(charset *s);
void charset_add(charset *s, int32_t first, int32_t last); /* unsealed afterwards */
void charset_add_set(charset *s, const charset *other);
/* A general category ("L", "Lu", "Letter"), a class ("space", "word", "xdigit", ...) or the script "Han"; case, spaces
 * and underscores do not count. false: no such name. */
bool charset_add_property(charset *s, const char *name, size_t n);
void charset_seal(charset *s);                            /* sorts and joins */
void charset_invert(charset *s);                          /* both sealed, before and after */
void charset_intersect(charset *s, const charset *other); /* both sealed */
void charset_close_case(charset *s);                      /* adds what differs by case alone; sealed */

/* ---- regex_parse.c */
#define SYNTAX_MAX_NODES  4096
#define SYNTAX_MAX_SETS   64
#define SYNTAX_MAX_DEPTH  32
#define SYNTAX_MAX_REPEAT 1000
#define REPEAT_NO_MAX     UINT16_MAX

typedef enum { NODE_EMPTY, NODE_SET, NODE_CAT, NODE_ALT, NODE_REPEAT, NODE_LOOK } node_kind;

typedef struct syntax_node {
    node_kind kind;
    uint16_t left, right; /* CAT, ALT; REPEAT: left */
    uint16_t min, max;    /* REPEAT */
    uint16_t set;         /* SET, LOOK */
    bool lazy;            /* REPEAT */
    bool behind;          /* LOOK: at the character before, else at the one that follows */
    bool at_edge;         /* LOOK: holds at the edge of the text too */
} syntax_node;

typedef struct syntax {
    syntax_node *nodes; /* owned */
    size_t n_nodes, node_capacity;
    charset sets[SYNTAX_MAX_SETS];
    size_t n_sets;
    uint16_t root;
} syntax;

/* MOE_ERR_UNSUPPORTED names the construction and its byte. s is given to syntax_fini in any case. */
MOE_NODISCARD moe_status syntax_parse(const char *pattern, size_t n, syntax *s, moe_error *err);
void syntax_fini(syntax *s);

/* ---- regex_classes.c: characters that no set of a pattern tells apart are one class */
#define CLASSES_MAX 254 /* and one more: the edge of the text */

typedef struct char_classes {
    uint8_t ascii[128];
    uint16_t *pages;                /* owned; [0x1100]: the page of 256 characters */
    uint8_t *of;                    /* owned; [n_pages][256] */
    size_t n;                       /* class n is the edge */
    uint64_t sets[CLASSES_MAX + 1]; /* bit i: the class is in set i */
} char_classes;

MOE_NODISCARD moe_status char_classes_build(const syntax *s, char_classes *out, moe_error *err);
void char_classes_fini(char_classes *c);

/* ---- regex_automaton.c */
#define PROGRAM_MAX      16384 /* instructions */
#define AUTOMATON_STATES 16384
#define AUTOMATON_CELLS  ((size_t)1 << 21)
#define AUTOMATON_WORK   ((size_t)1 << 20) /* threads followed while it is built; published patterns need some 10,000 */
#define AUTOMATON_MATCH  0x80000000u       /* of a cell: a match ends (begins) before this character */
#define AUTOMATON_DEAD   0u                /* state 0 */

typedef struct automaton {
    uint32_t *cells;                 /* owned; a row [width] for each state */
    size_t width;                    /* the classes, and the end of the text */
    uint32_t start[CLASSES_MAX + 1]; /* by the class before the first character */
} automaton;

/* backwards: reads text from its end; a cell then says whether any match begins behind this character. */
MOE_NODISCARD moe_status automaton_build(const syntax *s, const char_classes *classes, bool backwards, automaton *out,
                                         moe_error *err);
void automaton_fini(automaton *a);

/* ---- regex.c */
typedef struct regex {
    char_classes classes;
    automaton ends, begins;
} regex;

/* err names construction and place, without the field that the pattern stands in. */
MOE_NODISCARD moe_status regex_compile(const char *pattern, size_t n, regex **out, moe_error *err);
void regex_free(regex *r);

typedef struct regex_scan {
    const regex *r;   /* borrowed */
    const char *text; /* borrowed; valid UTF-8 */
    size_t n;
    size_t next;            /* where the next search begins */
    size_t last_end;        /* of the last match; SIZE_MAX: none yet */
    uint64_t *begins;       /* owned; bit per byte, filled when a search has failed at some length */
    size_t begins_capacity; /* words */
    bool begins_known;
    uint64_t n_steps; /* characters looked at; never above 32 * n + 4096 */
} regex_scan;

/* A scan may be started again and again; its memory is kept until regex_scan_fini. Zero-initialise it first. */
void regex_scan_start(regex_scan *s, const regex *r, const char *text, size_t n);
/* The next match. MOE_ERR_NOT_FOUND: no more; MOE_ERR_UNSUPPORTED: the pattern reads this text again and again. */
MOE_NODISCARD moe_status regex_scan_next(regex_scan *s, size_t *begin_out, size_t *end_out);
void regex_scan_fini(regex_scan *s);
#endif
