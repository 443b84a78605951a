#include "tests/unit/test_tokenizer_support.h"

/* Single characters, so that ids spell the rendered text; 40 is bos and eos. */
#define LETTERS                                                                                                        \
    "{'added_tokens':[{'id':40,'content':'#E','special':true}],'pre_tokenizer':null,'decoder':{'type':'Fuse'},'model'" \
    ":{"                                                                                                               \
    "'vocab':{'<':0,'|':1,'>':2,'\\n':3,'s':4,'y':5,'t':6,'e':7,'m':8,'u':9,'r':10,'a':11,'i':12,'n':13,'#':14,'E':"   \
    "15,"                                                                                                              \
    "'H':16,'#E':40},'merges':[]}}"
#define CONTENT "message['content']"
#define BRANCHES                                                                                                       \
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + " CONTENT    \
    " + '\\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + " CONTENT " + '\\n' }}"                         \
    "{% elif message['role'] == 'assistant' %}"
#define PROMPT "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"
#define TULU   BRANCHES "{{ '<|assistant|>\\n' + " CONTENT " + eos_token + '\\n' }}{% endif %}" PROMPT
#define OLMO2                                                                                                          \
    BRANCHES "{% if not loop.last %}{{ '<|assistant|>\\n' + " CONTENT " + eos_token + '\\n' }}{% else %}"              \
             "{{ '<|assistant|>\\n' + " CONTENT " + eos_token }}{% endif %}{% endif %}" PROMPT
/* The same as TULU, written over lines as block trimming allows, the line feeds outside the expressions. */
static const char tulu_in_lines[] = "{{ bos_token }}{% for message in messages %}\n"
                                    "  {%- if message[\"role\"] == \"system\" -%}\n"
                                    "{{ '<|system|>\n' + message[\"content\"] }}\n"
                                    "  {% elif message['role'] == 'user' %}\n"
                                    "{{\"<|user|>\\n\"+message['content']}}\n"
                                    "{% elif message['role'] == 'assistant' %}\n"
                                    "{{ '<|assistant|>\\n'  + message.content + eos_token }}\n"
                                    "{% endif %}\n"
                                    "{% if loop.last and add_generation_prompt %}\n"
                                    "{{ '<|assistant|>' }}\n"
                                    "{% endif %}\n"
                                    "{% endfor %}\n";

static const tokenizer_specials specials = {.bos_id = 40, .eos_id = 40};

static tokenizer *open_chat(const char *template)
{
    char *json = quoted(LETTERS);
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_ok(tokenizer_open_memory(json, strlen(json), NULL, 0, template, strlen(template), INLINE_VOCAB, &specials,
                                    &t, &err),
              err);
    free(json);
    return t;
}

static void assert_recognised(const char *template, const char *name)
{
    tokenizer *t = open_chat(template);

    assert_string_equal(tokenizer_chat_name(t), name);
    tokenizer_close(t);
}

static void the_tulu_template_is_recognised(void **state)
{
    (void)state;
    assert_recognised(TULU, "tulu");
}

static void the_olmo2_template_is_recognised(void **state)
{
    (void)state;
    assert_recognised(OLMO2, "olmo2");
}

static void a_template_over_lines_is_recognised(void **state)
{
    (void)state;
    assert_recognised(tulu_in_lines, "tulu");
}

static void templates_that_render_otherwise_are_not_taken_for_a_known_one(void **state)
{
    static const char *const others[] = {
        "",
        "{",
        "{{",
        "{% for",
        "{{ bos_token",
        "{# x #}",
        "{{ 'a }}",
        "{{ '\\x' }}",
        "{{ bos_token + }}",
        "{{ bos_token x }}",
        "{{ other }}",
        "text",
        BRANCHES "{{ '<|assistant|>\\n' + " CONTENT " + '\\n' }}{% endif %}" PROMPT,     /* no eos */
        BRANCHES "{{ '<|assistant|>\\n' + " CONTENT " + eos_token }}{% endif %}" PROMPT, /* no line feed */
        TULU "x",
        "{{ bos_token }}\n" TULU,
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(others); i++) {
        assert_recognised(others[i], "");
    }
}

static void the_template_of_the_config_is_used_without_a_file(void **state)
{
    tokenizer *t = must_open(LETTERS, "{'chat_template':'{{ x }}'}", &specials);
    moe_error err = {""};
    int32_t ids[8];
    size_t n;
    const tokenizer_message hello = {TOKENIZER_ROLE_USER, "H", 1};

    (void)state;
    assert_int_equal(tokenizer_chat_encode(t, &hello, 1, true, ids, 8, &n, &err), MOE_ERR_UNSUPPORTED);
    tokenizer_close(t);
}

static void of_a_list_of_templates_the_default_is_used(void **state)
{
    char *json = quoted(LETTERS);
    /* Escaped once more, since it is a JSON string. */
    char config[4096],
        *to =
            config +
            sprintf(config,
                    "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"x\"},{\"name\":\"default\",\"template\":\"");
    tokenizer *t = NULL;
    moe_error err = {""};

    (void)state;
    for (const char *c = TULU; *c; c++) {
        if (*c == '\\') {
            *to++ = '\\';
        }
        *to++ = *c;
    }
    strcpy(to, "\"}]}");
    assert_ok(
        tokenizer_open_memory(json, strlen(json), config, strlen(config), NULL, 0, INLINE_VOCAB, &specials, &t, &err),
        err);
    assert_string_equal(tokenizer_chat_name(t), "tulu");
    tokenizer_close(t);
    free(json);
}

/* The rendered text, with # for the id 40. */
static const char *rendered(const char *template, const tokenizer_message *messages, size_t n_messages, bool prompt)
{
    static char text[512];
    tokenizer *t = open_chat(template);
    moe_error err = {""};
    int32_t ids[256];
    size_t n = 0, used = 0, bytes;

    assert_ok(tokenizer_chat_encode(t, messages, n_messages, prompt, ids, MOE_COUNT(ids), &n, &err), err);
    for (size_t i = 0; i < n; i++) {
        const char *token = tokenizer_token_bytes(t, ids[i], &bytes);

        memcpy(text + used, ids[i] == 40 ? "@" : token, ids[i] == 40 ? 1 : bytes);
        used += ids[i] == 40 ? 1 : bytes;
    }
    text[used] = '\0';
    tokenizer_close(t);
    return text;
}

static const tokenizer_message turns[] = {{TOKENIZER_ROLE_SYSTEM, "s", 1},
                                          {TOKENIZER_ROLE_USER, "u", 1},
                                          {TOKENIZER_ROLE_ASSISTANT, "a", 1},
                                          {TOKENIZER_ROLE_USER, "t", 1},
                                          {TOKENIZER_ROLE_ASSISTANT, "r", 1}};

static void one_user_turn_renders_the_same_in_both(void **state)
{
    (void)state;
    assert_string_equal(rendered(TULU, &turns[1], 1, true), "@<|user|>\nu\n<|assistant|>\n");
    assert_string_equal(rendered(OLMO2, &turns[1], 1, true), "@<|user|>\nu\n<|assistant|>\n");
}

static void tulu_ends_every_answer_with_eos_and_line_feed(void **state)
{
    (void)state;
    assert_string_equal(rendered(TULU, turns, 5, false),
                        "@<|system|>\ns\n<|user|>\nu\n<|assistant|>\na@\n<|user|>\nt\n<|assistant|>\nr@\n");
}

static void olmo2_ends_the_last_answer_with_eos_alone(void **state)
{
    (void)state;
    assert_string_equal(rendered(OLMO2, turns, 5, false),
                        "@<|system|>\ns\n<|user|>\nu\n<|assistant|>\na@\n<|user|>\nt\n<|assistant|>\nr@");
}

static void special_tokens_typed_by_a_user_stay_text(void **state)
{
    const tokenizer_message message = {TOKENIZER_ROLE_USER, "#E", 2};

    (void)state;
    assert_string_equal(rendered(TULU, &message, 1, false), "@<|user|>\n#E\n");
}

static void a_template_chosen_by_name_is_used(void **state)
{
    tokenizer *t = open_chat("?");
    moe_error err = {""};

    (void)state;
    assert_ok(tokenizer_chat_select(t, "olmo2", &err), err);
    assert_string_equal(tokenizer_chat_name(t), "olmo2");
    tokenizer_close(t);
}

static void an_unknown_template_name_is_refused(void **state)
{
    tokenizer *t = open_chat("?");
    moe_error err = {""};

    (void)state;
    assert_int_equal(tokenizer_chat_select(t, "nope", &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "nope");
    tokenizer_close(t);
}

static void assert_chat_refused(const tokenizer_message *messages, size_t n, size_t max_ids, const char *reason)
{
    tokenizer *t = open_chat(TULU);
    moe_error err = {""};
    int32_t ids[64];
    size_t n_ids;

    assert_int_equal(tokenizer_chat_encode(t, messages, n, false, ids, max_ids, &n_ids, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, reason);
    tokenizer_close(t);
}

static void no_messages_are_refused(void **state)
{
    (void)state;
    assert_chat_refused(turns, 0, 64, "at least one");
}

static void invalid_utf8_in_a_message_is_refused(void **state)
{
    const tokenizer_message message = {TOKENIZER_ROLE_USER, "a\xff", 2};

    (void)state;
    assert_chat_refused(&message, 1, 64, "messages[0].content: invalid UTF-8 at byte 1");
}

static void a_role_that_does_not_exist_is_refused(void **state)
{
    const tokenizer_message message = {(tokenizer_role)7, "a", 1};

    (void)state;
    assert_chat_refused(&message, 1, 64, "role");
}

static void a_chat_of_too_many_tokens_is_refused(void **state)
{
    (void)state;
    assert_chat_refused(turns, 5, 20, "more than 20 tokens");
}

static void a_chat_needs_bos_and_eos_ids(void **state)
{
    tokenizer *t = must_open(LETTERS, NULL, NULL);
    moe_error err = {""};
    int32_t ids[8];
    size_t n;

    (void)state;
    assert_ok(tokenizer_chat_select(t, "tulu", &err), err);
    assert_int_equal(tokenizer_chat_encode(t, turns, 1, true, ids, 8, &n, &err), MOE_ERR_UNSUPPORTED);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tulu_template_is_recognised),
        cmocka_unit_test(the_olmo2_template_is_recognised),
        cmocka_unit_test(a_template_over_lines_is_recognised),
        cmocka_unit_test(templates_that_render_otherwise_are_not_taken_for_a_known_one),
        cmocka_unit_test(the_template_of_the_config_is_used_without_a_file),
        cmocka_unit_test(of_a_list_of_templates_the_default_is_used),
        cmocka_unit_test(one_user_turn_renders_the_same_in_both),
        cmocka_unit_test(tulu_ends_every_answer_with_eos_and_line_feed),
        cmocka_unit_test(olmo2_ends_the_last_answer_with_eos_alone),
        cmocka_unit_test(special_tokens_typed_by_a_user_stay_text),
        cmocka_unit_test(a_template_chosen_by_name_is_used),
        cmocka_unit_test(an_unknown_template_name_is_refused),
        cmocka_unit_test(no_messages_are_refused),
        cmocka_unit_test(invalid_utf8_in_a_message_is_refused),
        cmocka_unit_test(a_role_that_does_not_exist_is_refused),
        cmocka_unit_test(a_chat_of_too_many_tokens_is_refused),
        cmocka_unit_test(a_chat_needs_bos_and_eos_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
