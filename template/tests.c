/* Tests: x is name. */
#include "template/template_priv.h"

static bool is_boolean(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_BOOL;
}

static bool is_callable(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_MACRO || v.kind == V_GLOBAL || v.kind == V_METHOD || v.kind == V_UNDEFINED;
}

static bool is_defined(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind != V_UNDEFINED;
}

static bool is_undefined(render *r, value v, const value *s)
{
    return !is_defined(r, v, s);
}

static bool is_divisible(render *r, value v, const value *s)
{
    const value rest = value_operate(r, OP_MOD, v, s[0]);

    return RENDER_OK(r) && value_equal(r, rest, value_int(0));
}

static bool is_even(render *r, value v, const value *s)
{
    const value two = value_int(2);

    (void)s;
    return is_divisible(r, v, &two);
}

static bool is_odd(render *r, value v, const value *s)
{
    const value rest = value_operate(r, OP_MOD, v, value_int(2));

    (void)s;
    return RENDER_OK(r) && value_equal(r, rest, value_int(1));
}

static bool is_escaped(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_TEXT && v.text->markup;
}

static bool is_false(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_BOOL && !v.b;
}

static bool is_true(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_BOOL && v.b;
}

static bool is_filter(render *r, value v, const value *s)
{
    const char *name = v.kind == V_TEXT ? text_cstr(r, v.text) : NULL;

    (void)s;
    return name && filter_find(name);
}

static bool is_test(render *r, value v, const value *s)
{
    const char *name = v.kind == V_TEXT ? text_cstr(r, v.text) : NULL;

    (void)s;
    return name && test_find(name);
}

static bool is_float(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_FLOAT;
}

static bool is_integer(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_INT;
}

static bool is_iterable(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_TEXT || v.kind == V_SEQ || v.kind == V_DICT || v.kind == V_UNDEFINED || v.kind == V_LOOP;
}

static bool is_mapping(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_DICT;
}

static bool is_none(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_NONE;
}

static bool is_number(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return value_is_number(v);
}

/* Has it a length, and items by number or key? As in Jinja, an undefined value has. */
static bool is_sequence(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_TEXT || v.kind == V_DICT || v.kind == V_UNDEFINED ||
           (v.kind == V_SEQ && v.seq->kind <= SEQ_RANGE);
}

static bool is_string(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v.kind == V_TEXT;
}

static bool is_same(render *r, value v, const value *s)
{
    if (v.kind != s[0].kind) {
        return false;
    }
    return v.kind == V_SEQ || v.kind == V_DICT ? v.seq == s[0].seq : value_equal(r, v, s[0]);
}

static bool is_eq(render *r, value v, const value *s)
{
    return value_compare(r, OP_EQ, v, s[0]);
}

static bool is_ne(render *r, value v, const value *s)
{
    return value_compare(r, OP_NE, v, s[0]);
}

static bool is_lt(render *r, value v, const value *s)
{
    return value_compare(r, OP_LT, v, s[0]);
}

static bool is_le(render *r, value v, const value *s)
{
    return value_compare(r, OP_LE, v, s[0]);
}

static bool is_gt(render *r, value v, const value *s)
{
    return value_compare(r, OP_GT, v, s[0]);
}

static bool is_ge(render *r, value v, const value *s)
{
    return value_compare(r, OP_GE, v, s[0]);
}

static bool is_in(render *r, value v, const value *s)
{
    return value_compare(r, OP_IN, v, s[0]);
}

static bool has_case(render *r, value v, const char *name)
{
    const args none = {NULL, 0, NULL, NULL, 0};
    const value t = value_to_text(r, v), bare = RENDER_OK(r) ? attribute_of(r, t, name) : t;
    const value answer = RENDER_OK(r) ? call_value(r, bare, &none) : t;

    return RENDER_OK(r) && value_truth(answer);
}

static bool is_lower(render *r, value v, const value *s)
{
    (void)s;
    return has_case(r, v, "islower");
}

static bool is_upper(render *r, value v, const value *s)
{
    (void)s;
    return has_case(r, v, "isupper");
}

static const test tests[] = {{"boolean", "", is_boolean},
                             {"callable", "", is_callable},
                             {"defined", "", is_defined},
                             {"divisibleby", "*num", is_divisible},
                             {"eq", "*b", is_eq},
                             {"equalto", "*b", is_eq},
                             {"==", "*b", is_eq},
                             {"escaped", "", is_escaped},
                             {"even", "", is_even},
                             {"false", "", is_false},
                             {"filter", "", is_filter},
                             {"float", "", is_float},
                             {"ge", "*b", is_ge},
                             {">=", "*b", is_ge},
                             {"greaterthan", "*b", is_gt},
                             {"gt", "*b", is_gt},
                             {">", "*b", is_gt},
                             {"in", "*seq", is_in},
                             {"integer", "", is_integer},
                             {"iterable", "", is_iterable},
                             {"le", "*b", is_le},
                             {"<=", "*b", is_le},
                             {"lessthan", "*b", is_lt},
                             {"lower", "", is_lower},
                             {"lt", "*b", is_lt},
                             {"<", "*b", is_lt},
                             {"mapping", "", is_mapping},
                             {"ne", "*b", is_ne},
                             {"!=", "*b", is_ne},
                             {"none", "", is_none},
                             {"number", "", is_number},
                             {"odd", "", is_odd},
                             {"sameas", "*other", is_same},
                             {"sequence", "", is_sequence},
                             {"string", "", is_string},
                             {"test", "", is_test},
                             {"true", "", is_true},
                             {"undefined", "", is_undefined},
                             {"upper", "", is_upper}};

const test *test_find(const char *name)
{
    for (size_t i = 0; i < MOE_COUNT(tests); i++) {
        if (strcmp(tests[i].name, name) == 0) {
            return &tests[i];
        }
    }
    return NULL;
}

bool test_run(render *r, const test *t, value subject, const args *a)
{
    value slots[MAX_SLOTS];

    return RENDER_OK(r) && args_bind(r, t->name, t->parameters, a, slots) && t->run(r, subject, slots);
}
