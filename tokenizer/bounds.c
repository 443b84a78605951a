/* How much text so many tokens can stand for. Longer text is refused before any work is done on it.
 *
 * A token of the model stands for as many bytes as its text has, unless text can vanish on the way: then there is no
 * bound. Before that, normalising may have made the text shorter: a canonical form by 4 at worst (a letter and two
 * marks, 4 + 2 + 2 bytes, become one letter of 2; without marks 4 bytes become 1), small letters by 3 (U+212A becomes
 * k). */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

enum { NORMAL_FORM_SHRINKS = 4, LOWERCASE_SHRINKS = 3 };

static bool may_absorb(const added_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        if (set->tokens[i].lstrip || set->tokens[i].rstrip) {
            return true;
        }
    }
    return false;
}

/* By how much the normalizer can shorten text; 0: it may take away any amount. */
static size_t normalizer_shrinks(const text_steps *normalizer)
{
    size_t factor = 1;

    for (size_t i = 0; i < normalizer->n && factor > 0; i++) {
        const text_step *step = &normalizer->steps[i];

        switch (step->kind) {
        case STEP_NORMAL_FORM:
            factor *= NORMAL_FORM_SHRINKS;
            break;
        case STEP_LOWERCASE:
            factor *= LOWERCASE_SHRINKS;
            break;
        case STEP_BYTES:
        case STEP_PREPEND:
            break;
        case STEP_REPLACE:
            factor *= step->pattern.literal && step->n_content >= step->pattern.n;
            break;
        default:
            factor = 0;
        }
        if (factor > TOKENIZER_MAX_TEXT) {
            factor = 0;
        }
    }
    return factor;
}

/* Characters without a symbol, runs of unknown ones, spaces and pieces that are taken out. */
static bool pieces_may_vanish(const tokenizer *t)
{
    const bpe *b = &t->bpe;

    if (t->pieces.remove_extra_spaces) {
        return true;
    }
    for (size_t i = 0; i < t->pre.n; i++) {
        if (t->pre.stages[i].kind == PRE_SPLIT && t->pre.stages[i].behavior == SPLIT_REMOVED) {
            return true;
        }
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        const bool in_text = byte < 0xf5 && byte != 0xc0 && byte != 0xc1;
        const int32_t known = b->byte_level ? b->low_id[byte_to_char((unsigned char)byte)] : b->byte_id[byte];

        if (in_text && known < 0 && (b->unk_id < 0 || b->fuse_unk)) {
            return true;
        }
    }
    return false;
}

/* Bytes of text before it is mapped: of a byte-level token as many as it has characters. */
static size_t bytes_of(const tokenizer *t, const vocab_token *token)
{
    size_t n = 0;

    for (size_t i = 0; i < token->n_text; i++) {
        n += !t->bpe.byte_level || ((unsigned char)token->text[i] & 0xc0) != 0x80;
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------ reach
 * The longest token is often a run of spaces or dashes, which says little of other text. So: how long is the longest
 * one that begins with these two bytes? Whatever tokens a text becomes, the first k of them end no farther than k steps
 * of that kind from place to place, each begun where it leads farthest. */
enum { N_REACH = 256 * 256, ANY_BYTE = 256, SHORTEST = 4 /* a character without a token of its own */ };

static void reach_note(uint16_t *reach, unsigned first, unsigned second, size_t n)
{
    const unsigned from = second == ANY_BYTE ? 0 : second, to = second == ANY_BYTE ? 256 : second + 1;

    for (unsigned i = from; i < to; i++) {
        reach[first * 256 + i] = (uint16_t)MOE_MAX(reach[first * 256 + i], n);
    }
}

/* The stage that turns spaces into marks, if it is the first; all stages behind it must only cut. */
static bool reach_is_known(const tokenizer *t, const pre_stage **metaspace_out)
{
    const bool metaspace = t->pre.n > 0 && t->pre.stages[0].kind == PRE_METASPACE;

    *metaspace_out = metaspace ? &t->pre.stages[0] : NULL;
    for (size_t i = metaspace; i < t->pre.n; i++) {
        if (t->pre.stages[i].kind != PRE_SPLIT) {
            return false;
        }
    }
    return !t->pieces.present && (!t->bpe.byte_level || t->decoder.byte_level);
}

/* A mark of the token may have been a space. */
static void reach_of_token(const tokenizer *t, const pre_stage *metaspace, const vocab_token *token, uint16_t *reach)
{
    const char *text = t->bpe.byte_level ? moe_text_cstr(&t->decoded) + token->decoded : token->text;
    const size_t n = t->bpe.byte_level ? token->n_decoded : token->n_text;
    const size_t n_mark = metaspace ? metaspace->n_mark : 0;
    const unsigned first = n > 0 ? (unsigned char)text[0] : 0, second = n > 1 ? (unsigned char)text[1] : ANY_BYTE;

    if (n_mark > 0 && n >= n_mark && memcmp(text, metaspace->mark, n_mark) == 0) {
        reach_note(reach, first, ANY_BYTE, n);
        reach_note(reach, ' ', ANY_BYTE, n);
    } else if (n > 0) {
        reach_note(reach, first, n_mark > 0 ? ANY_BYTE : second, n);
    }
}

static moe_status reach_load(tokenizer *t, moe_error *err)
{
    const pre_stage *metaspace;

    if (!reach_is_known(t, &metaspace)) {
        return MOE_OK;
    }
    t->reach = malloc(N_REACH * sizeof *t->reach);
    if (!t->reach) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "tokenizer: out of memory");
    }
    for (size_t i = 0; i < N_REACH; i++) {
        t->reach[i] = SHORTEST;
    }
    for (size_t i = 0; i < t->vocab_size; i++) {
        if (t->tokens[i].text) {
            reach_of_token(t, metaspace, &t->tokens[i], t->reach);
        }
    }
    return MOE_OK;
}

bool bounds_exceed(const tokenizer *t, text_view text, size_t max_ids)
{
    size_t n_ids = 1, end = t->max_bytes_per_piece, far = end; /* the first may begin with what a stage puts in front */

    if (t->max_bytes_per_piece == 0 || text.size <= max_ids) {
        return false;
    }
    if (text.size / t->max_bytes_per_piece > max_ids) {
        return true;
    }
    for (size_t i = 0; t->reach && i + 1 < text.size && n_ids <= max_ids; i++) {
        far = MOE_MAX(far, i + t->reach[(unsigned char)text.data[i] * 256 + (unsigned char)text.data[i + 1]]);
        if (i == end) {
            n_ids++;
            end = far;
        }
    }
    return t->reach && n_ids > max_ids;
}

moe_status bounds_load(tokenizer *t, moe_error *err)
{
    const size_t shrinks = normalizer_shrinks(&t->normalizer);
    size_t longest = 4, longest_added = 0;

    if (pieces_may_vanish(t)) {
        return MOE_OK;
    }
    for (size_t i = 0; i < t->vocab_size; i++) {
        longest = MOE_MAX(longest, bytes_of(t, &t->tokens[i]));
    }
    t->max_bytes_per_piece = longest;
    if (shrinks == 0 || may_absorb(&t->raw) || may_absorb(&t->normalized)) {
        return reach_load(t, err);
    }
    for (size_t i = 0; i < t->raw.n; i++) {
        longest_added = MOE_MAX(longest_added, t->raw.tokens[i].n_match);
    }
    for (size_t i = 0; i < t->normalized.n; i++) {
        longest_added = MOE_MAX(longest_added, t->normalized.tokens[i].n_match);
    }
    t->max_bytes_per_id = MOE_MAX(longest, longest_added) * shrinks;
    return reach_load(t, err);
}
