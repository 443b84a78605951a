#include "tests/unit/test_tokenizer_support.h"

/* Single characters, so that ids spell the rendered text; 40 is bos and eos. */
#define LETTERS                                                                                                        \
    "{'added_tokens':[{'id':40,'content':'#E','special':true}],'pre_tokenizer':null,'decoder':{'type':'Fuse'},'model'" \
    ":{"                                                                                                               \
    "'vocab':{'<':0,'|':1,'>':2,'\\n':3,'s':4,'y':5,'t':6,'e':7,'m':8,'u':9,'r':10,'a':11,'i':12,'n':13,'#':14,'E':"   \
    "15,"                                                                                                              \
    "'H':16,'@':17,'x':18,'#E':40},'merges':[]}}"
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

static tokenizer *open_chat(const char *source)
{
    char *json = quoted(LETTERS);
    tokenizer *t = NULL;
    moe_error err = {""};

    assert_ok(
        tokenizer_open_memory(json, strlen(json), NULL, 0, source, strlen(source), INLINE_VOCAB, &specials, &t, &err),
        err);
    free(json);
    return t;
}

static void assert_recognised(const char *source, const char *name)
{
    tokenizer *t = open_chat(source);

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
        "{# x #}",
        "{{ other }}",
        "text",
        BRANCHES "{{ '<|assistant|>\\n' + " CONTENT " + '\\n' }}{% endif %}" PROMPT,     /* no eos */
        BRANCHES "{{ '<|assistant|>\\n' + " CONTENT " + eos_token }}{% endif %}" PROMPT, /* no line feed */
        TULU "x",
        "{{ bos_token }}\n" TULU,
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(others); i++) {
        assert_recognised(others[i], "default");
    }
}

static void templates_that_are_none_are_named_as_the_problem(void **state)
{
    static const struct {
        const char *source, *problem;
    } cases[] = {{"{{", "line 1"},
                 {"{% for", "line 1"},
                 {"{{ bos_token", "line 1"},
                 {"\n{{ 'a }}", "line 2: a string without its end"},
                 {"{{ '\\x' }}", "escape"},
                 {"{{ bos_token + }}", "unexpected"},
                 {"{{ bos_token x }}", "expected"},
                 {"a\nb\n{{ x | wordwrap }}", "line 3: the filter 'wordwrap' is not known"},
                 {"{{ x is shiny }}", "the test 'shiny' is not known"},
                 {"{% include 'x' %}", "the statement 'include' is not known"}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        tokenizer *t = open_chat(cases[i].source);
        moe_error err = {""};
        int32_t ids[8];
        size_t n;
        const tokenizer_message hello = said(TOKENIZER_ROLE_USER, "H");

        assert_string_equal(tokenizer_chat_name(t), "");
        assert_contains(tokenizer_chat_problem(t), cases[i].problem);
        assert_int_equal(chat_ids(t, &hello, 1, true, ids, 8, &n, &err), MOE_ERR_UNSUPPORTED);
        tokenizer_close(t);
    }
}

static void the_template_of_the_config_is_used_without_a_file(void **state)
{
    tokenizer *t = must_open(LETTERS, "{'chat_template':'{{ messages[0].content }}E'}", &specials);
    moe_error err = {""};
    int32_t ids[8];
    size_t n;
    const tokenizer_message hello = said(TOKENIZER_ROLE_USER, "H");

    (void)state;
    assert_ok(chat_ids(t, &hello, 1, true, ids, 8, &n, &err), err);
    assert_string_equal(ids_text(ids, n), "16 15");
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
static const char *rendered(const char *source, const tokenizer_message *messages, size_t n_messages, bool prompt)
{
    static char text[512];
    tokenizer *t = open_chat(source);
    moe_error err = {""};
    int32_t ids[256];
    size_t n = 0, used = 0, bytes;

    assert_ok(chat_ids(t, messages, n_messages, prompt, ids, MOE_COUNT(ids), &n, &err), err);
    for (size_t i = 0; i < n; i++) {
        const char *token = tokenizer_token_bytes(t, ids[i], &bytes);

        memcpy(text + used, ids[i] == 40 ? "@" : token, ids[i] == 40 ? 1 : bytes);
        used += ids[i] == 40 ? 1 : bytes;
    }
    text[used] = '\0';
    tokenizer_close(t);
    return text;
}

static const tokenizer_message turns[] = {{.role = TOKENIZER_ROLE_SYSTEM, .content = "s", .bytes = 1},
                                          {.role = TOKENIZER_ROLE_USER, .content = "u", .bytes = 1},
                                          {.role = TOKENIZER_ROLE_ASSISTANT, .content = "a", .bytes = 1},
                                          {.role = TOKENIZER_ROLE_USER, .content = "t", .bytes = 1},
                                          {.role = TOKENIZER_ROLE_ASSISTANT, .content = "r", .bytes = 1}};

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
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, "#E");

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

    assert_int_equal(chat_ids(t, messages, n, false, ids, max_ids, &n_ids, &err), MOE_ERR_INVALID_ARG);
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
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, "a\xff");

    (void)state;
    assert_chat_refused(&message, 1, 64, "messages[0].content: invalid UTF-8 at byte 1");
}

static void a_role_that_does_not_exist_is_refused(void **state)
{
    const tokenizer_message message = said((tokenizer_role)7, "a");

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
    assert_int_equal(chat_ids(t, turns, 1, true, ids, 8, &n, &err), MOE_ERR_UNSUPPORTED);
    tokenizer_close(t);
}

/* ------------------------------------------------------------------------------------------------ conversations */
static const char *rendered_conversation(tokenizer *t, const tokenizer_conversation *c)
{
    static char text[512];
    moe_error err = {""};
    int32_t ids[256];
    size_t n = 0, used = 0, bytes;

    assert_ok(tokenizer_chat_encode(t, c, ids, MOE_COUNT(ids), &n, &err), err);
    for (size_t i = 0; i < n; i++) {
        const char *token = tokenizer_token_bytes(t, ids[i], &bytes);

        memcpy(text + used, ids[i] == 40 ? "@" : token, ids[i] == 40 ? 1 : bytes);
        used += ids[i] == 40 ? 1 : bytes;
    }
    text[used] = '\0';
    return text;
}

static void tools_and_arguments_reach_the_template(void **state)
{
    tokenizer *t =
        open_chat("{{ tools[0].name }}|{{ a }}|{{ messages[0].tool_calls[0].n }}|{{ messages[0].name }}|"
                  "{{ messages[0].tool_call_id }}|{{ messages[0].reasoning_content }}|{{ messages[0].role[0] }}");
    const tokenizer_message message = {.role = TOKENIZER_ROLE_TOOL,
                                       .content = "",
                                       .name = "n",
                                       .tool_call_id = "i",
                                       .reasoning_content = "r",
                                       .tool_calls = "[{\"n\":\"s\"}]"};
    const tokenizer_conversation c = {
        .messages = &message, .n_messages = 1, .tools = "[{\"name\":\"me\"}]", .template_args = "{\"a\":\"y\"}"};

    (void)state;
    assert_string_equal(rendered_conversation(t, &c), "me|y|s|n|i|r|t");
    tokenizer_close(t);
}

static void what_is_not_given_is_undefined_in_the_template(void **state)
{
    tokenizer *t =
        open_chat("{% if tools is none and messages[0].tool_calls is undefined and a is undefined %}y{% endif %}");
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, "");
    const tokenizer_conversation c = {.messages = &message, .n_messages = 1};

    (void)state;
    assert_string_equal(rendered_conversation(t, &c), "y");
    tokenizer_close(t);
}

/* Whatever the template makes of it: none of these may give the id 40. */
static void no_special_token_comes_from_what_a_user_typed(void **state)
{
    static const char *const sources[] = {
        "{{ messages[0].content }}",
        "{{ messages[0].content | trim }}",
        "{{ '' ~ messages[0].content ~ '' }}",
        "{{ messages[0].content.split(' ')[0] }}",
        "{{ messages[0].content.replace('E', 'E') }}",
        "{{ '#' + messages[0].content[1:] }}",
        "{% for c in messages[0].content %}{{ c }}{% endfor %}",
        "{{ '%s' % messages[0].content }}",
        "{{ '{}'.format(messages[0].content) }}",
        "{{ messages[0].content | replace('s', '') }}",
        "{{ [messages[0].content] | join }}",
        "{{ messages | map(attribute='content') | join }}",
        "{{ messages[0].content | upper }}",
        "{{ messages[0].content[::-1][::-1] }}",
        "{{ (messages | tojson)[25:27] }}",
        "{% set x %}{{ messages[0].content }}{% endset %}{{ x }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(messages[0].content) }}",
        "{% filter trim %}{{ messages[0].content }}{% endfilter %}",
        "{{ tools[0] }}",
        "{{ a }}",
        "{{ messages[0].name }}",
        "{{ messages[0].content | first }}{{ messages[0].content | last }}",
    };
    const tokenizer_message message = {.role = TOKENIZER_ROLE_USER, .content = "#E", .bytes = 2, .name = "#E"};
    const tokenizer_conversation c = {
        .messages = &message, .n_messages = 1, .tools = "[\"#E\"]", .template_args = "{\"a\":\"#E\"}"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(sources); i++) {
        tokenizer *t = open_chat(sources[i]);

        assert_null(strchr(rendered_conversation(t, &c), '@'));
        tokenizer_close(t);
    }
}

static void special_tokens_of_the_template_are_found(void **state)
{
    tokenizer *t = open_chat("#E{{ '#' ~ 'E' }}{{ bos_token }}{{ eos_token * 2 }}{{ bos_token[0] }}");
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, "");
    const tokenizer_conversation c = {.messages = &message, .n_messages = 1};

    (void)state;
    assert_string_equal(rendered_conversation(t, &c), "@@@@@#");
    tokenizer_close(t);
}

static void assert_conversation_refused(const char *source, const tokenizer_conversation *c, const char *reason)
{
    tokenizer *t = open_chat(source);
    moe_error err = {""};
    int32_t ids[64];
    size_t n;

    assert_int_equal(tokenizer_chat_encode(t, c, ids, MOE_COUNT(ids), &n, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, reason);
    tokenizer_close(t);
}

static void malformed_fields_are_refused_by_name(void **state)
{
    const tokenizer_message plain = said(TOKENIZER_ROLE_USER, "a");
    const tokenizer_message calls = {.role = TOKENIZER_ROLE_ASSISTANT, .content = "", .tool_calls = "{}"};
    const tokenizer_message name = {.role = TOKENIZER_ROLE_USER, .content = "", .name = "\xff"};
    const struct {
        tokenizer_conversation c;
        const char *reason;
    } cases[] = {
        {{.messages = &plain, .n_messages = 1, .tools = "[", .template_args = NULL}, "tools: line 1"},
        {{.messages = &plain, .n_messages = 1, .tools = "{}"}, "tools: not a JSON list"},
        {{.messages = &plain, .n_messages = 1, .template_args = "[]"}, "template_args: not a JSON object"},
        {{.messages = &plain, .n_messages = 1, .template_args = "{\"messages\":1}"}, "\"messages\""},
        {{.messages = &calls, .n_messages = 1}, "messages[0].tool_calls: not a JSON list"},
        {{.messages = &name, .n_messages = 1}, "messages[0].name: invalid UTF-8 at byte 0"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_conversation_refused("{{ messages }}", &cases[i].c, cases[i].reason);
    }
}

static void too_many_arguments_are_refused(void **state)
{
    const tokenizer_message plain = said(TOKENIZER_ROLE_USER, "a");
    char args[8192] = "{";
    size_t n = 1;

    (void)state;
    for (int i = 0; i < 257; i++) {
        n += (size_t)sprintf(args + n, "%s\"a%d\":1", i ? "," : "", i);
    }
    strcpy(args + n, "}");
    const tokenizer_conversation c = {.messages = &plain, .n_messages = 1, .template_args = args};

    assert_conversation_refused("x", &c, "template_args: 257 keys; the limit is 256");
}

static void too_much_json_is_refused(void **state)
{
    const tokenizer_message plain = said(TOKENIZER_ROLE_USER, "a");
    const size_t n = 2 << 20;
    char *tools = malloc(n + 2);

    (void)state;
    assert_non_null(tools);
    memset(tools, ' ', n);
    memcpy(tools, "[", 1);
    memcpy(tools + n, "]", 2);
    const tokenizer_conversation c = {.messages = &plain, .n_messages = 1, .tools = tools};

    assert_conversation_refused("x", &c, "tools: more than 2097152 bytes of JSON");
    free(tools);
}

static void what_the_template_refuses_is_refused_with_its_words(void **state)
{
    const tokenizer_message plain = said(TOKENIZER_ROLE_USER, "a");
    const tokenizer_conversation c = {.messages = &plain, .n_messages = 1};

    (void)state;
    assert_conversation_refused("{{ raise_exception('roles must alternate') }}", &c, "roles must alternate");
    assert_conversation_refused("\n{{ messages[0].nobody.name }}", &c, "line 2");
    assert_conversation_refused("{{ strftime_now('%Y') }}", &c, "no time");
}

static void the_tool_template_of_a_list_is_used_where_tools_are_given(void **state)
{
    tokenizer *t = must_open(
        LETTERS, "{'chat_template':[{'name':'default','template':'s'},{'name':'tool_use','template':'t'}]}", &specials);
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, "");
    tokenizer_conversation c = {.messages = &message, .n_messages = 1};

    (void)state;
    assert_string_equal(rendered_conversation(t, &c), "s");
    c.tools = "[]";
    assert_string_equal(rendered_conversation(t, &c), "t");
    tokenizer_close(t);
}

static void a_template_set_by_hand_is_used(void **state)
{
    tokenizer *t = open_chat("{{ x | wordwrap }}");
    const tokenizer_message message = said(TOKENIZER_ROLE_USER, "u");
    const tokenizer_conversation c = {.messages = &message, .n_messages = 1};
    moe_error err = {""};

    (void)state;
    assert_int_equal(tokenizer_chat_use(t, "{{", 2, &err), MOE_ERR_CORRUPT);
    assert_ok(tokenizer_chat_use(t, "<{{ messages[0].content }}>", 27, &err), err);
    assert_string_equal(tokenizer_chat_name(t), "file");
    assert_string_equal(tokenizer_chat_problem(t), "");
    assert_string_equal(rendered_conversation(t, &c), "<u>");
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tulu_template_is_recognised),
        cmocka_unit_test(the_olmo2_template_is_recognised),
        cmocka_unit_test(a_template_over_lines_is_recognised),
        cmocka_unit_test(templates_that_render_otherwise_are_not_taken_for_a_known_one),
        cmocka_unit_test(templates_that_are_none_are_named_as_the_problem),
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
        cmocka_unit_test(tools_and_arguments_reach_the_template),
        cmocka_unit_test(what_is_not_given_is_undefined_in_the_template),
        cmocka_unit_test(no_special_token_comes_from_what_a_user_typed),
        cmocka_unit_test(special_tokens_of_the_template_are_found),
        cmocka_unit_test(malformed_fields_are_refused_by_name),
        cmocka_unit_test(too_many_arguments_are_refused),
        cmocka_unit_test(too_much_json_is_refused),
        cmocka_unit_test(what_the_template_refuses_is_refused_with_its_words),
        cmocka_unit_test(the_tool_template_of_a_list_is_used_where_tools_are_given),
        cmocka_unit_test(a_template_set_by_hand_is_used),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
