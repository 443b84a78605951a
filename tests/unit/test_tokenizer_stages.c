/* Pipelines of several stages, as published files combine them. The vocabulary has whole pieces; what is none of them
 * is one unknown token (0), so that ids tell where pieces end. */
#include "tests/unit/test_tokenizer_support.h"

#define VOCAB                                                                                                          \
    "'model':{'ignore_merges':true,'fuse_unk':true,'unk_token':'?','vocab':{'?':0,'ab':1,' ab':2,'1':3,'12':4,"        \
    "'a':5,'b':6,'- b':7,'a-':8,'-b':9,'-':10,'\u0120ab':11,'aba':12,'\u2581ab':13,'\u2581':14,' "                     \
    "':15,'--':16},'merges':[]}"
#define SPLIT(behavior, more)                                                                                          \
    "{'pre_tokenizer':{'type':'Split','pattern':{'String':'-'},'behavior':'" behavior "'" more "}," VOCAB "}"
#define SEQUENCE(stages) "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[" stages "]}," VOCAB "}"
#define NORMAL(stages)   "{'normalizer':{'type':'Sequence','normalizers':[" stages "]}," VOCAB "}"

static void matches_alone_are_pieces_or_nothing(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SPLIT("Isolated", ""), "a-b"), "5 10 6");
    assert_string_equal(encoded_by(SPLIT("Removed", ""), "a-b"), "5 6");
    assert_string_equal(encoded_by(SPLIT("Removed", ",'invert':true"), "a-b"), "10");
}

static void matches_join_the_piece_before_or_behind(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SPLIT("MergedWithPrevious", ""), "a-b"), "8 6");
    assert_string_equal(encoded_by(SPLIT("MergedWithNext", ""), "a-b"), "5 9");
    assert_string_equal(encoded_by(SPLIT("MergedWithNext", ""), "--b-"), "10 9 10");
}

static void neighbouring_matches_are_one_piece_if_contiguous(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SPLIT("Contiguous", ""), "a--b"), "5 16 6");
    assert_string_equal(encoded_by(SPLIT("Isolated", ""), "a--b"), "5 10 10 6");
}

static void behaviors_have_an_old_and_a_new_spelling(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SPLIT("merged_with_next", ""), "a-b"), "5 9");
}

static void each_stage_cuts_the_pieces_of_the_one_before(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Split','pattern':{'Regex':'\\\\s?[a-z]+'},'behavior':'Isolated'},"
                                            "{'type':'Digits','individual_digits':true}"),
                                   "ab ab11"),
                        "1 2 3 3");
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Digits','individual_digits':false}"), "ab12ab"), "1 4 1");
}

static void bytes_are_mapped_by_the_last_stage(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Split','pattern':{'Regex':' ?[a-z]+'},'behavior':'Isolated'},"
                                            "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}"),
                                   "ab ab"),
                        "1 11");
}

static void a_stage_behind_the_bytes_sees_their_alphabet(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SEQUENCE("{'type':'ByteLevel','add_prefix_space':false,'use_regex':false},"
                                            "{'type':'Split','pattern':{'String':'\u0120ab'},'behavior':'Isolated'}"),
                                   "ab ab"),
                        "1 11");
}

static void a_sequence_of_one_is_that_one(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Metaspace','prepend_scheme':'first'}"), "ab ab"), "13 13");
    assert_string_equal(encoded_by(SEQUENCE("{'type':'WhitespaceSplit'}"), " ab  a"), "1 5");
}

static void words_and_punctuation_are_told_apart(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Whitespace'}"), "ab-b a"), "1 10 6 5");
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Punctuation'}"), "a--b"), "5 10 10 6");
    assert_string_equal(encoded_by(SEQUENCE("{'type':'Punctuation','behavior':'MergedWithNext'}"), "a-b"), "5 9");
    assert_string_equal(encoded_by(SEQUENCE("{'type':'CharDelimiterSplit','delimiter':'-'}"), "a-b"), "5 6");
}

static void normalizers_run_one_after_the_other(void **state)
{
    (void)state;
    assert_string_equal(encoded_by(NORMAL("{'type':'NFKC'},{'type':'Lowercase'}"), "\xef\xbc\xa1\xef\xbc\xa2"), "1");
    assert_string_equal(encoded_by(NORMAL("{'type':'NFD'},{'type':'StripAccents'}"), "\xc3\xa1"), "5");
    assert_string_equal(
        encoded_by(NORMAL("{'type':'Strip','strip_left':true,'strip_right':true}"), " \t ab\xe3\x80\x80"), "1");
    assert_string_equal(encoded_by(NORMAL("{'type':'Replace','pattern':{'Regex':'[xy]{2,}'},'content':'b'}"), "axyxy"),
                        "1");
}

static void a_template_may_stand_in_a_sequence(void **state)
{
    tokenizer *t = must_open("{'post_processor':{'type':'Sequence','processors':[{'type':'ByteLevel'},{'type':"
                             "'TemplateProcessing','single':[{'SpecialToken':{'id':'s'}},{'Sequence':{'id':'A'}}],"
                             "'special_tokens':{'s':{'ids':[9]}}}]}," VOCAB "}",
                             NULL, NULL);

    (void)state;
    assert_string_equal(encoded_bytes(t, "ab", 2, true, NULL, 0), "9 1");
    tokenizer_close(t);
}

static void cls_and_sep_stand_around_the_text(void **state)
{
    tokenizer *t = must_open(
        "{'post_processor':{'type':'RobertaProcessing','cls':['<s>',8],'sep':['</s>',9]}," VOCAB "}", NULL, NULL);

    (void)state;
    assert_string_equal(encoded_bytes(t, "ab", 2, true, NULL, 0), "8 1 9");
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------------ bounds */
static void a_text_that_cannot_fit_after_normalising_is_not_merged(void **state)
{
    enum { N = 512 };
    tokenizer *t = must_open("{'normalizer':{'type':'NFC'},'pre_tokenizer':{'type':'ByteLevel'},"
                             "'model':{'unk_token':'a','vocab':{'a':0,'aaaa':1},'merges':[]}}",
                             NULL, NULL);
    char text[N];
    int32_t ids[40];
    size_t n = 0;
    moe_error err = {""};

    (void)state;
    memset(text, 'a', N); /* 512 bytes may be 40 tokens before normalising (16 bytes each), not behind it (4 each) */
    assert_int_equal(tokenizer_encode(t, text, N, false, NULL, 0, ids, 40, &n, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "text: 512 bytes make more than 40 tokens");
    tokenizer_close(t);
}

static void a_long_word_is_not_merged_where_its_bytes_tell_that_it_is_too_much(void **state)
{
    enum { N = 400 };
    tokenizer *t = must_open("{'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false,'use_regex':false},"
                             "'decoder':{'type':'ByteLevel'},"
                             "'model':{'unk_token':'a','vocab':{'a':0,'b':1,'aa':2,'bb':3,'bbbb':4,'bbbbbbbb':5},"
                             "'merges':['b b','bb bb','bbbb bbbb']}}",
                             NULL, NULL);
    char text[N];
    int32_t ids[N];
    size_t n = 0;
    moe_error err = {""};

    (void)state;
    memset(text, 'b', N); /* 8 bytes a token: exactly 50 */
    assert_int_equal(tokenizer_encode(t, text, N, false, NULL, 0, ids, 50, &n, &err), MOE_OK);
    assert_int_equal(n, 50);
    assert_int_equal(tokenizer_encode(t, text, N, false, NULL, 0, ids, 49, &n, &err), MOE_ERR_INVALID_ARG);
    memset(text, 'a', N); /* no token that begins with "aa" is longer than a character may be: at least 99 */
    assert_int_equal(tokenizer_encode(t, text, N, false, NULL, 0, ids, 98, &n, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "text: 400 bytes make more than 98 tokens");
    tokenizer_close(t);
}

static void encoding_stops_at_the_first_token_too_many(void **state)
{
    tokenizer *t = must_open(SPLIT("Removed", ""), NULL, NULL);
    int32_t ids[2];
    size_t n = 0;
    moe_error err = {""};

    (void)state;
    assert_int_equal(tokenizer_encode(t, "a-b-a-b-a-b-a-b", 15, false, NULL, 0, ids, 2, &n, &err), MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, "text: more than 2 tokens; of 15 bytes 3 were encoded");
    tokenizer_close(t);
}

static void text_that_an_expression_reads_again_and_again_is_refused(void **state)
{
    enum { N = 4096 };
    tokenizer *t = must_open(
        "{'pre_tokenizer':{'type':'Split','pattern':{'Regex':'a*b|a'},'behavior':'Isolated'}," VOCAB "}", NULL, NULL);
    char text[N];
    int32_t ids[MAX_IDS];
    size_t n = 0;
    moe_error err = {""};

    (void)state;
    memset(text, 'a', N);
    assert_int_equal(tokenizer_encode(t, text, N, false, NULL, 0, ids, MAX_IDS, &n, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "would read it again and again");
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_alone_are_pieces_or_nothing),
        cmocka_unit_test(matches_join_the_piece_before_or_behind),
        cmocka_unit_test(neighbouring_matches_are_one_piece_if_contiguous),
        cmocka_unit_test(behaviors_have_an_old_and_a_new_spelling),
        cmocka_unit_test(each_stage_cuts_the_pieces_of_the_one_before),
        cmocka_unit_test(bytes_are_mapped_by_the_last_stage),
        cmocka_unit_test(a_stage_behind_the_bytes_sees_their_alphabet),
        cmocka_unit_test(a_sequence_of_one_is_that_one),
        cmocka_unit_test(words_and_punctuation_are_told_apart),
        cmocka_unit_test(normalizers_run_one_after_the_other),
        cmocka_unit_test(a_template_may_stand_in_a_sequence),
        cmocka_unit_test(cls_and_sep_stand_around_the_text),
        cmocka_unit_test(a_text_that_cannot_fit_after_normalising_is_not_merged),
        cmocka_unit_test(a_long_word_is_not_merged_where_its_bytes_tell_that_it_is_too_much),
        cmocka_unit_test(encoding_stops_at_the_first_token_too_many),
        cmocka_unit_test(text_that_an_expression_reads_again_and_again_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
