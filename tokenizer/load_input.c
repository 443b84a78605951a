/* The objects of tokenizer.json in front of the model: normalizer and pre_tokenizer. A type or a value that is not
 * known is refused by name. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ normalizer */
static moe_status add_prepend(text_steps *steps, const json_t *json, const char *path, moe_error *err)
{
    text_step step = {.kind = STEP_PREPEND};
    text_view content;
    const moe_status status = field_text(json, path, "prepend", NULL, &content, err);

    if (status != MOE_OK) {
        return status;
    }
    step.content = text_copy(content.data, content.size);
    step.n_content = content.size;
    return step.content ? steps_add(steps, step, path, err)
                        : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
}

static moe_status add_strip(text_steps *steps, const json_t *json, const char *path, moe_error *err)
{
    bool left, right;
    moe_status status = field_bool(json, path, "strip_left", false, &left, err);

    if (status == MOE_OK) {
        status = field_bool(json, path, "strip_right", false, &right, err);
    }
    return status == MOE_OK
               ? steps_add(steps, (text_step){.kind = STEP_STRIP_SPACE, .start = left, .stop = right}, path, err)
               : status;
}

/* Normalizers that are their name. */
static const struct {
    const char *type;
    step_kind kind;
    normal_form form;
} plain_steps[] = {
    {"NFC", STEP_NORMAL_FORM, FORM_NFC},     {"NFD", STEP_NORMAL_FORM, FORM_NFD},
    {"NFKC", STEP_NORMAL_FORM, FORM_NFKC},   {"NFKD", STEP_NORMAL_FORM, FORM_NFKD},
    {"Lowercase", STEP_LOWERCASE, FORM_NFC}, {"StripAccents", STEP_STRIP_ACCENTS, FORM_NFC},
    {"ByteLevel", STEP_BYTES, FORM_NFC},
};

static moe_status normalizer_step(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    text_view type;
    const moe_status status = field_type(json, path, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    if (text_is(type, "Sequence")) {
        return load_sequence(t, json, path, "normalizers", normalizer_step, err);
    }
    if (text_is(type, "Replace")) {
        return steps_add_replace(&t->normalizer, json, path, err);
    }
    if (text_is(type, "Prepend")) {
        return add_prepend(&t->normalizer, json, path, err);
    }
    if (text_is(type, "Strip")) {
        return add_strip(&t->normalizer, json, path, err);
    }
    for (size_t i = 0; i < MOE_COUNT(plain_steps); i++) {
        if (text_is(type, plain_steps[i].type)) {
            return steps_add(&t->normalizer, (text_step){.kind = plain_steps[i].kind, .form = plain_steps[i].form},
                             path, err);
        }
    }
    return refuse_type(path, type, err);
}

moe_status load_normalizer(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *normalizer = field(json, "normalizer");

    return normalizer ? normalizer_step(t, normalizer, "tokenizer.json: normalizer", err) : MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ pre_tokenizer */
/* Takes the stage's pattern over. */
static moe_status stage_add(pre_tokenizer *pre, pre_stage stage, const char *path, moe_error *err)
{
    pre_stage *grown = NULL;

    if (pre->n < TOKENIZER_MAX_STEPS) {
        grown = realloc(pre->stages, (pre->n + 1) * sizeof *grown);
    }
    if (!grown) {
        text_pattern_fini(&stage.pattern);
        return pre->n == TOKENIZER_MAX_STEPS
                   ? moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: more than %d steps", path, TOKENIZER_MAX_STEPS)
                   : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    pre->stages = grown;
    grown[pre->n++] = stage;
    return MOE_OK;
}

static moe_status add_expression(tokenizer *t, const char *expression, split_behavior behavior, const char *path,
                                 moe_error *err)
{
    pre_stage stage = {.kind = PRE_SPLIT, .behavior = behavior};
    const moe_status status = regex_compile(expression, strlen(expression), &stage.pattern.regex, err);

    return status == MOE_OK ? stage_add(&t->pre, stage, path, err) : status;
}

/* Old files write "MergedWithNext", newer ones "merged_with_next". */
static moe_status field_behavior(const json_t *json, const char *path, const char *fallback, split_behavior *out,
                                 moe_error *err)
{
    static const char *const names[][2] = {{"Removed", "removed"},
                                           {"Isolated", "isolated"},
                                           {"MergedWithPrevious", "merged_with_previous"},
                                           {"MergedWithNext", "merged_with_next"},
                                           {"Contiguous", "contiguous"}};
    text_view behavior;
    const moe_status status = field_text(json, path, "behavior", fallback, &behavior, err);

    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        if (text_is(behavior, names[i][0]) || text_is(behavior, names[i][1])) {
            *out = (split_behavior)i;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.behavior: \"%.64s\" is not supported", path, behavior.data);
}

static moe_status add_split(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    pre_stage stage = {.kind = PRE_SPLIT};
    moe_status status = field_behavior(json, path, NULL, &stage.behavior, err);

    if (status == MOE_OK) {
        status = field_bool(json, path, "invert", false, &stage.invert, err);
    }
    if (status == MOE_OK) {
        status = field_pattern(json, path, &stage.pattern, err);
    }
    return status == MOE_OK ? stage_add(&t->pre, stage, path, err) : status;
}

static moe_status add_delimiter(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    pre_stage stage = {.kind = PRE_SPLIT, .behavior = SPLIT_REMOVED};
    text_view delimiter;
    const moe_status status = field_char(json, path, "delimiter", NULL, &delimiter, err);

    if (status != MOE_OK) {
        return status;
    }
    return pattern_set(&stage.pattern, delimiter.data, delimiter.size)
               ? stage_add(&t->pre, stage, path, err)
               : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
}

/* The expression of GPT-2, which ByteLevel has built in. */
static const char gpt2_pieces[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static moe_status add_byte_level(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    bool prefix, use_regex;
    moe_status status = field_bool(json, path, "add_prefix_space", true, &prefix, err);

    if (status == MOE_OK) {
        status = field_bool(json, path, "use_regex", true, &use_regex, err);
    }
    if (status == MOE_OK && prefix) {
        status = stage_add(&t->pre, (pre_stage){.kind = PRE_PREFIX_SPACE}, path, err);
    }
    if (status == MOE_OK && use_regex) {
        status = add_expression(t, gpt2_pieces, SPLIT_ISOLATED, path, err);
    }
    return status == MOE_OK ? stage_add(&t->pre, (pre_stage){.kind = PRE_BYTES}, path, err) : status;
}

static moe_status add_metaspace(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    pre_stage stage = {.kind = PRE_METASPACE}, cut = {.kind = PRE_SPLIT, .behavior = SPLIT_MERGED_WITH_NEXT};
    text_view mark;
    bool split;
    moe_status status = field_metaspace(json, path, &mark, &stage.scheme, err);

    if (status == MOE_OK) {
        status = field_bool(json, path, "split", true, &split, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    stage.n_mark = mark.size;
    memcpy(stage.mark, mark.data, mark.size);
    status = stage_add(&t->pre, stage, path, err);
    if (status != MOE_OK || !split) {
        return status;
    }
    return pattern_set(&cut.pattern, mark.data, mark.size)
               ? stage_add(&t->pre, cut, path, err)
               : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
}

static moe_status add_digits(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    bool one_by_one;
    const moe_status status = field_bool(json, path, "individual_digits", false, &one_by_one, err);

    return status == MOE_OK ? add_expression(t, "\\p{N}", one_by_one ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, path, err)
                            : status;
}

static moe_status add_punctuation(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    split_behavior behavior;
    const moe_status status = field_behavior(json, path, "Isolated", &behavior, err);

    return status == MOE_OK ? add_expression(t, "[\\p{P}!-/:-@\\[-`{-~]", behavior, path, err) : status;
}

static moe_status pre_tokenizer_step(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    static const struct {
        const char *type;
        load_step load;
    } kinds[] = {
        {"ByteLevel", add_byte_level}, {"Metaspace", add_metaspace},     {"Split", add_split},
        {"Digits", add_digits},        {"Punctuation", add_punctuation}, {"CharDelimiterSplit", add_delimiter}};
    text_view type;
    const moe_status status = field_type(json, path, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    if (text_is(type, "Sequence")) {
        return load_sequence(t, json, path, "pretokenizers", pre_tokenizer_step, err);
    }
    if (text_is(type, "WhitespaceSplit")) {
        return add_expression(t, "\\s", SPLIT_REMOVED, path, err);
    }
    if (text_is(type, "Whitespace")) { /* words, and runs of what is neither word nor white space */
        const moe_status removed = add_expression(t, "\\p{WordJoin}+|[^\\p{WordJoin}\\s]+", SPLIT_REMOVED, path, err);

        if (removed == MOE_OK) {
            t->pre.stages[t->pre.n - 1].invert = true;
        }
        return removed;
    }
    for (size_t i = 0; i < MOE_COUNT(kinds); i++) {
        if (text_is(type, kinds[i].type)) {
            return kinds[i].load(t, json, path, err);
        }
    }
    return refuse_type(path, type, err);
}

/* The model maps bytes itself, piece by piece, where that is the last stage. */
moe_status load_pre_tokenizer(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *pre = field(json, "pre_tokenizer");
    const moe_status status = pre ? pre_tokenizer_step(t, pre, "tokenizer.json: pre_tokenizer", err) : MOE_OK;

    if (status == MOE_OK && t->pre.n > 0 && t->pre.stages[t->pre.n - 1].kind == PRE_BYTES) {
        t->pre.n--;
        t->bpe.byte_level = true;
    }
    return status;
}
