/* template, inside: what the files of this folder share.
 *
 *   arena     memory of a compiled template, or of one rendering; given back as a whole
 *   value     what an expression gives; text, seq and dict are shared, and never change once another can see them
 *   node      a piece of a compiled template
 *   render    one rendering: scopes, output, steps; the first error stays in it, and later calls do nothing */
#ifndef CONCLAVE_TEMPLATE_PRIV_H
#define CONCLAVE_TEMPLATE_PRIV_H

#include "template/template.h"

#include <string.h>

enum {
    MAX_PARSE_DEPTH = 200,   /* brackets within brackets */
    MAX_NODE_DEPTH = 200,    /* of a compiled template */
    MAX_RENDER_DEPTH = 1000, /* nodes within nodes, macros included */
    MAX_RANGE = 100000,      /* the sandbox's */
    MAX_SLOTS = 6            /* parameters of a filter or method */
};

/* ---- arena.c */
typedef struct arena_block arena_block;
typedef struct arena {
    arena_block *blocks; /* owned */
    size_t taken, limit; /* bytes */
} arena;

void arena_init(arena *a, size_t limit);
void arena_fini(arena *a);
void *arena_take(arena *a, size_t bytes); /* zeroed, aligned for anything; NULL: over the limit, or none */
/* The n items with room for one more: where they are, or copied to twice the room (at first to `first`). NULL: over the
 * limit, or none; nothing has changed then. */
void *arena_grow(arena *a, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity);

/* ---- value.c */
typedef enum {
    V_ABSENT, /* an argument that was not given; no expression gives it */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_TEXT,
    V_SEQ,
    V_DICT,
    V_NAMESPACE,
    V_MACRO,
    V_GLOBAL, /* range, dict, ... */
    V_METHOD, /* bound to its object */
    V_LOOP
} value_kind;

typedef struct text {
    const char *data;       /* UTF-8 */
    const uint8_t *origins; /* [n]; NULL: all of origin */
    size_t n;
    struct builder *room; /* the builder whose last bytes these are: + goes on there; NULL: none */
    uint8_t origin;
    bool ascii;  /* known to be; false: not known */
    bool markup; /* by safe or escape: + escapes the other side */
} text;

typedef enum { SEQ_LIST, SEQ_TUPLE, SEQ_RANGE, SEQ_ITERATOR, SEQ_KEYS, SEQ_VALUES, SEQ_ITEMS } seq_kind;
typedef struct value value;

typedef struct seq {
    seq_kind kind;
    value *items;
    size_t n, capacity;
    size_t next;               /* ITERATOR: items before it have been taken */
    int64_t start, stop, step; /* RANGE: what it was given */
} seq;

typedef struct pair pair;
typedef struct dict {
    pair *pairs; /* in order of insertion */
    size_t n, capacity;
} dict;

typedef struct undefined {
    const char *name;  /* of the variable or attribute; NULL: none */
    const char *owner; /* kind of the object without it; NULL: a variable */
    bool unsafe;       /* the sandbox hides it */
} undefined;

struct value {
    value_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const text *text;
        seq *seq;
        dict *dict; /* and NAMESPACE */
        const undefined *undefined;
        struct macro *macro;
        const struct global *global;
        struct bound *bound;
        struct loop *loop;
    };
};

struct pair {
    value key, value;
};

/* ---- nodes; what a, b, c, list and name are stands beside each type */
typedef enum {
    N_CONST,            /* constant */
    N_NAME,             /* name */
    N_LIST,             /* list */
    N_TUPLE,            /* list */
    N_DICT,             /* list: key, value, key, value, ... */
    N_UNARY,            /* op; a */
    N_BINARY,           /* op; a, b */
    N_CONCAT,           /* list */
    N_COMPARE,          /* a; list: operands, each a N_BINARY with its op and b */
    N_AND,              /* a, b */
    N_OR,               /* a, b */
    N_NOT,              /* a */
    N_COND,             /* a if b else c (or NULL) */
    N_ATTRIBUTE,        /* a.name */
    N_ITEM,             /* a[b] */
    N_SLICE,            /* a[list[0]:list[1]:list[2]], each may be NULL */
    N_CALL,             /* a(args) */
    N_FILTER,           /* a|name(args); a NULL: of the block around it */
    N_TEST,             /* a is name(args) */
    N_TEXT,             /* constant */
    N_PRINT,            /* a */
    N_IF,               /* list: each a N_COND with test b and its own list; other: else */
    N_FOR,              /* for target a in b if c: list, else other */
    N_SET,              /* a = b */
    N_SET_BLOCK,        /* a = list, through filters b (or NULL) */
    N_ATTRIBUTE_TARGET, /* name.constant = ..., of a namespace */
    N_MACRO,            /* macro */
    N_CALL_BLOCK,       /* call a with caller = macro */
    N_FILTER_BLOCK,     /* list, through filters b */
    N_WITH,             /* args: names and values; list */
    N_SCOPE,            /* list, with a scope of its own */
    N_BREAK,
    N_CONTINUE
} node_type;

typedef enum {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
} operation;

typedef struct node node;

typedef struct node_list {
    node **items;
    size_t n, capacity;
} node_list;

typedef struct node_args {
    node_list positional, values; /* values of keywords */
    const char **keywords;
    size_t n_keywords, capacity;
    node *more_positional, *more_keywords; /* *x, **x; NULL: none */
} node_args;

typedef struct macro_def {
    const char *name;
    const char **parameters;
    size_t n_parameters, capacity;
    node_list defaults; /* of the last parameters */
    node_list body;
    bool uses_caller, uses_kwargs, uses_varargs;
} macro_def;

struct node {
    node_type type;
    operation op;
    uint32_t line;
    uint32_t depth;
    const char *name; /* interned: equal names have equal pointers */
    node *a, *b, *c;
    node_list list, other;
    node_args *args;
    macro_def *macro;
    value constant;
    const void *callee; /* FILTER: a filter, TEST: a test */
};

struct template
{
    arena arena;
    node_list body;
    const char **names; /* interned */
    size_t n_names, capacity;
    const char *loop, *caller, *kwargs, *varargs; /* of names: what is bound without being written */
};

/* ---- lexer.c */
typedef enum {
    T_DATA,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OPERATOR,
    T_END
} token_type;

typedef struct token {
    token_type type;
    uint32_t line;
    const char *data; /* NAME, OPERATOR (NUL-terminated), DATA, STRING (unescaped) */
    size_t n;
    int64_t i;
    double f;
} token;

typedef struct parser {
    template *t;
    token *tokens; /* [n_tokens], the last is T_END */
    size_t n_tokens, capacity, at;
    size_t depth;
    size_t loop_depth; /* loops that break may leave */
    macro_def *macro;  /* the one being parsed; NULL: none */
    moe_status status;
    moe_error *err;
} parser;

MOE_NODISCARD moe_status lexer_run(parser *p, const char *source, size_t n);
void parser_fail(parser *p, moe_status status, uint32_t line, const char *format, ...) MOE_PRINTF(4, 5);
void *parser_take(parser *p, size_t bytes); /* NULL: failed */
void *parser_grow(parser *p, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity); /* likewise */
/* ---- literal.c */
bool literal_text(parser *p, token *t, const char *source, size_t n);                     /* between the quotes */
size_t literal_number(parser *p, token *t, const char *source, size_t n, bool after_dot); /* its length; 0: failed */

/* ---- parser.c */
bool token_is(const token *t, token_type type, const char *data);
const token *parser_look(const parser *p, size_t ahead);
bool parser_at(const parser *p, token_type type, const char *data);
bool parser_skip(parser *p, token_type type, const char *data); /* true: it was there */
void parser_expect(parser *p, token_type type, const char *data);
const char *parser_intern(parser *p, const char *data, size_t n);
node *parser_node(parser *p, node_type type, uint32_t line);
void parser_adopt(parser *p, node *parent, const node *child); /* for its depth; child may be NULL */
void node_list_add(parser *p, node_list *list, node *item);
void name_list_add(parser *p, const char ***names, size_t *n, size_t *capacity, const char *name);
node *parser_two(parser *p, node_type type, operation op, uint32_t line, node *a, node *b); /* of two operands */
void parser_adopt_list(parser *p, node *parent, const node_list *list);
uint32_t parser_line(const parser *p);
node *parser_unexpected(parser *p); /* NULL */

/* ---- parse_operand.c */
node *parse_unary(parser *p, bool with_filter);
node *parse_primary(parser *p);
node *parse_filters(parser *p, node *subject, bool inline_first);

/* ---- parse_expression.c */
node *parse_expression(parser *p);
/* A tuple, or one expression; end_name: a name that ends it, too (NULL: none). */
node *parse_tuple(parser *p, bool with_condition, const char *end_name);
node *parse_target(parser *p, const char *end_name, bool with_attribute);

/* ---- check.c: what is not known is refused by name. soft: in a branch, where Jinja, too, waits until it is taken. */
void check_nodes(parser *p, const node_list *list, bool soft);

/* ---- render */
typedef struct binding {
    const char *name;
    value value;
} binding;

typedef struct scope {
    struct scope *parent;
    binding *bindings;
    size_t n, capacity;
} scope;

typedef struct builder {
    char *data;
    uint8_t *origins; /* NULL: all of origin */
    size_t n, capacity;
    uint8_t origin;
    bool ascii;
} builder;

struct template_vars {
    arena arena;
    template_limits limits;
    dict names;
    bool failed;
};

typedef struct render {
    arena *arena;
    const template *t;
    template_limits limits;
    const template_time *now;
    builder *out;
    scope *scope;
    size_t steps, depth;
    uint32_t line;
    moe_status status;
    moe_error *err;
} render;

typedef struct macro {
    const macro_def *def;
    scope *scope; /* where it was defined */
} macro;

typedef struct loop {
    const seq *items;
    size_t at;
    value changed; /* what the last loop.changed() was given; ABSENT: nothing yet */
} loop;

typedef struct args {
    const value *items; /* positional */
    size_t n;
    const char *const *keywords;
    const value *values; /* of keywords */
    size_t n_keywords;
} args;

#define RENDER_OK(r) ((r)->status == MOE_OK)
/* Sets the first error; line and reason. Returns UNDEFINED, to be returned. */
value render_fail(render *r, const char *format, ...) MOE_PRINTF(2, 3);
value render_raise(render *r, const text *message); /* the message alone */
void *render_take(render *r, size_t bytes);         /* NULL: failed */
void *render_grow(render *r, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity); /* likewise */
bool render_step(render *r, size_t touched); /* bytes or items; false: failed */

/* ---- value.c */
extern const text text_empty;
value value_undefined(render *r, const char *name, const char *owner);
value value_unsafe(render *r, const char *name, const char *owner);
static inline value value_none(void)
{
    return (value){.kind = V_NONE};
}
static inline value value_bool(bool b)
{
    return (value){.kind = V_BOOL, .b = b};
}
static inline value value_int(int64_t i)
{
    return (value){.kind = V_INT, .i = i};
}
static inline value value_float(double f)
{
    return (value){.kind = V_FLOAT, .f = f};
}
static inline value value_text(const text *t)
{
    return (value){.kind = V_TEXT, .text = t};
}
const char *value_type_name(value v); /* as Python calls it */
bool value_truth(value v);
bool value_equal(render *r, value a, value b);
bool value_is_number(value v);            /* bool, int, float */
bool value_as_int(value v, int64_t *out); /* bool or int */
double value_as_float(value v);
int value_order(render *r, value a, value b, const char *op); /* -1, 0, 1; 2: unordered (NaN) */
bool value_in(render *r, value item, value container);
bool value_same_text(value v, const char *s);
value seq_new(render *r, seq_kind kind, size_t capacity);
void seq_add(render *r, seq *s, value v);
value dict_new(render *r);
const value *dict_find(render *r, const dict *d, value key);
const value *dict_find_text(const dict *d, const char *key, size_t n);
void dict_put(render *r, dict *d, value key, value v);
/* All items of something iterable, as a SEQ; an ITERATOR is used up. */
const seq *value_items(render *r, value v);
bool value_length(render *r, value v, int64_t *out); /* false: it has none, nothing said */
bool value_hashable(render *r, value v);             /* false: said */

/* ---- text.c */
void builder_add(render *r, builder *b, const char *data, size_t n, uint8_t origin);
void builder_add_text(render *r, builder *b, const text *t);
void builder_add_slice(render *r, builder *b, const text *t, size_t from, size_t to); /* bytes */
void builder_add_cstr(render *r, builder *b, const char *s);
void builder_printf(render *r, builder *b, const char *format, ...) MOE_PRINTF(3, 4);
value builder_value(render *r, builder *b);
value text_value(render *r, const char *data, size_t n, uint8_t origin); /* borrows */
value text_slice(render *r, const text *t, size_t from, size_t to);      /* bytes; shares */
value text_part(render *r, const text *t, size_t from, size_t to);       /* the same, never t itself */
value text_add(render *r, const text *a, const text *b);
bool text_is_ascii(const char *data, size_t n);
size_t text_length(const text *t);                           /* characters */
size_t text_offset(const text *t, size_t character);         /* bytes before it */
size_t text_character(const text *t, size_t at, int32_t *c); /* at a byte; its length */
size_t text_before(const text *t, size_t at, int32_t *c);    /* the character that ends there; its length */
uint8_t text_origin_at(const text *t, size_t at);
#define TEXT_NOT_FOUND SIZE_MAX
size_t text_search(const text *t, const text *what, size_t from);     /* bytes */
size_t text_search_back(const text *t, const text *what, size_t end); /* the last that ends at or before end */
bool text_equal(const text *a, const text *b);
int text_order(const text *a, const text *b);
bool text_has(const text *t, size_t at, const text *what);
value text_replace(render *r, const text *t, const text *old, const text *new, int64_t count);
value text_strip(render *r, const text *t, const text *chars, bool left, bool right); /* chars NULL: white space */
value text_lines(render *r, const text *t, bool keep_ends);
value text_escape(render *r, const text *t);
char *text_cstr(render *r, const text *t); /* NULL: failed */

/* ---- unicode.c */
typedef enum { CASE_UPPER, CASE_LOWER, CASE_SWAP } case_kind;
bool char_is_space(int32_t c);    /* Python's str.isspace */
bool char_is_line_end(int32_t c); /* Python's str.splitlines */
bool char_is_alpha(int32_t c);
bool char_is_digit(int32_t c); /* Nd, and superscripts */
bool char_is_decimal(int32_t c);
bool char_is_numeric(int32_t c);
bool char_is_upper(int32_t c);
bool char_is_lower(int32_t c);
bool char_is_title(int32_t c);
bool char_is_printable(int32_t c);
size_t char_put(int32_t c, char out[4]);
value text_case(render *r, const text *t, case_kind kind);
value text_title(render *r, const text *t);      /* str.title() */
value text_capitalize(render *r, const text *t); /* str.capitalize() */

/* ---- print.c, json.c */
void print_value(render *r, builder *b, value v); /* str(v) */
void print_repr(render *r, builder *b, value v);
value value_to_text(render *r, value v);
size_t print_float(double f, char out[32]);
value value_fail_undefined(render *r, value v); /* it is used where it may not */
value json_dump(render *r, value v, bool ascii, value indent, value separators, bool sort_keys);

/* ---- operators.c, subscript.c */
value value_operate(render *r, operation op, value a, value b);
value value_negate(render *r, operation op, value a);
bool value_compare(render *r, operation op, value a, value b);
value text_format(render *r, const text *format, value arguments); /* % */
value text_format_method(render *r, value v, const args *a);       /* "{}".format() */
value attribute_of(render *r, value object, const char *name);
value item_of(render *r, value object, value key);
value slice_of(render *r, value object, value start, value stop, value step);
/* x.a.b as filters are given it: "a.b", an integer, or a list of names by commas. */
value path_of(render *r, value object, value path);
value path_or(render *r, value object, value path, value fallback); /* which stands in for each undefined step */

/* ---- evaluate.c, execute.c, call.c */
value evaluate(render *r, const node *n);
typedef enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE } flow;
flow execute(render *r, const node_list *body);
flow execute_captured(render *r, scope *inside, const node_list *body, value *out); /* out: what it prints */
value apply_filters(render *r, const node *filters, value subject);
value *scope_find(scope *s, const char *name);
void scope_set(render *r, scope *s, const char *name, value v);
scope *scope_open(render *r, scope *parent);                  /* NULL: failed */
bool args_evaluate(render *r, const node_args *a, args *out); /* false: failed */
value call_value(render *r, value callee, const args *a);
/* Brings args into the order of names ("width first blank", a * before one that must be given); ABSENT where not given. */
bool args_bind(render *r, const char *who, const char *names, const args *a, value slots[MAX_SLOTS]);

/* ---- filters.c, tests.c, globals.c, methods.c */
typedef value (*slots_fn)(render *r, value subject, const value *slots);
typedef value (*args_fn)(render *r, value subject, const args *a);

typedef struct filter {
    const char *name, *parameters; /* NULL parameters: takes args as they are */
    slots_fn slots;
    args_fn args;
} filter;

typedef struct test {
    const char *name, *parameters;
    bool (*run)(render *r, value subject, const value *slots);
} test;

typedef struct global {
    const char *name;
    value (*call)(render *r, const args *a);
} global;

typedef struct method {
    value_kind kind;
    const char *name, *parameters;
    slots_fn slots;
    args_fn args;
} method;

typedef struct bound {
    const method *method;
    value object;
} bound;

extern const method text_methods[];
extern const size_t n_text_methods;
extern const filter text_filters[], sequence_filters[], number_filters[];
extern const size_t n_text_filters, n_sequence_filters, n_number_filters;
const filter *filter_find(const char *name);
value filter_run(render *r, const filter *f, value subject, const args *a);
const test *test_find(const char *name);
bool test_run(render *r, const test *t, value subject, const args *a);
const global *global_find(const char *name);
const method *method_find(value_kind kind, const char *name);
/* Is it a method of a Python type that an object of ours has? And is it one that is not there? */
bool method_is_unsupported(const char *name);
bool method_mutates(value_kind kind, bool is_list, const char *name);
bool attribute_is_unsupported(value_kind kind, const char *name); /* Python has it, this has not */
value time_format(render *r, const template_time *now, const text *format);
/* Arguments of slots: typed, with what stands where none was given. Failure is said, and gives the fallback. */
int64_t slot_int(render *r, value v, int64_t fallback, const char *what);
bool slot_bool(value v, bool fallback);
const text *slot_text(render *r, value v, const char *fallback, const char *what);
#endif
