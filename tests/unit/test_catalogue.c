/* The catalogue: set arithmetic, both phases of a change, and the record that all members read. */
#include "tests/unit/test_catalogue_support.h"

/* ------------------------------------------------------------------------------------------------ sets */
static void a_new_catalogue_routes_to_the_checkpoint(void **state)
{
    (void)state;
    assert_default("0-4|0-4|0-4");
    assert_ptr_equal(catalogue_space(now), base.space);
    assert_int_equal(catalogue_n_packs(now) + catalogue_n_named(now) + catalogue_n_entries(now), 0);
}

static void a_pack_is_pending_until_it_is_committed(void **state)
{
    catalogue_pack p = german();

    (void)state;
    assert_ok(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p, .who = "ann", .why = "Rhine\nwine"}), why);
    assert_default("0-4|0-4|0-4");
    assert_set(catalogue_get_pending(now)->target, "0-6|0-4|0-5");
    assert_string_equal(catalogue_get_pending(now)->what, "add german 1");
    assert_int_equal(router_space_n_slots(catalogue_space(now)), 18);
    assert_false(catalogue_pack_at(now, 0)->active);
    commit();
    assert_default("0-6|0-4|0-5");
    assert_null(catalogue_get_pending(now));
    assert_true(catalogue_pack_at(now, 0)->active);
    assert_string_equal(catalogue_pack_at(now, 0)->by, "ann");
    assert_int_equal(catalogue_pack_at(now, 0)->since_ms, clock_ms);
    assert_string_equal(catalogue_entry_at(now, 0)->why, "Rhine wine");
    assert_string_equal(catalogue_entry_at(now, 0)->after, router_set_id(catalogue_default(now)));
}

static void adding_and_removing_lengthens_nothing(void **state)
{
    char before[65];

    (void)state;
    (void)snprintf(before, sizeof before, "%s", router_set_id(catalogue_default(now)));
    add(german());
    router_space *space = catalogue_space(now);
    for (int i = 0; i < 3; i++) {
        change((catalogue_change){.op = CATALOGUE_REMOVE, .word = "german"});
        assert_string_equal(router_set_id(catalogue_default(now)), before);
        add(german());
        assert_default("0-6|0-4|0-5");
    }
    assert_ptr_equal(catalogue_space(now), space);
    assert_int_equal(catalogue_n_packs(now), 1);
}

static void an_undone_change_leaves_the_reason_and_its_ids(void **state)
{
    catalogue_pack p = german(), q = pack_of("french", "1", 'b', french_layers, 2, 2);
    catalogue *next = NULL;

    (void)state;
    assert_ok(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p}), why);
    assert_int_equal(catalogue_undo(now, 9, 1, "no", &next, &why), MOE_ERR_NOT_FOUND);
    assert_ok(catalogue_undo(now, 1, ++clock_ms, "node b fell silent", &next, &why), why);
    become(next);
    assert_default("0-4|0-4|0-4");
    assert_string_equal(catalogue_entry_at(now, 0)->undone, "node b fell silent");
    assert_string_equal(catalogue_entry_at(now, 0)->after, catalogue_entry_at(now, 0)->before);
    assert_false(catalogue_pack_at(now, 0)->active);
    add(q);
    assert_default("0-4,7|0-5|0-4");
}

static void one_change_at_a_time(void **state)
{
    catalogue_pack p = german();
    const catalogue_expert e = {0, 1};

    (void)state;
    assert_ok(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p}), why);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &e, .n_experts = 1}), MOE_ERR_BUSY);
    assert_contains(why.text, "add german 1");
}

static void experts_that_replace_others_take_their_places(void **state)
{
    (void)state;
    add(fix());
    assert_default("0,2,4-6|0-4|1-5");
    change((catalogue_change){.op = CATALOGUE_REMOVE, .word = "fix"});
    assert_default("0-4|0-4|0-4");
}

static void what_is_replaced_must_be_there(void **state)
{
    const catalogue_expert e = {0, 3};
    catalogue_pack p = fix();

    (void)state;
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &e, .n_experts = 1});
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p}), MOE_ERR_INVALID_ARG);
    assert_contains(why.text, "layer 0 expert 3");
}

static void an_update_is_one_change(void **state)
{
    catalogue_pack v2 = pack_of("german", "2", 'b', french_layers, 2, 2);

    (void)state;
    add(german());
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &v2}), MOE_ERR_EXISTS);
    assert_contains(why.text, "version 1 is active");
    change((catalogue_change){.op = CATALOGUE_UPDATE, .word = "german", .pack = &v2});
    assert_default("0-4,7|0-5|0-4");
    assert_string_equal(catalogue_entry_at(now, 1)->what, "update german 1 to german 2");
    assert_string_equal(catalogue_find_pack(now, "german")->version, "2");
    assert_string_equal(catalogue_find_pack(now, "german@1")->version, "1");
    change((catalogue_change){.op = CATALOGUE_ROLLBACK});
    assert_default("0-6|0-4|0-5");
    assert_string_equal(catalogue_find_pack(now, "german")->version, "1");
}

static void pruned_experts_come_back(void **state)
{
    const catalogue_expert some[] = {{0, 1}, {0, 5}, {2, 3}};
    const catalogue_expert one = {0, 5};

    (void)state;
    add(german());
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = some, .n_experts = 3});
    assert_default("0,2-4,6|0-4|0-2,4-5");
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &one, .n_experts = 1}),
                     MOE_ERR_INVALID_ARG);
    assert_contains(why.text, "layer 0 expert 5 is not in the set");
    change((catalogue_change){.op = CATALOGUE_RESTORE, .experts = &one, .n_experts = 1});
    assert_default("0,2-6|0-4|0-2,4-5");
    change((catalogue_change){.op = CATALOGUE_RESTORE});
    assert_default("0-6|0-4|0-5");
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_RESTORE}), MOE_ERR_EXISTS);
}

static void only_what_is_active_can_be_restored(void **state)
{
    const catalogue_expert of_german = {0, 5}, replaced = {0, 3};

    (void)state;
    add(german());
    change((catalogue_change){.op = CATALOGUE_REMOVE, .word = "german"});
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_RESTORE, .experts = &of_german, .n_experts = 1}),
                     MOE_ERR_INVALID_ARG);
    add(fix());
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_RESTORE, .experts = &replaced, .n_experts = 1}),
                     MOE_ERR_INVALID_ARG);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_RESTORE}), MOE_ERR_EXISTS);
}

static void no_layer_gets_fewer_than_a_token_picks(void **state)
{
    const catalogue_expert most[] = {{1, 0}, {1, 1}, {1, 2}, {1, 3}};

    (void)state;
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PRUNE, .experts = most, .n_experts = 4}),
                     MOE_ERR_INVALID_ARG);
    assert_contains(why.text, "layer 1 has 1 experts, at least 2");
    assert_default("0-4|0-4|0-4");
}

static void experts_that_are_not_there_are_refused(void **state)
{
    const catalogue_expert bad[] = {{3, 0}, {0, 5}, {0, -1}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &bad[i], .n_experts = 1}),
                         MOE_ERR_INVALID_ARG);
    }
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_PRUNE}), MOE_ERR_INVALID_ARG);
}

static void sets_get_names_and_lose_them(void **state)
{
    const char *const packs[] = {"german"};
    const catalogue_expert listed[] = {{1, 3}, {1, 0}};
    router_set *set = NULL;

    (void)state;
    add(german());
    change((catalogue_change){.op = CATALOGUE_DEFINE, .word = "plain", .exclude = packs, .n_exclude = 1});
    change((catalogue_change){.op = CATALOGUE_DEFINE, .word = "few", .experts = listed, .n_experts = 2});
    assert_int_equal(catalogue_n_named(now), 2);
    assert_string_equal(catalogue_named_at(now, 0)->name, "few");
    assert_set(catalogue_named_at(now, 0)->set, "0-6|0,3|0-5");
    assert_set(catalogue_named_at(now, 1)->set, "0-4|0-4|0-4");
    assert_default("0-6|0-4|0-5");
    change((catalogue_change){.op = CATALOGUE_USE, .word = "few"});
    assert_default("0-6|0,3|0-5");
    assert_ok(catalogue_find_set(now, "few", &set, &why), why);
    assert_ptr_equal(set, catalogue_default(now));
    router_set_unref(set);
    assert_ok(begin((catalogue_change){.op = CATALOGUE_FORGET, .word = "few"}), why);
    assert_null(catalogue_get_pending(now));
    assert_int_equal(catalogue_n_named(now), 1);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_FORGET, .word = "few"}), MOE_ERR_NOT_FOUND);
    assert_string_equal(catalogue_entry_at(now, catalogue_n_entries(now) - 1)->what, "forget few");
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_DEFINE, .word = "base"}), MOE_ERR_INVALID_ARG);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_DEFINE, .word = "a b"}), MOE_ERR_INVALID_ARG);
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_USE, .word = "nobody"}), MOE_ERR_NOT_FOUND);
}

static void names_have_a_limit(void **state)
{
    char name[16];

    (void)state;
    for (int i = 0; i + 1 < CATALOGUE_MAX_SETS; i++) {
        (void)snprintf(name, sizeof name, "s%d", i);
        change((catalogue_change){.op = CATALOGUE_DEFINE, .word = name});
    }
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_DEFINE, .word = "more"}), MOE_ERR_BUSY);
    assert_contains(why.text, "the limit is 64");
}

static void rollbacks_go_back_as_far_as_is_kept(void **state)
{
    const catalogue_expert e = {0, 0};

    (void)state;
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ROLLBACK}), MOE_ERR_NOT_FOUND);
    for (int i = 0; i < CATALOGUE_MAX_PREVIOUS; i++) {
        change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &e, .n_experts = 1});
        change((catalogue_change){.op = CATALOGUE_RESTORE});
    }
    assert_int_equal(catalogue_n_former(now), CATALOGUE_MAX_PREVIOUS);
    for (int i = 0; i < CATALOGUE_MAX_PREVIOUS; i++) {
        change((catalogue_change){.op = CATALOGUE_ROLLBACK});
        assert_default(i % 2 == 0 ? "1-4|0-4|0-4" : "0-4|0-4|0-4");
    }
    assert_int_equal(begin((catalogue_change){.op = CATALOGUE_ROLLBACK}), MOE_ERR_NOT_FOUND);
}

static void the_log_keeps_the_latest(void **state)
{
    (void)state;
    for (int i = 0; i < CATALOGUE_MAX_LOG; i++) {
        change((catalogue_change){.op = CATALOGUE_DEFINE, .word = "x"});
        assert_ok(begin((catalogue_change){.op = CATALOGUE_FORGET, .word = "x"}), why);
    }
    assert_int_equal(catalogue_n_entries(now), CATALOGUE_MAX_LOG);
    assert_int_equal(catalogue_entry_at(now, CATALOGUE_MAX_LOG - 1)->number, 2 * CATALOGUE_MAX_LOG);
}

static void requests_put_packs_in_and_leave_them_out(void **state)
{
    const char *const with[] = {"german"}, *const none[] = {"klingon"}, *const all[] = {"base"};
    router_set *set = NULL;

    (void)state;
    add(german());
    assert_ok(catalogue_resolve(now, NULL, 0, with, 1, NULL, 0, &set, &why), why);
    assert_set(set, "0-4|0-4|0-4");
    assert_ok(catalogue_check_wanted(now, set, clock_ms, 0, &why), why);
    router_set_unref(set);
    assert_int_equal(catalogue_resolve(now, none, 1, NULL, 0, NULL, 0, &set, &why), MOE_ERR_NOT_FOUND);
    assert_int_equal(catalogue_resolve(now, NULL, 0, all, 1, NULL, 0, &set, &why), MOE_ERR_INVALID_ARG);
    change((catalogue_change){.op = CATALOGUE_REMOVE, .word = "german"});
    assert_ok(catalogue_resolve(now, with, 1, NULL, 0, NULL, 0, &set, &why), why);
    assert_set(set, "0-6|0-4|0-5");
    assert_ok(catalogue_check_wanted(now, set, clock_ms, 10, &why), why);
    assert_int_equal(catalogue_check_wanted(now, set, clock_ms + 11, 10, &why), MOE_ERR_NOT_FOUND);
    assert_contains(why.text, "expert 5 of layer 0");
    router_set_unref(set);
}

static void requests_leave_single_experts_out(void **state)
{
    const char *const german_[] = {"german"};
    const catalogue_expert without[] = {{0, 1}, {2, 5}}, gone[] = {{0, 99}}, all[] = {{0, 0}, {0, 1}, {0, 2}, {0, 3}};
    router_set *set = NULL;

    (void)state;
    add(german());
    assert_ok(catalogue_resolve(now, NULL, 0, NULL, 0, without, 2, &set, &why), why);
    assert_set(set, "0,2-6|0-4|0-4");
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = without, .n_experts = 2});
    assert_string_equal(router_set_id(catalogue_default(now)), router_set_id(set)); /* scored before it is pruned */
    router_set_unref(set);
    assert_int_equal(catalogue_resolve(now, NULL, 0, NULL, 0, without, 1, &set, &why), MOE_ERR_INVALID_ARG);
    assert_int_equal(catalogue_resolve(now, NULL, 0, NULL, 0, gone, 1, &set, &why), MOE_ERR_INVALID_ARG);
    assert_int_equal(catalogue_resolve(now, NULL, 0, german_, 1, all + 2, 2, &set, &why), MOE_OK);
    router_set_unref(set);
    assert_int_equal(catalogue_resolve(now, NULL, 0, german_, 1, all, 4, &set, &why), MOE_ERR_INVALID_ARG);
}

static void experts_know_their_pack(void **state)
{
    uint32_t place = 9;

    (void)state;
    add(german());
    assert_null(catalogue_pack_of(now, 0, 4, NULL));
    assert_null(catalogue_pack_of(now, 0, 7, NULL));
    assert_string_equal(catalogue_pack_of(now, 0, 6, &place)->name, "german");
    assert_int_equal(place, 1);
}

static void little_used_experts_are_chosen(void **state)
{
    const uint64_t rows[18] = {50, 1, 30, 0, 0, 10, 10, 10, 10, 0, 0, 0, 0, 0, 0, 4, 15, 0};
    catalogue_prune_rule rule = {.below = 0.05, .rows = rows, .n_slots = 18};
    catalogue_expert *chosen = NULL;
    size_t n = 0;

    (void)state;
    add(german());
    assert_ok(catalogue_choose(now, &rule, &chosen, &n, &why), why);
    assert_int_equal(n, 3); /* of 100 rows of layer 0: 3 had none, 1 one, 5 four; 4 is the coordinator's */
    assert_int_equal(chosen[0].id, 3);
    assert_int_equal(chosen[1].id, 1);
    assert_int_equal(chosen[2].id, 5);
    free(chosen);
    rule.pack = "german";
    assert_ok(catalogue_choose(now, &rule, &chosen, &n, &why), why);
    assert_int_equal(n, 1);
    free(chosen);
    rule.pack = NULL;
    rule.keep_at_least = 6;
    assert_ok(catalogue_choose(now, &rule, &chosen, &n, &why), why);
    assert_int_equal(n, 1);
    free(chosen);
    rule.below = 0;
    rule.keep_at_least = 0;
    assert_ok(catalogue_choose(now, &rule, &chosen, &n, &why), why);
    assert_int_equal(n, 1); /* what had no row goes whatever the share */
    assert_int_equal(chosen[0].id, 3);
    free(chosen);
    rule.below = 2;
    assert_int_equal(catalogue_choose(now, &rule, &chosen, &n, &why), MOE_ERR_INVALID_ARG);
}

/* ------------------------------------------------------------------------------------------------ the record */
static void the_record_says_all(void **state)
{
    const catalogue_expert e = {0, 0};
    catalogue_pack p = pack_of("french", "1", 'b', french_layers, 2, 2);

    (void)state;
    add(german());
    add(fix());
    change((catalogue_change){.op = CATALOGUE_DEFINE, .word = "both", .why = "\"quoted\" \xc3\xa4"});
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = &e, .n_experts = 1});
    assert_ok(begin((catalogue_change){.op = CATALOGUE_ADD, .pack = &p}), why);
    char *text = text_of(now);
    catalogue *c = read_back(text, NULL);
    char *again = text_of(c);
    assert_string_equal(again, text);
    free(again);
    assert_int_equal(router_space_n_slots(catalogue_space(c)), router_space_n_slots(catalogue_space(now)));
    assert_string_equal(router_set_id(catalogue_default(c)), router_set_id(catalogue_default(now)));
    assert_true(catalogue_pack_at(c, 1)->active);
    assert_false(catalogue_pack_at(c, 2)->active);
    catalogue *d = read_back(text, c);
    assert_ptr_equal(catalogue_space(d), catalogue_space(c));
    assert_ptr_equal(catalogue_default(d), catalogue_default(c));
    assert_ptr_equal(catalogue_get_pending(d)->target, catalogue_get_pending(c)->target);
    free(text);
    become(c);
    commit();
    assert_default("2,4-9|0-5|1-6");
    catalogue_unref(d);
}

static void a_set_is_read_of_a_file(void **state)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {{"{}", "experts: must be a list"},
                 {"{\"layers\":[\"0-4\",\"0-4\"]}", "2 layers; the model has 3"},
                 {"{\"layers\":[\"0-4\",\"0\",\"0-4\"]}", "layer 1"},
                 {"{\"layers\":[\"0-4\",\"0-7\",\"0-4\"]}", "of experts that there are"},
                 {"{\"layers\":[\"0-4\",{\"layer\":2,\"experts\":\"0-4\"},\"0-4\"]}", "layer 1 is not where"},
                 {"{\"layers\":[\"0-4\",7,\"0-4\"]}", "layer 1 is no text"},
                 {"{\"experts\":[{\"layer\":0,\"ids\":[0,7]},\"0-4\",\"0-4\"]}", "layer 0: ids[1]"}};
    const char listed[] =
        "{\"sets\":[{\"id\":\"x\",\"experts\":[{\"layer\":0,\"ids\":[0,5,6]},{\"layer\":1,\"ids\":[1,2]},"
        "{\"layer\":2,\"ids\":[4,5]}]}],\"pending\":\"\"}";
    const char text[] = "{\"id\":\"x\",\"layers\":[\"0-1,5\",{\"layer\":1,\"experts\":\"2-4\"},\"0,4\"]}";
    router_set *set = NULL;

    (void)state;
    add(german());
    assert_ok(catalogue_read_set(now, text, strlen(text), &set, &why), why);
    assert_set(set, "0-1,5|2-4|0,4");
    router_set_unref(set);
    assert_ok(catalogue_read_set(now, listed, strlen(listed), &set, &why), why);
    assert_set(set, "0,5-6|1-2|4-5");
    router_set_unref(set);
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        assert_int_not_equal(catalogue_read_set(now, wrong[i].text, strlen(wrong[i].text), &set, &why), MOE_OK);
        assert_contains(why.text, wrong[i].says);
    }
}

static void a_checkpoint_may_route_to_some_of_its_experts(void **state)
{
    test_folder folder;
    catalogue_model m = base;
    catalogue *next = NULL;
    router_set *set = NULL;

    (void)state;
    test_folder_open(&folder);
    assert_ok(catalogue_read_own(&base, test_folder_path(&folder, ""), &m.own, &why), why);
    assert_set(m.own, "0-4|0-4|0-4"); /* no file: all */
    router_set_unref(m.own);
    test_write_text(test_folder_path(&folder, CATALOGUE_OWN_FILE), "{\"layers\":[\"0-2,4\",\"0-4\"]}");
    assert_int_equal(catalogue_read_own(&base, test_folder_path(&folder, ""), &m.own, &why), MOE_ERR_CORRUPT);
    assert_contains(why.text, CATALOGUE_OWN_FILE ": sets: 2 layers");
    test_write_text(test_folder_path(&folder, CATALOGUE_OWN_FILE), "{\"layers\":[\"0-2,4\",\"0-4\",\"1-3\"]}");
    assert_ok(catalogue_read_own(&base, test_folder_path(&folder, ""), &m.own, &why), why);
    assert_ok(catalogue_open(&m, &next, &why), why);
    router_set_unref(m.own);
    become(next);
    assert_default("0-2,4|0-4|1-3");
    assert_ok(catalogue_find_set(now, "base", &set, &why), why);
    assert_ptr_equal(set, catalogue_default(now));
    router_set_unref(set);
    add(german());
    change((catalogue_change){.op = CATALOGUE_PRUNE, .experts = (catalogue_expert[]){{0, 1}}, .n_experts = 1});
    change((catalogue_change){.op = CATALOGUE_RESTORE});
    assert_default("0-2,4-6|0-4|1-3,5");
    test_folder_close(&folder);
}

/* Every edit makes it one that nobody wrote. */
static void a_record_that_is_wrong_is_refused(void **state)
{
    static const struct {
        const char *from, *to, *why;
    } edits[] = {
        {"{\"v\":1", "{\"v\":2", "v: 2"},
        {"{\"v\":1", "{\"w\":1", "v: is missing"},
        {"[0,2,5]", "[0,2,6]", "other ids"},
        {"[0,2,5]", "[0,2000,5]", "[layer, number, first id]"},
        {"[0,2,5]", "[7,2,5]", "layer 7"},
        {"\"german\"", "\"ger man\"", "no name for a pack"},
        {"aaaaaaaa", "Aaaaaaaa", "64 hex digits"},
        {"\"0-6\"", "\"0-7\"", "that there are"},
        {"\"0-6\"", "\"0-5\"", "is not the id of its experts"},
        {"\"0-6\"", "\"6-0\"", "ascending"},
        {"\"0-6\"", "\"0-6,\"", "ascending"},
        {"\"0-6\"", "\"00-6\"", "ascending"},
        {"\"0-6\"", "\"0\"", "at least 2"},
        {"\"name\":\"mine\"", "\"name\":\"base\"", "no name"},
        {"\"default\":\"", "\"default\":\"0", "default"},
        {"\"log\":[{\"number\":1", "\"log\":[{\"number\":9", "does not ascend"},
        {"\"since\":", "\"since\":-", "since"},
        {"\"who\":\"tester\"", "\"who\":7", "who"},
        {"\"kind\":\"add\"", "\"kind\":\"subtract\"", "add or replace"},
        {"\"former\":[", "\"former\":[7,", "until"},
        {"}]}", "}]", "line"},
    };
    char edited[1 << 14];

    (void)state;
    add(german());
    change((catalogue_change){.op = CATALOGUE_DEFINE, .word = "mine"});
    char *text = text_of(now);
    for (size_t i = 0; i < MOE_COUNT(edits); i++) {
        const char *at = strstr(text, edits[i].from);
        catalogue *c = NULL;

        assert_non_null(at);
        (void)snprintf(edited, sizeof edited, "%.*s%s%s", (int)(at - text), text, edits[i].to,
                       at + strlen(edits[i].from));
        assert_int_not_equal(catalogue_read(&base, edited, strlen(edited), NULL, &c, &why), MOE_OK);
        assert_null(c);
        assert_contains(why.text, edits[i].why);
    }
    free(text);
}

static void a_catalogue_that_is_too_long_is_not_begun(void **state)
{
    static catalogue_pack_layer layers[LAYERS];
    static int32_t replaced[FFN] = {0, 1, 2, 3};
    moe_status status = MOE_OK;

    (void)state;
    for (uint32_t l = 0; l < LAYERS; l++) {
        layers[l] = (catalogue_pack_layer){.layer = l, .n_experts = FFN, .replaces = replaced};
    }
    for (int i = 0; i < CATALOGUE_MAX_PACKS + 1 && status == MOE_OK; i++) {
        catalogue_pack p = pack_of("p", "1", 'a', layers, LAYERS, (size_t)LAYERS * FFN);

        (void)snprintf(p.hash, sizeof p.hash, "%064x", i);
        status = begin(i == 0 ? (catalogue_change){.op = CATALOGUE_ADD, .pack = &p}
                              : (catalogue_change){.op = CATALOGUE_UPDATE, .word = "p", .pack = &p});
        if (status == MOE_OK) {
            commit();
        }
    }
    assert_int_equal(status, MOE_ERR_BUSY);
    char *text = text_of(now);
    catalogue_unref(read_back(text, NULL));
    free(text);
}

static void the_experts_of_all_packs_are_bounded(void **state)
{
    static catalogue_pack_layer layers[LAYERS];
    const size_t each = (size_t)LAYERS * CATALOGUE_MAX_EXPERTS;

    (void)state;
    for (uint32_t l = 0; l < LAYERS; l++) {
        layers[l] = (catalogue_pack_layer){.layer = l, .n_experts = CATALOGUE_MAX_EXPERTS};
    }
    for (size_t i = 0; i <= CATALOGUE_MAX_ADDED / each; i++) {
        catalogue_pack p = pack_of("p", "1", 'a', layers, LAYERS, each);

        (void)snprintf(p.hash, sizeof p.hash, "%064zx", i);
        moe_status status = begin(i == 0 ? (catalogue_change){.op = CATALOGUE_ADD, .pack = &p}
                                         : (catalogue_change){.op = CATALOGUE_UPDATE, .word = "p", .pack = &p});
        assert_int_equal(status, i < CATALOGUE_MAX_ADDED / each ? MOE_OK : MOE_ERR_BUSY);
        if (status == MOE_OK) {
            commit();
        }
    }
    assert_contains(why.text, "the limit is 65536");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_catalogue_routes_to_the_checkpoint),
        TEST(a_pack_is_pending_until_it_is_committed),
        TEST(adding_and_removing_lengthens_nothing),
        TEST(an_undone_change_leaves_the_reason_and_its_ids),
        TEST(one_change_at_a_time),
        TEST(experts_that_replace_others_take_their_places),
        TEST(what_is_replaced_must_be_there),
        TEST(an_update_is_one_change),
        TEST(pruned_experts_come_back),
        TEST(only_what_is_active_can_be_restored),
        TEST(no_layer_gets_fewer_than_a_token_picks),
        TEST(experts_that_are_not_there_are_refused),
        TEST(sets_get_names_and_lose_them),
        TEST(names_have_a_limit),
        TEST(rollbacks_go_back_as_far_as_is_kept),
        TEST(the_log_keeps_the_latest),
        TEST(requests_put_packs_in_and_leave_them_out),
        TEST(requests_leave_single_experts_out),
        TEST(experts_know_their_pack),
        TEST(little_used_experts_are_chosen),
        TEST(the_record_says_all),
        TEST(a_set_is_read_of_a_file),
        TEST(a_checkpoint_may_route_to_some_of_its_experts),
        TEST(a_record_that_is_wrong_is_refused),
        TEST(a_catalogue_that_is_too_long_is_not_begun),
        TEST(the_experts_of_all_packs_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
