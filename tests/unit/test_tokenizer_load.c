#include "tests/unit/test_tokenizer_support.h"

#define MODEL       "'model':{'vocab':{'a':0},'merges':[]}"
#define WITH(field) "{" field "," MODEL "}"

typedef struct refusal {
    const char *json; /* or the config, where the tokenizer is sound */
    const char *reason;
} refusal;

static void assert_refused(const char *json, const char *config, moe_status expected, const char *reason)
{
    tokenizer *t = NULL;
    moe_error err = {""};
    const moe_status status = open_inline(json, config, NULL, &t, &err);

    if (status != expected || !strstr(err.text, reason)) {
        fail_msg("%s: %s \"%s\", expected \"%s\"", config ? config : json, moe_status_text(status), err.text, reason);
    }
}

static void unknown_types_are_refused_by_name(void **state)
{
    static const refusal cases[] = {
        {WITH("'normalizer':{'type':'Nmt'}"), "normalizer.type: \"Nmt\""},
        {WITH("'normalizer':{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'Precompiled'}]}"),
         "normalizer.normalizers[1].type: \"Precompiled\""},
        {WITH("'normalizer':{'type':'Replace','pattern':{'Regex':'ab(?=cd)'},'content':'b'}"),
         "normalizer.pattern.Regex: byte 2, \"(?=cd)\": looking at more than one character"},
        {WITH("'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'BertPreTokenizer'}]}"),
         "pre_tokenizer.pretokenizers[0].type: \"BertPreTokenizer\""},
        {WITH("'pre_tokenizer':{'type':'Split','pattern':{'String':'a'},'behavior':'Halved'}"),
         "pre_tokenizer.behavior: \"Halved\""},
        {WITH("'post_processor':{'type':'Sequence','processors':[{'type':'RobertaProcessing','cls':['a',0],'sep':['a',"
              "0]},"
              "{'type':'BertProcessing','cls':['a',0],'sep':['a',0]}]}"),
         "post_processor.processors[1].type: \"BertProcessing\" is a second template"},
        {WITH("'pre_tokenizer':{'type':'Metaspace','prepend_scheme':'often'}"),
         "pre_tokenizer.prepend_scheme: \"often\""},
        {WITH("'post_processor':{'type':'PairTemplate'}"), "post_processor.type: \"PairTemplate\""},
        {WITH("'decoder':{'type':'CTC'}"), "decoder.type: \"CTC\""},
        {WITH("'decoder':{'type':'Sequence','decoders':[{'type':'WordPiece'}]}"),
         "decoder.decoders[0].type: \"WordPiece\""},
        {WITH("'decoder':{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'ByteFallback'}]}"),
         "decoder.decoders[1].type"},
        {WITH("'decoder':{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Strip','content':'a','start':0,'stop':"
              "1}]}"),
         "decoder.decoders[1].stop"},
        {"{'model':{'type':'Unigram','vocab':[]}}", "model.type: \"Unigram\""},
        {"{'model':{'dropout':0.1,'vocab':{'a':0},'merges':[]}}", "model.dropout"},
        {"{'model':{'continuing_subword_prefix':'##','vocab':{'a':0},'merges':[]}}", "model.continuing_subword_prefix"},
        {"{'model':{'end_of_word_suffix':'</w>','vocab':{'a':0},'merges':[]}}", "model.end_of_word_suffix"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_refused(cases[i].json, NULL, MOE_ERR_UNSUPPORTED, cases[i].reason);
    }
}

static void malformed_fields_are_refused_by_name(void **state)
{
    static const refusal cases[] = {
        {"", "tokenizer.json: line 1"},
        {"[]", "model: missing"},
        {"{'a':1,'a':2}", "duplicate"},
        {"{'model':[]}", "model: missing, or not an object"},
        {"{'model':{'type':3}}", "model.type: not a string"},
        {"{'model':{'vocab':[]}}", "model.vocab"},
        {"{'model':{'vocab':{}}}", "model.vocab"},
        {"{'model':{'vocab':{'a':0}}}", "model.merges"},
        {"{'model':{'fuse_unk':1,'vocab':{'a':0},'merges':[]}}", "model.fuse_unk: not true or false"},
        {"{'model':{'unk_token':'u','vocab':{'a':0},'merges':[]}}", "model.unk_token"},
        {WITH("'normalizer':'NFC'"), "normalizer: not an object"},
        {WITH("'normalizer':{}"), "normalizer.type: missing"},
        {WITH("'normalizer':{'type':'Sequence'}"), "normalizer.normalizers: not an array"},
        {WITH("'normalizer':{'type':'Prepend'}"), "normalizer.prepend: missing"},
        {WITH("'normalizer':{'type':'Replace','content':''}"), "normalizer.pattern: not an object"},
        {WITH("'normalizer':{'type':'Replace','pattern':{'String':''},'content':''}"),
         "normalizer.pattern.String: empty"},
        {WITH("'pre_tokenizer':{'type':'Metaspace','replacement':'ab'}"),
         "pre_tokenizer.replacement: not one character"},
        {WITH("'pre_tokenizer':{'type':'ByteLevel','use_regex':'yes'}"), "pre_tokenizer.use_regex"},
        {WITH("'decoder':{'type':'Strip','content':'','start':1,'stop':0}"), "decoder.content: not one character"},
        {WITH("'decoder':{'type':'Strip','content':'a','start':-1,'stop':0}"), "decoder.start"},
        {WITH("'decoder':{'type':'Strip','content':'a','start':1,'stop':1e9}"), "decoder.stop"},
        {WITH("'post_processor':{'type':'TemplateProcessing','single':[]}"), "post_processor.single: 0 sequences"},
        {WITH("'post_processor':{'type':'TemplateProcessing','single':[{'Sequence':{'id':'B'}}]}"),
         "post_processor.single[0]"},
        {WITH("'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'x'}}]}"), "list of ids"},
        {WITH("'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'x'}}],'special_tokens':"
              "{'x':{'ids':[64]}}}"),
         "outside [0, vocab_size 64)"},
        {WITH("'added_tokens':{}"), "added_tokens: not an array"},
        {WITH("'added_tokens':[3]"), "added_tokens[0]: not an object"},
        {WITH("'added_tokens':[{'id':1}]"), "added_tokens[0].content: missing"},
        {WITH("'added_tokens':[{'id':1,'content':''}]"), "added_tokens[0].content: empty"},
        {WITH("'added_tokens':[{'content':'x'}]"), "added_tokens[0].id: not an integer"},
        {WITH("'added_tokens':[{'id':1,'content':'x','lstrip':0}]"), "added_tokens[0].lstrip"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_refused(cases[i].json, NULL, MOE_ERR_CORRUPT, cases[i].reason);
    }
}

static void absurd_vocabularies_and_merges_are_refused(void **state)
{
    static const refusal cases[] = {
        {"{'model':{'vocab':{'a':0,'b':0},'merges':[]}}", "id 0 belongs to another token"},
        {"{'model':{'vocab':{'a':64},'merges':[]}}", "64 is outside [0, vocab_size 64)"},
        {"{'model':{'vocab':{'a':-1},'merges':[]}}", "-1 is outside"},
        {"{'model':{'vocab':{'a':0.5},'merges':[]}}", "not an integer"},
        {"{'model':{'vocab':{'a':0,'b':1},'merges':['a b']}}", "merges[0]: \"a\" + \"b\": the result is not"},
        {"{'model':{'vocab':{'a':0,'b':1,'ab':2},'merges':['x b']}}", "merges[0]: \"x\" + \"b\": the first is not"},
        {"{'model':{'vocab':{'a':0,'b':1,'ab':2},'merges':['a x']}}", "the second is not"},
        {"{'model':{'vocab':{'a':0,'b':1,'ab':2},'merges':['a b','a b']}}",
         "merges[1]: \"a\" + \"b\" is merged before"},
        {"{'model':{'vocab':{'':0,'a':1},'merges':[['','a']]}}", "merges[0]: neither"}, /* a would become a for ever */
        {"{'model':{'vocab':{'a':0},'merges':['a']}}", "merges[0]: neither"},
        {"{'model':{'vocab':{'a':0},'merges':['a b c']}}", "merges[0]: neither"},
        {"{'model':{'vocab':{'a':0},'merges':[['a']]}}", "merges[0]: neither"},
        {"{'model':{'vocab':{'a':0},'merges':[['a',1]]}}", "merges[0]: neither"},
        {"{'model':{'vocab':{'a':0},'merges':[1]}}", "merges[0]: neither"},
        {WITH("'added_tokens':[{'id':1,'content':'x'},{'id':1,'content':'y'}]"), "id 1 twice"},
        {WITH("'added_tokens':[{'id':1,'content':'x'},{'id':2,'content':'x'}]"), "\"x\" has ids 1 and 2"},
        {WITH("'added_tokens':[{'id':1,'content':'a'}]"), "\"a\" has id 1, but 0 in the vocabulary"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_refused(cases[i].json, NULL, MOE_ERR_CORRUPT, cases[i].reason);
    }
}

static void malformed_configs_are_refused_by_name(void **state)
{
    static const refusal cases[] = {
        {"{", "tokenizer_config.json: line 1"},
        {"[]", "tokenizer_config.json: not an object"},
        {"{'eos_token':3}", "tokenizer_config.json.eos_token: not a string"},
        {"{'eos_token':{}}", "tokenizer_config.json.content: missing"},
        {"{'add_bos_token':'x'}", "add_bos_token: not true or false"},
        {"{'chat_template':{}}", "chat_template"},
        {"{'chat_template':[{}]}", "chat_template"},
        {"{'added_tokens_decoder':[]}", "added_tokens_decoder: not an object"},
        {"{'added_tokens_decoder':{'x':{'content':'x'}}}", "added_tokens_decoder[\"x\"]: not an id"},
        {"{'added_tokens_decoder':{'64':{'content':'x'}}}", "added_tokens_decoder[\"64\"]: not an id"},
        {"{'added_tokens_decoder':{'-1':{'content':'x'}}}", "added_tokens_decoder[\"-1\"]: not an id"},
        {"{'added_tokens_decoder':{'99999999999999999999':{'content':'x'}}}", "not an id"},
        {"{'added_tokens_decoder':{'1':{}}}", "added_tokens_decoder[\"1\"].content"},
        {"{'added_tokens_decoder':{'1':{'content':'other'}}}", "but tokenizer.json says \"x\""},
        {"{'added_tokens_decoder':{'2':{'content':'y'},'02':{'content':'z'}}}", "id 2 twice"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_refused(WITH("'added_tokens':[{'id':1,'content':'x'}]"), cases[i].json, MOE_ERR_CORRUPT,
                       cases[i].reason);
    }
}

static void add_bos_token_without_an_id_is_refused(void **state)
{
    (void)state;
    assert_refused("{" MODEL "}", "{'add_bos_token':true}", MOE_ERR_UNSUPPORTED,
                   "add_bos_token: true, but the model names no such id");
}

static void too_many_steps_are_refused(void **state)
{
    char json[2048];
    size_t used = (size_t)snprintf(json, sizeof json, "{'normalizer':{'type':'Sequence','normalizers':[");

    (void)state;
    for (int i = 0; i < 17; i++) {
        used += (size_t)snprintf(json + used, sizeof json - used, "%s{'type':'NFC'}", i ? "," : "");
    }
    snprintf(json + used, sizeof json - used, "]}," MODEL "}");
    assert_refused(json, NULL, MOE_ERR_UNSUPPORTED, "more than 16 steps");
}

static void too_many_ids_around_the_text_are_refused(void **state)
{
    (void)state;
    assert_refused(WITH("'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'x'}},{'"
                        "Sequence':{'id':'A'}}],"
                        "'special_tokens':{'x':{'ids':[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}}}"),
                   NULL, MOE_ERR_UNSUPPORTED, "more than 16 ids");
}

static void deep_nesting_is_refused(void **state)
{
    char json[4096] = "";

    (void)state;
    for (int i = 0; i < 50; i++) {
        strcat(json, "{'normalizer':{'type':'Sequence','normalizers':[");
    }
    assert_refused(json, NULL, MOE_ERR_CORRUPT, "nested deeper");
}

static void a_token_longer_than_the_limit_is_refused(void **state)
{
    char json[8192], text[4200];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    snprintf(json, sizeof json, "{'model':{'vocab':{'%s':0},'merges':[]}}", text);
    assert_refused(json, NULL, MOE_ERR_CORRUPT, "4199 bytes, limit 4096");
    snprintf(json, sizeof json, "{'added_tokens':[{'id':1,'content':'%s'}]," MODEL "}", text);
    assert_refused(json, NULL, MOE_ERR_CORRUPT, "added_tokens[0].content: 4199 bytes, limit 4096");
}

static void a_decoder_that_multiplies_text_is_refused(void **state)
{
    char json[16384], text[4001];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    snprintf(json, sizeof json,
             "{'decoder':{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'a'},'content':'%s'},"
             "{'type':'Replace','pattern':{'String':'x'},'content':'%s'},{'type':'Replace','pattern':{'String':'x'},'"
             "content':'%s'}]}," MODEL "}",
             text, text, text);
    assert_refused(json, NULL, MOE_ERR_NO_MEMORY, "decodes to too much text");
}

static void ids_with_gaps_are_accepted(void **state)
{
    (void)state;
    assert_string_equal(encoded_by("{'model':{'vocab':{'a':7,'b':63},'merges':[]}}", "ab"), "7 63");
}

static void merges_as_strings_and_as_pairs_are_the_same(void **state)
{
    (void)state;
    assert_string_equal(
        encoded_by("{'model':{'vocab':{'a':0,'b':1,'ab':2,'abb':3},'merges':['a b',['ab','b']]}}", "abb"), "3");
}

static void assert_open_fails(size_t vocab_size, const tokenizer_specials *specials, const char *reason)
{
    char *json = quoted("{" MODEL "}");
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_int_equal(tokenizer_open_memory(json, strlen(json), NULL, 0, NULL, 0, vocab_size, specials, &t, &err),
                     MOE_ERR_INVALID_ARG);
    assert_contains(err.text, reason);
    free(json);
}

static void a_vocabulary_size_out_of_range_is_refused(void **state)
{
    (void)state;
    assert_open_fails(0, NULL, "vocab_size: 0");
    assert_open_fails(4194305, NULL, "vocab_size: 4194305");
}

static void special_ids_beyond_the_vocabulary_are_refused(void **state)
{
    const int32_t id = 9;

    (void)state;
    assert_open_fails(9, &(tokenizer_specials){.bos_id = 9, .eos_id = -1}, "bos_id 9");
    assert_open_fails(9, &(tokenizer_specials){.ids = &id, .n_ids = 1, .bos_id = -1, .eos_id = -1}, "special id 9");
}

/* ------------------------------------------------------------------------------------------------ folders */
static void a_folder_without_tokenizer_is_not_found(void **state)
{
    const test_folder *folder = *state;
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_int_equal(tokenizer_open(folder->path, 64, NULL, &t, &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "tokenizer.json");
}

static void a_folder_with_only_a_tokenizer_opens(void **state)
{
    const test_folder *folder = *state;
    char *json = quoted("{" MODEL "}");
    tokenizer *t = NULL;
    moe_error err = {""};

    test_write_text(test_folder_path(folder, "tokenizer.json"), json);
    assert_ok(tokenizer_open(folder->path, 64, NULL, &t, &err), err);
    assert_string_equal(tokenizer_chat_name(t), "");
    tokenizer_close(t);
    free(json);
}

static void the_jinja_file_beats_the_config(void **state)
{
    const test_folder *folder = *state;
    char *json = quoted("{" MODEL "}"), *config = test_read_file("tests/vectors/tokenizer/tokenizer_config.json", NULL);
    tokenizer *t = NULL;
    moe_error err = {""};

    test_write_text(test_folder_path(folder, "tokenizer.json"), json);
    test_write_text(test_folder_path(folder, "tokenizer_config.json"), config);
    test_write_text(test_folder_path(folder, "chat_template.jinja"), "{{ other }}");
    assert_ok(tokenizer_open(folder->path, 64, NULL, &t, &err), err);
    assert_string_equal(tokenizer_chat_name(t), "default"); /* the config's would be tulu */
    tokenizer_close(t);
    free(json);
    free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_types_are_refused_by_name),
        cmocka_unit_test(malformed_fields_are_refused_by_name),
        cmocka_unit_test(absurd_vocabularies_and_merges_are_refused),
        cmocka_unit_test(malformed_configs_are_refused_by_name),
        cmocka_unit_test(add_bos_token_without_an_id_is_refused),
        cmocka_unit_test(too_many_steps_are_refused),
        cmocka_unit_test(too_many_ids_around_the_text_are_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(a_token_longer_than_the_limit_is_refused),
        cmocka_unit_test(a_decoder_that_multiplies_text_is_refused),
        cmocka_unit_test(ids_with_gaps_are_accepted),
        cmocka_unit_test(merges_as_strings_and_as_pairs_are_the_same),
        cmocka_unit_test(a_vocabulary_size_out_of_range_is_refused),
        cmocka_unit_test(special_ids_beyond_the_vocabulary_are_refused),
        cmocka_unit_test_setup_teardown(a_folder_without_tokenizer_is_not_found, test_folder_setup,
                                        test_folder_teardown),
        cmocka_unit_test_setup_teardown(a_folder_with_only_a_tokenizer_opens, test_folder_setup, test_folder_teardown),
        cmocka_unit_test_setup_teardown(the_jinja_file_beats_the_config, test_folder_setup, test_folder_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
