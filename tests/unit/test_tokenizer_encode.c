#include "tests/unit/test_tokenizer_support.h"

#include <pthread.h>

/* Characters are symbols; no pre-tokenizer. */
#define LETTERS "'vocab':{'a':0,'b':1,'c':2,'ab':3,'bc':4,'abc':5,'aa':6,'<unk>':7,'ac':8}"
#define MERGES  "'merges':['a b','b c',['ab','c'],'a a']"
#define PLAIN   "{'model':{'type':'BPE'," LETTERS "," MERGES "}}"

static void the_pair_of_lowest_rank_merges_first(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(PLAIN, "abc"), "5"); /* ab before bc, then abc */
}

static void equal_ranks_merge_leftmost_first(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(PLAIN, "aaa"), "6 0");
}

static void empty_text_has_no_tokens(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(PLAIN, ""), "");
}

static void a_character_without_symbol_and_without_unk_is_dropped(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(PLAIN, "axb"), "3");
}

static void a_character_without_symbol_becomes_unk(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'model':{'unk_token':'<unk>'," LETTERS "," MERGES "}}", "axyb"), "0 7 7 1");
}

static void a_run_of_unknown_characters_fuses_into_one_unk(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'model':{'unk_token':'<unk>','fuse_unk':true," LETTERS "," MERGES "}}", "axybz"),
                        "0 7 1 7");
}

static void an_unknown_character_falls_back_to_its_bytes(void **state)
{
    (void)state;
    assert_string_equal(
        encoded_by("{'model':{'byte_fallback':true,'unk_token':'u','vocab':{'a':0,'u':1,'<0xC3>':2,'<0xA9>':3},"
                   "'merges':[]}}",
                   "a\xc3\xa9x"),
        "0 2 3 1");
}

static void ignore_merges_takes_a_whole_piece_from_the_vocabulary(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'model':{'ignore_merges':true," LETTERS "," MERGES "}}", "ac"), "8");
}

static void a_symbol_that_no_merge_makes_is_not_used(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(PLAIN, "ac"), "0 2");
}

/* The definition, quadratic: repeatedly the leftmost pair of lowest rank. */
static size_t slow_bpe(int *s, size_t n, const int merges[][3], size_t n_merges)
{
    for (size_t rank = 0; rank < n_merges; rank++) {
        for (size_t i = 0; i + 1 < n; i++) {
            if (s[i] == merges[rank][0] && s[i + 1] == merges[rank][1]) {
                s[i] = merges[rank][2];
                memmove(s + i + 1, s + i + 2, (n - i - 2) * sizeof *s);
                n--;
                rank = (size_t)-1; /* from the lowest rank again */
                break;
            }
        }
    }
    return n;
}

/* Distinct texts over {a, b} of up to 4 letters; each longer one is made by one merge of random rank order. */
static void the_heap_equals_the_definition(void **state)
{
    moe_random r;

    (void)state;
    moe_random_seed(&r, 7);
    for (int round = 0; round < 200; round++) {
        char words[31][8], json[4096], text[200];
        int merges[64][3], s[200];
        int32_t ids[200];
        size_t n_words = 0, n_merges = 0, used, n = 1 + moe_random_below(&r, 199), n_ids, n_slow;
        moe_error err = {""};
        tokenizer *t;

        for (unsigned length = 1; length <= 4; length++) {
            for (unsigned bits = 0; bits < (1u << length); bits++) {
                for (unsigned i = 0; i < length; i++) {
                    words[n_words][i] = bits & (1u << i) ? 'b' : 'a';
                }
                words[n_words++][length] = '\0';
            }
        }
        used = (size_t)snprintf(json, sizeof json, "{'model':{'vocab':{");
        for (size_t i = 0; i < n_words; i++) {
            used += (size_t)snprintf(json + used, sizeof json - used, "%s'%s':%zu", i ? "," : "", words[i], i);
        }
        used += (size_t)snprintf(json + used, sizeof json - used, "},'merges':[");
        for (size_t tries = 0; tries < 30 && n_merges < 20; tries++) {
            const size_t a = moe_random_below(&r, n_words), b = moe_random_below(&r, n_words);
            char joined[16];
            bool twice = false;

            snprintf(joined, sizeof joined, "%s%s", words[a], words[b]);
            for (size_t m = 0; m < n_merges; m++) {
                twice |= merges[m][0] == (int)a && merges[m][1] == (int)b;
            }
            for (size_t i = 0; i < n_words && !twice; i++) {
                if (strcmp(words[i], joined) == 0) {
                    used += (size_t)snprintf(json + used, sizeof json - used, "%s'%s %s'", n_merges ? "," : "",
                                             words[a], words[b]);
                    merges[n_merges][0] = (int)a;
                    merges[n_merges][1] = (int)b;
                    merges[n_merges++][2] = (int)i;
                }
            }
        }
        snprintf(json + used, sizeof json - used, "]}}");
        for (size_t i = 0; i < n; i++) {
            s[i] = (int)moe_random_below(&r, 2);
            text[i] = s[i] ? 'b' : 'a';
        }
        t = must_open(json, NULL, NULL);
        assert_ok(tokenizer_encode(t, text, n, false, NULL, 0, ids, MOE_COUNT(ids), &n_ids, &err), err);
        n_slow = slow_bpe(s, n, (const int(*)[3])merges, n_merges);
        assert_int_equal(n_ids, n_slow);
        for (size_t i = 0; i < n_ids; i++) {
            assert_int_equal(ids[i], s[i]);
        }
        tokenizer_close(t);
    }
}

/* ------------------------------------------------------------------------------------------------ ByteLevel */
#define BYTE_LEVEL(settings)                                                                                           \
    "{'pre_tokenizer':{'type':'ByteLevel'," settings "},'model':{'type':'BPE','vocab':{'x':0,'s':1,'t':2,'1':3,'!':4," \
    "'\\u0120':5,'\\u0120x':6,'\\u010a':7,'\\u010a\\u010a':8,'st':9,'x1':10,'\\u0120\\u0120':11,'\\u00c2':12,'"        \
    "\\u0142':13,"                                                                                                     \
    "'\\u00c2\\u0142':14,'xx':15,'q':16,'qs':17,'\\u0109':18,'x!':19},'merges':['\\u0120 x','\\u010a \\u010a','s "     \
    "t','x 1',"                                                                                                        \
    "'\\u0120 \\u0120','\\u00c2 \\u0142','x x','x !']}}"
#define GPT2 BYTE_LEVEL("'add_prefix_space':false")

static void a_space_joins_the_word_behind_it(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(GPT2, "x x"), "0 6");
}

static void letters_numbers_and_others_are_pieces_of_their_own(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(GPT2, "x1x!"), "0 3 0 4");
}

static void white_space_at_the_end_is_one_piece(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(GPT2, "x\n\n"), "0 8");
}

static void white_space_before_a_word_leaves_its_last_character(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(GPT2, "\n\nx   x"), "7 7 0 11 6");
}

static void a_no_break_space_is_white_space(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(GPT2, "x\xc2\xa0x"), "0 14 0");
}

static void without_regex_the_text_is_one_piece(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(BYTE_LEVEL("'add_prefix_space':false,'use_regex':false"), "x1x!"), "10 19");
}

static void a_prefix_space_is_added_unless_there_is_one(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(BYTE_LEVEL("'add_prefix_space':true"), "x"), "6");
    assert_string_equal(encoded_by(BYTE_LEVEL("'add_prefix_space':true"), " x"), "6");
}

/* ------------------------------------------------------------------------------------------- Metaspace, normalizers */
#define LLAMA_MODEL                                                                                                    \
    "'model':{'vocab':{'a':0,'b':1,'\\u2581':2,'\\u2581a':3,'\\u2581b':4,'a\\u2581':5,'ab':6,'\\u00e9':7,'e':8,'"      \
    "\\u0301':9,"                                                                                                      \
    "'<s>':10,'</s>':11},'merges':['a \\u2581','\\u2581 a','\\u2581 b','a b']}"
#define METASPACE(settings)                                                                                            \
    "{'pre_tokenizer':{'type':'Metaspace','replacement':'\\u2581'," settings "}," LLAMA_MODEL "}"

static void metaspace_always_prepends_and_splits_before_each_mark(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(METASPACE("'prepend_scheme':'always','split':true"), "a b"), "3 4");
}

static void metaspace_without_split_merges_over_marks(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(METASPACE("'prepend_scheme':'never','split':false"), "a b"), "5 1");
}

static void metaspace_does_not_prepend_to_a_space(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(METASPACE("'prepend_scheme':'always'"), " a"), "3");
}

static void metaspace_first_prepends_only_at_the_head_of_the_text(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'added_tokens':[{'id':10,'content':'<s>','special':true}],'pre_tokenizer':{'type':"
                                   "'Metaspace','prepend_scheme':'first'}," LLAMA_MODEL "}",
                                   "a<s>a"),
                        "3 10 0");
}

static void metaspace_understands_the_old_add_prefix_space(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(METASPACE("'add_prefix_space':false"), "a"), "0");
}

static void prepend_and_replace_make_the_llama_form(void **state)
{
    (void)state;
    assert_string_equal(
        encoded_by("{'normalizer':{'type':'Sequence','normalizers':[{'type':'Prepend','prepend':'\\u2581'},"
                   "{'type':'Replace','pattern':{'String':' '},'content':'\\u2581'}]}," LLAMA_MODEL "}",
                   "ab b"),
        "3 1 4");
}

static void prepend_leaves_empty_text_empty(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'normalizer':{'type':'Prepend','prepend':'a'}," LLAMA_MODEL "}", ""), "");
}

static void nfc_composes(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'normalizer':{'type':'NFC'}," LLAMA_MODEL "}", "e\xcc\x81"), "7");
}

static void without_normalizer_nothing_composes(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'normalizer':null," LLAMA_MODEL "}", "e\xcc\x81"), "8 9");
}

/* ------------------------------------------------------------------------------------------------ added tokens */
#define ADDED(list)                                                                                                    \
    "{'normalizer':{'type':'NFC'},'added_tokens':[" list "],"                                                          \
    "'model':{'vocab':{'a':0,'b':1,' ':2,'<':3,'\\u00e9':4,'_':5},'merges':[]}}"

static void of_added_tokens_the_longest_at_the_leftmost_place_matches(void **state)
{
    (void)state;
    assert_string_equal(
        encoded_by(ADDED("{'id':20,'content':'<a'},{'id':21,'content':'<ab'},{'id':22,'content':'b<ab<'}"), "<ab<a<"),
        "21 20 3");
}

static void a_single_word_token_matches_only_between_non_words(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(ADDED("{'id':20,'content':'ab','single_word':true}"), "ab aab ab_ ab"),
                        "20 2 0 0 1 2 0 1 5 2 20");
}

static void lstrip_and_rstrip_take_the_white_space_around(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(ADDED("{'id':20,'content':'#','lstrip':true,'rstrip':true}"), "a  #  b#"),
                        "0 20 1 20");
}

static void lstrip_does_not_reach_into_the_match_before(void **state)
{
    (void)state;
    assert_string_equal(
        encoded_by(ADDED("{'id':20,'content':'b ','normalized':false},{'id':21,'content':'#','lstrip':true,"
                         "'normalized':false}"),
                   "b  #"),
        "20 21");
}

static void a_normalized_token_matches_the_normalised_text(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(ADDED("{'id':20,'content':'e\\u0301a','normalized':true}"), "\xc3\xa9"
                                                                                               "a"),
                        "20");
}

static void a_raw_token_does_not_match_the_normalised_text(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(ADDED("{'id':20,'content':'e\\u0301','normalized':false}"), "\xc3\xa9"), "4");
}

static void a_masked_range_hides_raw_tokens_that_touch_it(void **state)
{
    tokenizer *t = must_open(ADDED("{'id':20,'content':'<a','normalized':false}"), NULL, NULL);
    const tokenizer_span span = {3, 6};

    (void)state;
    assert_string_equal(encoded_bytes(t, "<a<a<a<a", 8, false, &span, 1), "20 3 0 3 0 20");
    tokenizer_close(t);
}

static void a_masked_range_hides_special_normalized_tokens_too(void **state)
{
    tokenizer *t = must_open(
        ADDED("{'id':20,'content':'<a','normalized':true,'special':true},{'id':21,'content':'bb','normalized':true}"),
        NULL, NULL);
    const tokenizer_span span = {5, 12}; /* the letter before it is composed: the place moves by a byte */

    (void)state;
    assert_string_equal(encoded_bytes(t, "<ae\xcc\x81 <abb<a<a", 15, false, &span, 1), "20 4 2 3 0 21 3 0 20");
    tokenizer_close(t);
}

/* -------------------------------------------------------------------------------------- special ids around the text */
#define TEMPLATE                                                                                                       \
    "{'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<s>','type_id':0}},{'Sequence':{" \
    "'id':'A',"                                                                                                        \
    "'type_id':0}},{'SpecialToken':{'id':'</"                                                                          \
    "s>','type_id':0}}],'special_tokens':{'<s>':{'id':'<s>','ids':[10],'tokens':['<s>']}"                              \
    ",'</s>':{'id':'</s>','ids':[11],'tokens':['</s>']}}}," LLAMA_MODEL "}"

static const char *encoded_with_special(const char *json, const char *config, const tokenizer_specials *specials)
{
    tokenizer *t = must_open(json, config, specials);
    const char *ids = encoded_bytes(t, "a", 1, true, NULL, 0);

    tokenizer_close(t);
    return ids;
}

static void template_processing_puts_ids_around_the_text(void **state)
{
    (void)state;
    assert_string_equal(encoded_with_special(TEMPLATE, NULL, NULL), "10 0 11");
}

static void template_processing_adds_nothing_unasked(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(TEMPLATE, "a"), "0");
}

static void add_bos_token_true_adds_the_id_of_the_model(void **state)
{
    const tokenizer_specials specials = {.bos_id = 5, .eos_id = -1};

    (void)state;
    assert_string_equal(encoded_with_special("{" LLAMA_MODEL "}", "{'add_bos_token':true}", &specials), "5 0");
}

static void add_eos_token_true_adds_the_token_of_the_config(void **state)
{
    (void)state;
    assert_string_equal(
        encoded_with_special("{" LLAMA_MODEL "}", "{'add_eos_token':true,'eos_token':{'content':'</s>'}}", NULL),
        "0 11");
}

static void add_bos_token_false_takes_it_from_the_template(void **state)
{
    (void)state;
    assert_string_equal(encoded_with_special(TEMPLATE, "{'add_bos_token':false,'bos_token':'<s>'}", NULL), "0 11");
}

/* ------------------------------------------------------------------------------------------------ bounds */
static void more_ids_than_room_is_an_error_that_names_the_limit(void **state)
{
    tokenizer *t = must_open(PLAIN, NULL, NULL);
    moe_error err = {""};
    int32_t ids[3];
    size_t n_ids = 0;

    (void)state;
    assert_int_equal(tokenizer_encode(t, "cccc", 4, false, NULL, 0, ids, 3, &n_ids, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "more than 3 tokens");
    tokenizer_close(t);
}

static void invalid_utf8_is_an_error_that_names_the_byte(void **state)
{
    tokenizer *t = must_open(PLAIN, NULL, NULL);
    moe_error err = {""};
    int32_t ids[8];
    size_t n_ids = 0;

    (void)state;
    assert_int_equal(tokenizer_encode(t, "ab\xed\xa0\x80", 5, false, NULL, 0, ids, 8, &n_ids, &err),
                     MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "byte 2");
    tokenizer_close(t);
}

static void spans_out_of_order_are_an_error(void **state)
{
    tokenizer *t = must_open(PLAIN, NULL, NULL);
    const tokenizer_span spans[] = {{2, 3}, {1, 2}};
    moe_error err = {""};
    int32_t ids[8];
    size_t n_ids = 0;

    (void)state;
    assert_int_equal(tokenizer_encode(t, "abc", 3, false, spans, 2, ids, 8, &n_ids, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "spans[1]");
    tokenizer_close(t);
}

static void text_that_cannot_fit_is_refused_unread(void **state)
{
    tokenizer *t = must_open(
        "{'pre_tokenizer':{'type':'ByteLevel'},'model':{'unk_token':'a','vocab':{'a':0},'merges':[]}}", NULL, NULL);
    moe_error err = {""};
    char text[64];
    int32_t ids[2];
    size_t n_ids = 0;

    (void)state;
    memset(text, 0xff, sizeof text); /* not even UTF-8 */
    assert_int_equal(tokenizer_encode(t, text, sizeof text, false, NULL, 0, ids, 2, &n_ids, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "64 bytes");
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------------ threads */
typedef struct reader {
    tokenizer *t;
    size_t n_wrong;
} reader;

/* More pieces than one set of the cache holds, so that threads take each other's entries. */
static void *encode_pieces(void *argument)
{
    reader *r = argument;

    for (unsigned i = 0; i < 20000; i++) {
        char text[12];
        int32_t ids[12];
        size_t n = 0, length = 2 + i % 10;

        for (size_t k = 0; k < length; k++) {
            text[k] = (i * 2654435761u >> k) & 64 ? 'x' : '!';
        }
        r->n_wrong += tokenizer_encode(r->t, text, length, false, NULL, 0, ids, 12, &n, NULL) != MOE_OK;
        for (size_t k = 0, at = 0; k < n; at += ids[k] == 15 || ids[k] == 19 ? 2 : 1, k++) {
            r->n_wrong += text[at] != (ids[k] == 4 ? '!' : 'x'); /* x xx x! are 0 15 19 */
        }
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    tokenizer *t = must_open(BYTE_LEVEL("'add_prefix_space':false,'use_regex':false"), NULL, NULL);
    reader readers[3] = {{t, 0}, {t, 0}, {t, 0}};
    pthread_t threads[3];

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_pieces, &readers[i]), 0);
    }
    for (size_t i = 0; i < MOE_COUNT(threads); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (size_t i = 0; i < MOE_COUNT(threads); i++) {
        assert_int_equal(readers[i].n_wrong, 0);
    }
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pair_of_lowest_rank_merges_first),
        cmocka_unit_test(equal_ranks_merge_leftmost_first),
        cmocka_unit_test(empty_text_has_no_tokens),
        cmocka_unit_test(a_character_without_symbol_and_without_unk_is_dropped),
        cmocka_unit_test(a_character_without_symbol_becomes_unk),
        cmocka_unit_test(a_run_of_unknown_characters_fuses_into_one_unk),
        cmocka_unit_test(an_unknown_character_falls_back_to_its_bytes),
        cmocka_unit_test(ignore_merges_takes_a_whole_piece_from_the_vocabulary),
        cmocka_unit_test(a_symbol_that_no_merge_makes_is_not_used),
        cmocka_unit_test(the_heap_equals_the_definition),
        cmocka_unit_test(a_space_joins_the_word_behind_it),
        cmocka_unit_test(letters_numbers_and_others_are_pieces_of_their_own),
        cmocka_unit_test(white_space_at_the_end_is_one_piece),
        cmocka_unit_test(white_space_before_a_word_leaves_its_last_character),
        cmocka_unit_test(a_no_break_space_is_white_space),
        cmocka_unit_test(without_regex_the_text_is_one_piece),
        cmocka_unit_test(a_prefix_space_is_added_unless_there_is_one),
        cmocka_unit_test(metaspace_always_prepends_and_splits_before_each_mark),
        cmocka_unit_test(metaspace_without_split_merges_over_marks),
        cmocka_unit_test(metaspace_does_not_prepend_to_a_space),
        cmocka_unit_test(metaspace_first_prepends_only_at_the_head_of_the_text),
        cmocka_unit_test(metaspace_understands_the_old_add_prefix_space),
        cmocka_unit_test(prepend_and_replace_make_the_llama_form),
        cmocka_unit_test(prepend_leaves_empty_text_empty),
        cmocka_unit_test(nfc_composes),
        cmocka_unit_test(without_normalizer_nothing_composes),
        cmocka_unit_test(of_added_tokens_the_longest_at_the_leftmost_place_matches),
        cmocka_unit_test(a_single_word_token_matches_only_between_non_words),
        cmocka_unit_test(lstrip_and_rstrip_take_the_white_space_around),
        cmocka_unit_test(lstrip_does_not_reach_into_the_match_before),
        cmocka_unit_test(a_normalized_token_matches_the_normalised_text),
        cmocka_unit_test(a_raw_token_does_not_match_the_normalised_text),
        cmocka_unit_test(a_masked_range_hides_raw_tokens_that_touch_it),
        cmocka_unit_test(a_masked_range_hides_special_normalized_tokens_too),
        cmocka_unit_test(template_processing_puts_ids_around_the_text),
        cmocka_unit_test(template_processing_adds_nothing_unasked),
        cmocka_unit_test(add_bos_token_true_adds_the_id_of_the_model),
        cmocka_unit_test(add_eos_token_true_adds_the_token_of_the_config),
        cmocka_unit_test(add_bos_token_false_takes_it_from_the_template),
        cmocka_unit_test(more_ids_than_room_is_an_error_that_names_the_limit),
        cmocka_unit_test(invalid_utf8_is_an_error_that_names_the_byte),
        cmocka_unit_test(spans_out_of_order_are_an_error),
        cmocka_unit_test(text_that_cannot_fit_is_refused_unread),
        cmocka_unit_test(threads_share_a_tokenizer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
