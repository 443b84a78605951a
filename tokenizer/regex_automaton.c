/* Nodes to a program (Thompson), the program to a table (subsets).
 *
 * A state is the list of instructions at which threads wait, best first: the order keeps which alternative wins, so
 * what stands behind a match in the list is dropped. Following jumps is put off until the next character is known: then
 * what looks at it can be judged. What looks the other way was judged when the last character was read; the answers are
 * the state's `holds`. Backwards the two sides change roles, and order does not count. */
#include "tokenizer/regex_priv.h"

#include <stdlib.h>
#include <string.h>

typedef enum { DO_SET, DO_FORK, DO_JUMP, DO_LOOK, DO_MATCH } operation;

typedef struct instruction {
    operation what;
    uint16_t a, b; /* FORK: first choice and second; JUMP: a; SET: a is the set; LOOK: a is the set, b its answer */
    bool at_edge;
} instruction;

enum { NO_ANSWER = 0xffff, MAX_ANSWERS = 32 };

typedef struct state {
    uint32_t first, n; /* of places */
    uint32_t holds;
} state;

typedef struct builder {
    const syntax *s;
    const char_classes *classes;
    bool backwards;
    instruction *code; /* owned */
    size_t n_code;
    struct {
        uint16_t set;
        bool at_edge;
    } answers[MAX_ANSWERS]; /* what looks at characters that were read */
    size_t n_answers;
    state *states;    /* owned */
    uint16_t *places; /* owned; instructions of all states */
    size_t n_states, n_places, place_capacity;
    uint32_t *buckets; /* owned; state + 1 by hash */
    size_t bucket_mask;
    /* Scratch of one step; [n_code] each. */
    uint16_t *waiting, *next, *stack; /* owned */
    uint32_t *seen, *taken;           /* owned; the step that saw or took it last */
    uint32_t step;
    size_t work; /* threads followed so far */
    automaton *out;
    moe_error *err;
} builder;

static moe_status too_large(const builder *b)
{
    return moe_fail(b->err, MOE_ERR_UNSUPPORTED, "needs more than %d instructions, %d states or too much work",
                    PROGRAM_MAX, AUTOMATON_STATES);
}

/* ------------------------------------------------------------------------------------------------ program */
static bool emit(builder *b, instruction i)
{
    if (b->n_code == PROGRAM_MAX) {
        return false;
    }
    b->code[b->n_code++] = i;
    return true;
}

static bool emit_look(builder *b, const syntax_node *n)
{
    size_t i = 0;

    if (n->behind == b->backwards) { /* at what is still to be read */
        return emit(b, (instruction){.what = DO_LOOK, .a = n->set, .b = NO_ANSWER, .at_edge = n->at_edge});
    }
    while (i < b->n_answers && (b->answers[i].set != n->set || b->answers[i].at_edge != n->at_edge)) {
        i++;
    }
    if (i == MAX_ANSWERS) {
        return false;
    }
    if (i == b->n_answers) {
        b->answers[b->n_answers].set = n->set;
        b->answers[b->n_answers++].at_edge = n->at_edge;
    }
    return emit(b, (instruction){.what = DO_LOOK, .a = n->set, .b = (uint16_t)i});
}

static bool emit_node(builder *b, uint16_t index); /* recurses as deep as SYNTAX_MAX_NODES */

/* A fork whose other way is not known yet; lazy: that other way is the first choice. */
static size_t emit_fork(builder *b, bool lazy)
{
    const uint16_t here = (uint16_t)(b->n_code + 1);

    return emit(b, (instruction){.what = DO_FORK, .a = lazy ? 0 : here, .b = lazy ? here : 0}) ? b->n_code - 1
                                                                                               : SIZE_MAX;
}

static void fork_to(builder *b, size_t fork, bool lazy)
{
    *(lazy ? &b->code[fork].a : &b->code[fork].b) = (uint16_t)b->n_code;
}

/* The forks of what may be left out all lead to the end: until that is known, each holds the number of the one
 * before. */
static bool emit_optional(builder *b, const syntax_node *n)
{
    uint16_t last = UINT16_MAX;

    for (size_t i = n->min; i < n->max; i++) {
        const size_t fork = emit_fork(b, n->lazy);

        if (fork == SIZE_MAX || !emit_node(b, n->left)) {
            return false;
        }
        *(n->lazy ? &b->code[fork].a : &b->code[fork].b) = last;
        last = (uint16_t)fork;
    }
    while (last != UINT16_MAX) {
        const uint16_t before = n->lazy ? b->code[last].a : b->code[last].b;

        fork_to(b, last, n->lazy);
        last = before;
    }
    return true;
}

static bool emit_repeat(builder *b, const syntax_node *n)
{
    size_t fork;

    for (size_t i = 0; i < n->min; i++) {
        if (!emit_node(b, n->left)) {
            return false;
        }
    }
    if (n->max != REPEAT_NO_MAX) {
        return emit_optional(b, n);
    }
    fork = emit_fork(b, n->lazy);
    if (fork == SIZE_MAX || !emit_node(b, n->left) || !emit(b, (instruction){.what = DO_JUMP, .a = (uint16_t)fork})) {
        return false;
    }
    fork_to(b, fork, n->lazy);
    return true;
}

static bool emit_choice(builder *b, const syntax_node *n)
{
    const size_t fork = emit_fork(b, false);
    size_t jump;

    if (fork == SIZE_MAX || !emit_node(b, n->left) || !emit(b, (instruction){.what = DO_JUMP})) {
        return false;
    }
    jump = b->n_code - 1;
    fork_to(b, fork, false);
    if (!emit_node(b, n->right)) {
        return false;
    }
    b->code[jump].a = (uint16_t)b->n_code;
    return true;
}

static bool emit_node(builder *b, uint16_t index)
{
    const syntax_node *n = &b->s->nodes[index];

    switch (n->kind) {
    case NODE_EMPTY:
        return true;
    case NODE_SET:
        return emit(b, (instruction){.what = DO_SET, .a = n->set});
    case NODE_CAT:
        return emit_node(b, b->backwards ? n->right : n->left) && emit_node(b, b->backwards ? n->left : n->right);
    case NODE_ALT:
        return emit_choice(b, n);
    case NODE_REPEAT:
        return emit_repeat(b, n);
    default:
        return emit_look(b, n);
    }
}

/* Backwards a match may end anywhere: one thread always waits to begin. It skips by the set of all characters, which
 * is written as a SET of the number behind the last. */
static bool emit_program(builder *b)
{
    if (b->backwards) {
        if (!emit(b, (instruction){.what = DO_FORK, .a = 3, .b = 1}) ||
            !emit(b, (instruction){.what = DO_SET, .a = SYNTAX_MAX_SETS}) ||
            !emit(b, (instruction){.what = DO_JUMP, .a = 0})) {
            return false;
        }
    }
    return emit_node(b, b->s->root) && emit(b, (instruction){.what = DO_MATCH});
}

/* ------------------------------------------------------------------------------------------------ states */
static bool in_set(const builder *b, size_t class, uint16_t set)
{
    return class < b->classes->n && (set == SYNTAX_MAX_SETS || b->classes->sets[class] >> set & 1);
}

static bool look_holds(const builder *b, const instruction *i, uint32_t holds, size_t class)
{
    if (i->b != NO_ANSWER) {
        return holds >> i->b & 1;
    }
    return class == b->classes->n ? i->at_edge : in_set(b, class, i->a);
}

static uint32_t answers_after(const builder *b, size_t class)
{
    uint32_t holds = 0;

    for (size_t i = 0; i < b->n_answers; i++) {
        const bool yes = class == b->classes->n ? b->answers[i].at_edge : in_set(b, class, b->answers[i].set);

        holds |= (uint32_t)yes << i;
    }
    return holds;
}

static uint64_t hash_of(const uint16_t *places, size_t n, uint32_t holds)
{
    uint64_t h = 0xcbf29ce484222325u ^ holds;

    for (size_t i = 0; i < n; i++) {
        h = (h ^ places[i]) * 0x100000001b3u;
    }
    return h ^ h >> 29;
}

static bool states_grow(builder *b, size_t n)
{
    size_t capacity = b->place_capacity ? b->place_capacity : 4096;
    uint16_t *grown;

    if (b->n_places + n <= b->place_capacity) {
        return true;
    }
    while (capacity < b->n_places + n) {
        capacity *= 2;
    }
    grown = capacity > AUTOMATON_CELLS ? NULL : realloc(b->places, capacity * sizeof *grown);
    if (grown) {
        b->places = grown;
        b->place_capacity = capacity;
    }
    return grown != NULL;
}

/* The number of the state; AUTOMATON_STATES: too many. State 0 is the one without places. */
static size_t state_find(builder *b, const uint16_t *places, size_t n, uint32_t holds)
{
    size_t slot;

    holds = n == 0 ? 0 : holds;
    for (slot = hash_of(places, n, holds) & b->bucket_mask; b->buckets[slot]; slot = (slot + 1) & b->bucket_mask) {
        const state *s = &b->states[b->buckets[slot] - 1];

        if (s->n == n && s->holds == holds &&
            (n == 0 || memcmp(b->places + s->first, places, n * sizeof *places) == 0)) {
            return b->buckets[slot] - 1;
        }
    }
    if (b->n_states == AUTOMATON_STATES || (b->n_states + 1) * (b->classes->n + 1) > AUTOMATON_CELLS ||
        !states_grow(b, n)) {
        return AUTOMATON_STATES;
    }
    b->states[b->n_states] = (state){(uint32_t)b->n_places, (uint32_t)n, holds};
    if (n > 0) {
        memcpy(b->places + b->n_places, places, n * sizeof *places);
    }
    b->n_places += n;
    b->buckets[slot] = (uint32_t)++b->n_states;
    return b->n_states - 1;
}

/* Threads of place that wait for a character of class, in order; returns whether one has arrived. Forwards that ends
 * it: what is left would be worse. */
static bool follow(builder *b, uint16_t place, uint32_t holds, size_t class, size_t *n_waiting)
{
    bool arrived = false;
    size_t n = 0;

    b->stack[n++] = place;
    while (n > 0 && !(arrived && !b->backwards)) {
        const uint16_t at = b->stack[--n];
        const instruction *i = &b->code[at];

        if (b->seen[at] == b->step) {
            continue;
        }
        b->seen[at] = b->step;
        switch (i->what) {
        case DO_SET:
            b->waiting[(*n_waiting)++] = at;
            break;
        case DO_FORK: /* each is seen once, so the stack never holds more than n_code */
            b->stack[n++] = i->b;
            b->stack[n++] = i->a;
            break;
        case DO_JUMP:
            b->stack[n++] = i->a;
            break;
        case DO_LOOK:
            if (look_holds(b, i, holds, class)) {
                b->stack[n++] = (uint16_t)(at + 1);
            }
            break;
        case DO_MATCH:
            arrived = true;
            break;
        }
    }
    return arrived;
}

static int by_number(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static size_t cell_of(builder *b, size_t from, size_t class, bool *match_out)
{
    const state s = b->states[from];
    size_t n_waiting = 0, n_next = 0;

    b->step++;
    *match_out = false;
    for (size_t i = 0; i < s.n && !(*match_out && !b->backwards); i++) {
        *match_out |= follow(b, b->places[s.first + i], s.holds, class, &n_waiting);
    }
    b->work += s.n + n_waiting;
    for (size_t i = 0; i < n_waiting; i++) {
        const uint16_t to = (uint16_t)(b->waiting[i] + 1);

        if (in_set(b, class, b->code[b->waiting[i]].a) && b->taken[to] != b->step) {
            b->taken[to] = b->step;
            b->next[n_next++] = to;
        }
    }
    if (b->backwards && n_next > 1) {
        qsort(b->next, n_next, sizeof *b->next, by_number);
    }
    return state_find(b, b->next, n_next, answers_after(b, class));
}

static moe_status fill_cells(builder *b)
{
    automaton *a = b->out;
    size_t capacity = 0;

    for (size_t from = 0; from < b->n_states; from++) {
        if (from == capacity) {
            uint32_t *grown;

            capacity = capacity ? capacity * 2 : 64;
            grown = realloc(a->cells, capacity * a->width * sizeof *grown);
            if (!grown) {
                return moe_fail(b->err, MOE_ERR_NO_MEMORY, "out of memory");
            }
            a->cells = grown;
        }
        for (size_t class = 0; class < a->width; class ++) {
            bool match;
            const size_t to = cell_of(b, from, class, &match);

            if (to == AUTOMATON_STATES || b->work > AUTOMATON_WORK) {
                return too_large(b);
            }
            a->cells[from * a->width + class] = (uint32_t)to | (match ? AUTOMATON_MATCH : 0);
        }
    }
    return MOE_OK;
}

static moe_status build(builder *b)
{
    const uint16_t head = 0;

    if (!emit_program(b) || state_find(b, NULL, 0, 0) != AUTOMATON_DEAD) {
        return too_large(b);
    }
    for (size_t class = 0; class < b->out->width; class ++) {
        b->out->start[class] = (uint32_t)state_find(b, &head, 1, answers_after(b, class));
        if (b->out->start[class] == AUTOMATON_STATES) {
            return too_large(b);
        }
    }
    return fill_cells(b);
}

static bool builder_init(builder *b)
{
    b->bucket_mask = AUTOMATON_STATES * 2 - 1;
    b->code = malloc(PROGRAM_MAX * sizeof *b->code);
    b->states = malloc(AUTOMATON_STATES * sizeof *b->states);
    b->buckets = calloc(b->bucket_mask + 1, sizeof *b->buckets);
    b->waiting = malloc((PROGRAM_MAX + 1) * sizeof *b->waiting);
    b->next = malloc((PROGRAM_MAX + 1) * sizeof *b->next);
    b->stack = malloc((PROGRAM_MAX + 1) * 2 * sizeof *b->stack);
    b->seen = calloc(PROGRAM_MAX + 1, sizeof *b->seen);
    b->taken = calloc(PROGRAM_MAX + 1, sizeof *b->taken);
    return b->code && b->states && b->buckets && b->waiting && b->next && b->stack && b->seen && b->taken;
}

static void builder_fini(builder *b)
{
    free(b->code);
    free(b->states);
    free(b->places);
    free(b->buckets);
    free(b->waiting);
    free(b->next);
    free(b->stack);
    free(b->seen);
    free(b->taken);
}

moe_status automaton_build(const syntax *s, const char_classes *classes, bool backwards, automaton *out, moe_error *err)
{
    builder b = {.s = s, .classes = classes, .backwards = backwards, .out = out, .err = err};
    const bool ok = builder_init(&b);
    moe_status status;

    *out = (automaton){.width = classes->n + 1};
    status = ok ? build(&b) : moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    builder_fini(&b);
    return status;
}

void automaton_fini(automaton *a)
{
    free(a->cells);
}
