/* Packs: what is taken, and every way in which one can be wrong. */
#include "tests/support/support.h"

#include <stdlib.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "pack/pack.h"

enum { D_MODEL = 4, D_FF = 3, N_LAYERS = 3, N_FFN = 4, N_LOCAL = 2 };

static unsigned char fingerprint[32] = {0xab, 0xcd};

/* A pack's directory: tensors and a manifest that fits them, before it is spoilt. */
typedef struct scene {
    model_config config;
    test_folder folder;
    test_tensors *tensors;
    moe_text layers, listed;
    const char *kind;
} scene;

static void scene_open(scene *s, const char *family, const char *kind)
{
    *s = (scene){.config = {.n_layers = N_LAYERS,
                            .d_model = D_MODEL,
                            .d_ff = D_FF,
                            .n_experts = N_FFN,
                            .n_ffn_experts = N_FFN,
                            .gate_kind = MODEL_GATE_LINEAR,
                            .ffn = COMPUTE_FFN_SWIGLU},
                 .tensors = test_tensors_open(),
                 .kind = kind};
    (void)snprintf(s->config.model_type, sizeof s->config.model_type, "%s", family);
    test_folder_open(&s->folder);
    moe_text_init(&s->layers, 1 << 16);
    moe_text_init(&s->listed, 1 << 16);
}

static void scene_close(scene *s)
{
    test_tensors_close(s->tensors);
    moe_text_fini(&s->layers);
    moe_text_fini(&s->listed);
    test_folder_close(&s->folder);
}

/* [rows, columns] of values that differ from tensor to tensor; bad: the last one is infinite. */
static void add_matrix(scene *s, const char *name, const char *dtype, size_t rows, size_t columns, bool bad)
{
    size_t shape[] = {rows, columns}, n = rows * columns, width = strcmp(dtype, "F32") == 0 ? 4 : 2;
    unsigned char *bytes = calloc(n, width);
    char hex[65];

    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0x3f800000u + ((uint32_t)(i + 7 * strlen(name) + (unsigned char)name[0]) << 18);

        bits = bad && i + 1 == n ? 0x7f800000u : bits;
        bits = width == 2 ? bits >> 16 : bits;
        memcpy(bytes + i * width, &bits, width);
    }
    test_tensors_add(s->tensors, name, dtype, shape, 2, bytes, n * width);
    checkpoint_digest digest = checkpoint_sha256(bytes, n * width);
    checkpoint_digest_hex(&digest, hex);
    moe_text_printf(&s->listed, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu,%zu],\"sha256\":\"%s\"}",
                    s->listed.size > 0 ? "," : "", name, dtype, rows, columns, hex);
    free(bytes);
}

static void add_expert(scene *s, uint32_t layer, unsigned i, bool last)
{
    char name[64];
    const char *const roles[] = {"gate", "up", "down"};
    bool has_gate = s->config.ffn == COMPUTE_FFN_SWIGLU;

    moe_text_printf(&s->layers, "{");
    for (size_t r = has_gate ? 0 : 1; r < 3; r++) {
        (void)snprintf(name, sizeof name, "%u.%u.%s", layer, i, roles[r]);
        add_matrix(s, name, "BF16", r == 2 ? D_MODEL : D_FF, r == 2 ? D_FF : D_MODEL, false);
        moe_text_printf(&s->layers, "\"%s\":\"%s\"%s", roles[r], name, r < 2 ? "," : "");
    }
    if (strcmp(s->kind, "replace") == 0) {
        moe_text_printf(&s->layers, ",\"replaces\":%u", i);
    }
    moe_text_printf(&s->layers, "}%s", last ? "" : ",");
}

static void add_layer(scene *s, uint32_t layer, unsigned n, size_t width)
{
    char name[32];

    moe_text_printf(&s->layers, "%s{\"layer\":%u,\"experts\":[", s->layers.size > 0 ? "," : "", layer);
    for (unsigned i = 0; i < n; i++) {
        add_expert(s, layer, i, i + 1 == n);
    }
    moe_text_printf(&s->layers, "]");
    if (strcmp(s->kind, "add") == 0) {
        (void)snprintf(name, sizeof name, "%u.router", layer);
        add_matrix(s, name, "F32", n, width, false);
        moe_text_printf(&s->layers, ",\"router\":\"%s\"", name);
    }
}

static void end_layer(scene *s)
{
    moe_text_printf(&s->layers, "}");
}

/* The whole manifest. The caller frees it. */
static char *manifest_of(const scene *s)
{
    moe_text out;
    checkpoint_digest base;
    char hex[65];

    memcpy(base.bytes, fingerprint, sizeof base.bytes);
    checkpoint_digest_hex(&base, hex);
    moe_text_init(&out, 1 << 18);
    moe_text_printf(
        &out,
        "{\"v\":1,\"kind\":\"%s\",\"name\":\"german\",\"version\":\"1.2\",\"family\":\"%s\",\"base\":\"%s\","
        "\"licence\":\"none\",\"layers\":[%s],\"tensors\":{%s},\"provenance\":{\"seed\":7},"
        "\"evaluation\":null}",
        s->kind, s->config.model_type, hex, moe_text_cstr((moe_text *)(uintptr_t)&s->layers),
        moe_text_cstr((moe_text *)(uintptr_t)&s->listed));
    char *copy = strdup(moe_text_cstr(&out));
    moe_text_fini(&out);
    return copy;
}

static void save(const scene *s, const char *file, const void *bytes, size_t n)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", s->folder.path, file);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void save_tensors(const scene *s)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/model.safetensors", s->folder.path);
    test_tensors_save(s->tensors, path);
}

static moe_status open_saved(const scene *s, const pack_options *o, pack **out, moe_error *err)
{
    const pack_base base = {.config = &s->config, .fingerprint = fingerprint, .dtype = COMPUTE_BF16};

    *out = NULL;
    return pack_open(s->folder.path, &base, o, out, err);
}

/* Two layers of OLMoE: two new experts in the first, one in the last. */
static void scene_of_olmoe(scene *s, const char *kind)
{
    scene_open(s, "olmoe", kind);
    add_layer(s, 0, 2, D_MODEL);
    end_layer(s);
    add_layer(s, 2, 1, D_MODEL);
    end_layer(s);
}

static char *save_all(const scene *s)
{
    char *manifest = manifest_of(s);

    save(s, "pack.json", manifest, strlen(manifest));
    save_tensors(s);
    return manifest;
}

static size_t last_done, last_total;
static void on_progress(void *ctx, size_t done, size_t total)
{
    (void)ctx;
    assert_true(done > last_done);
    last_done = done;
    last_total = total;
}

static void a_sound_pack_is_taken_whole(void **state)
{
    const pack_options o = {.progress = on_progress};
    scene s;
    pack *p;
    moe_error err;
    char hex[65];

    (void)state;
    scene_of_olmoe(&s, "add");
    char *manifest = save_all(&s);
    last_done = 0;
    assert_ok(open_saved(&s, &o, &p, &err), err);
    checkpoint_digest hash = checkpoint_sha256(manifest, strlen(manifest));
    checkpoint_digest_hex(&hash, hex);
    assert_string_equal(pack_hash(p), hex);
    assert_string_equal(pack_name(p), "german");
    assert_string_equal(pack_version(p), "1.2");
    assert_string_equal(pack_licence(p), "none");
    assert_int_equal(pack_get_kind(p), PACK_ADD);
    assert_int_equal(pack_n_layers(p), 2);
    assert_int_equal(pack_n_experts(p), 3);
    assert_int_equal(last_done, pack_bytes(p));
    assert_int_equal(last_total, pack_bytes(p));
    const pack_layer *l = pack_at(p, 1);
    assert_int_equal(l->layer, 2);
    assert_int_equal(l->n_experts, 1);
    assert_string_equal(l->router->name, "2.router");
    assert_string_equal(l->experts[0].down->name, "2.0.down");
    assert_int_equal(l->experts[0].replaces, -1);
    assert_null(l->map_rows);
    assert_memory_not_equal(pack_at(p, 0)->experts[0].hash, pack_at(p, 0)->experts[1].hash, 32);
    pack_close(p);
    free(manifest);
    scene_close(&s);
}

static void experts_are_replaced_without_router_rows(void **state)
{
    scene s;
    pack *p;
    moe_error err;

    (void)state;
    scene_of_olmoe(&s, "replace");
    free(save_all(&s));
    assert_ok(open_saved(&s, NULL, &p, &err), err);
    assert_int_equal(pack_get_kind(p), PACK_REPLACE);
    assert_int_equal(pack_at(p, 0)->experts[1].replaces, 1);
    assert_null(pack_at(p, 0)->router);
    pack_close(p);
    scene_close(&s);
}

/* MoLM: no gate matrix, and rows of the second layer of a gate of two. */
static void experts_of_two_matrices_and_gates_of_two_layers(void **state)
{
    scene s;
    pack *p;
    moe_error err;

    (void)state;
    scene_open(&s, "moduleformer", "add");
    s.config.ffn = COMPUTE_FFN_GELU_TANH;
    s.config.gate_kind = MODEL_GATE_GELU;
    s.config.gate_width = 5;
    add_layer(&s, 1, 2, 5);
    end_layer(&s);
    free(save_all(&s));
    assert_ok(open_saved(&s, NULL, &p, &err), err);
    assert_null(pack_at(p, 0)->experts[0].gate);
    assert_int_equal(pack_at(p, 0)->router->shape[1], 5);
    pack_close(p);
    scene_close(&s);
}

/* Two attention experts beside one expert, of a model whose q and o are 6 wide. */
static void scene_of_attention(scene *s, const char *kind)
{
    scene_open(s, "moduleformer", kind);
    s->config.ffn = COMPUTE_FFN_GELU_TANH;
    s->config.n_att_experts = 3;
    s->config.n_heads = 2;
    s->config.head_dim = 3;
    add_layer(s, 1, 1, D_MODEL);
    add_matrix(s, "a.router", "F32", 2, D_MODEL, false);
    add_matrix(s, "a.0.q", "BF16", 6, D_MODEL, false);
    add_matrix(s, "a.0.o", "BF16", D_MODEL, 6, false);
    add_matrix(s, "a.1.q", "BF16", 6, D_MODEL, false);
    add_matrix(s, "a.1.o", "BF16", D_MODEL, 6, false);
    moe_text_printf(&s->layers,
                    ",\"attention\":{\"router\":\"a.router\",\"experts\":[{\"q\":\"a.0.q\",\"o\":\"a.0.o\"},"
                    "{\"q\":\"a.1.q\",\"o\":\"a.1.o\"}]}");
    end_layer(s);
}

static void attention_experts_come_with_experts(void **state)
{
    scene s;
    pack *p;
    moe_error err;
    const pack_options o = {.router_only = true};

    (void)state;
    scene_of_attention(&s, "add");
    free(save_all(&s));
    for (int router_only = 0; router_only < 2; router_only++) { /* both need them */
        assert_ok(open_saved(&s, router_only ? &o : NULL, &p, &err), err);
        assert_int_equal(pack_n_attention(p), 2);
        assert_int_equal(pack_n_experts(p), 1);
        assert_int_equal(pack_at(p, 0)->n_attention, 2);
        assert_string_equal(pack_at(p, 0)->attention_router->name, "a.router");
        assert_string_equal(pack_at(p, 0)->attention[1].o->name, "a.1.o");
        assert_int_equal(pack_at(p, 0)->experts[0].up == NULL, router_only);
        pack_close(p);
    }
    scene_close(&s);
}

/* What a coordinator asks for. */
static void contents_say_what_stays_in_coordinators(void **state)
{
    scene s;
    pack_contents *c;
    moe_error err;

    (void)state;
    scene_of_attention(&s, "add");
    const pack_base base = {.config = &s.config, .fingerprint = fingerprint, .dtype = COMPUTE_BF16};
    char *manifest = manifest_of(&s);
    assert_ok(pack_contents_read(manifest, strlen(manifest), &base, &c, &err), err);
    for (size_t i = 0; i < pack_contents_n(c); i++) {
        const pack_content *t = pack_contents_at(c, i);
        assert_int_equal(t->is_router, strcmp(t->name, "1.0.up") != 0 && strcmp(t->name, "1.0.down") != 0);
    }
    pack_contents_close(c);
    free(manifest);
    scene_close(&s);
}

/* MoE++: rows of the map reach the experts of the pack in the layer before, and columns come from them. */
static void a_gate_map_has_rows_and_columns_of_new_experts(void **state)
{
    scene s;
    pack *p;
    moe_error err;

    (void)state;
    scene_open(&s, "moe++", "add");
    s.config.gate_map = true;
    s.config.n_experts = N_FFN + N_LOCAL;
    add_layer(&s, 0, 2, D_MODEL);
    end_layer(&s);
    add_layer(&s, 1, 1, D_MODEL);
    add_matrix(&s, "1.rows", "F32", 1, N_FFN + N_LOCAL + 2, false);
    add_matrix(&s, "1.columns", "F32", N_FFN + N_LOCAL, 2, false);
    moe_text_printf(&s.layers, ",\"map_rows\":\"1.rows\",\"map_columns\":\"1.columns\"");
    end_layer(&s);
    free(save_all(&s));
    assert_ok(open_saved(&s, NULL, &p, &err), err);
    assert_null(pack_at(p, 0)->map_rows);
    assert_string_equal(pack_at(p, 1)->map_rows->name, "1.rows");
    assert_string_equal(pack_at(p, 1)->map_columns->name, "1.columns");
    pack_close(p);
    scene_close(&s);
}

/* The first place of `find` becomes `put`. The caller frees it. */
static char *with(const char *text, const char *find, const char *put)
{
    const char *at = strstr(text, find);
    moe_text out;

    assert_non_null(at);
    moe_text_init(&out, 1 << 18);
    moe_text_printf(&out, "%.*s%s%s", (int)(at - text), text, put, at + strlen(find));
    char *copy = strdup(moe_text_cstr(&out));
    moe_text_fini(&out);
    return copy;
}

static void refused(const scene *s, const pack_options *o, moe_status status, const char *why)
{
    pack *p;
    moe_error err = {""};

    assert_int_equal(open_saved(s, o, &p, &err), status);
    assert_null(p);
    assert_contains(err.text, why);
}

static void wrong_attention_experts_are_refused_by_name(void **state)
{
    static const struct {
        const char *find, *put, *why;
    } wrong[] = {
        {"\"attention\":{", "\"attention\":[],\"x\":{", "layers[0]: unknown key \"x\""},
        {"\"attention\":{", "\"attention\":{\"bias\":1,", "layer 1.attention: unknown key \"bias\""},
        {"\"router\":\"a.router\",\"experts\":[{\"q\"", "\"router\":\"a.router\",\"experts\":[],\"y\":[{\"q\"",
         "layer 1.attention: unknown key \"y\""},
        {"[{\"q\":\"a.0.q\",\"o\":\"a.0.o\"},{\"q\":\"a.1.q\",\"o\":\"a.1.o\"}]", "[]",
         "layer 1.attention.experts: must be an array of 1 to 1024"},
        {"[{\"q\":\"a.0.q\",\"o\":\"a.0.o\"},{\"q\":\"a.1.q\",\"o\":\"a.1.o\"}]", "7",
         "layer 1.attention.experts: must be an array"},
        {"[{\"q\":\"a.0.q\",", "[{", "layer 1 attention expert 0.q: must be a text"},
        {"\"o\":\"a.1.o\"", "\"o\":\"a.1.o\",\"k\":1", "layer 1 attention expert 1: unknown key \"k\""},
        {"\"o\":\"a.1.o\"", "\"o\":\"a.2.o\"", "the files have no tensor a.2.o"},
        {"\"o\":\"a.1.o\"", "\"o\":\"a.0.o\"", "a.0.o is named twice"},
        {"\"o\":\"a.1.o\"", "\"o\":\"a.1.q\"", "named twice"},
        {"{\"q\":\"a.0.q\",\"o\":\"a.0.o\"}", "{\"q\":\"a.0.o\",\"o\":\"a.0.q\"}",
         "tensor a.0.o must have the shape [6, 4]"},
        {"\"router\":\"a.router\",", "", "layer 1.attention.router: must be a text"},
        {",{\"q\":\"a.1.q\",\"o\":\"a.1.o\"}]", "]", "tensor a.router must have the shape [1, 4]"},
    };
    scene s;

    (void)state;
    scene_of_attention(&s, "add");
    char *sound = save_all(&s);
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        char *spoilt = with(sound, wrong[i].find, wrong[i].put);

        save(&s, "pack.json", spoilt, strlen(spoilt));
        refused(&s, NULL, MOE_ERR_INVALID_ARG, wrong[i].why);
        free(spoilt);
    }
    save(&s, "pack.json", sound, strlen(sound));
    s.config.n_att_experts = 0;
    refused(&s, NULL, MOE_ERR_INVALID_ARG, "layer 1.attention: this family has no attention experts");
    free(sound);
    scene_close(&s);
    scene_of_attention(&s, "replace");
    free(save_all(&s));
    refused(&s, NULL, MOE_ERR_INVALID_ARG, "layer 1.attention: only of a pack of kind add");
    scene_close(&s);
}

static void every_wrong_manifest_is_refused_by_name(void **state)
{
    static const struct {
        const char *find, *put;
        moe_status status;
        const char *why;
    } wrong[] = {
        {"{\"v\":1,", "{\"v\":1,,", MOE_ERR_CORRUPT, "line 1"},
        {"{\"v\":1,", "{\"v\":2,", MOE_ERR_INVALID_ARG, "v: 2"},
        {"{\"v\":1,", "{", MOE_ERR_INVALID_ARG, "pack.v: is missing"},
        {"{\"v\":1,", "{\"v\":1,\"colour\":3,", MOE_ERR_INVALID_ARG, "unknown key \"colour\""},
        {"\"add\"", "\"append\"", MOE_ERR_INVALID_ARG, "pack.kind"},
        {"\"german\"", "\"../german\"", MOE_ERR_INVALID_ARG, "pack.name"},
        {"\"german\"", "\"\"", MOE_ERR_INVALID_ARG, "pack.name: must be a text of 1 to 63 bytes"},
        {"\"1.2\"", "1.2", MOE_ERR_INVALID_ARG, "pack.version"},
        {"\"olmoe\"", "\"mixtral\"", MOE_ERR_DENIED, "the model is of \"olmoe\""},
        {"\"abcd0", "\"abcd1", MOE_ERR_DENIED, "this model's fingerprint is abcd0"},
        {"\"abcd0", "\"ABCD0", MOE_ERR_INVALID_ARG, "pack.base: must be 64 lower-case hex digits"},
        {"\"none\"", "7", MOE_ERR_INVALID_ARG, "licence"},
        {"\"layers\":[", "\"layers\":[],\"provenance\":[", MOE_ERR_CORRUPT, "duplicate"},
        {"{\"layer\":0,", "{\"layer\":3,", MOE_ERR_INVALID_ARG, "layer: 3"},
        {"{\"layer\":2,", "{\"layer\":0,", MOE_ERR_INVALID_ARG, "layers[1].layer"},
        {"{\"layer\":2,", "{", MOE_ERR_INVALID_ARG, "layers[1].layer"},
        {"{\"layer\":2,", "{\"layer\":2,\"weight\":1,", MOE_ERR_INVALID_ARG, "unknown key \"weight\""},
        {"\"gate\":\"0.0.gate\"", "\"gate\":\"0.0.gat\"", MOE_ERR_INVALID_ARG,
         "layer 0 expert 0.gate: the files have no"},
        {"\"gate\":\"0.0.gate\",", "", MOE_ERR_INVALID_ARG, "layer 0 expert 0.gate: must be a text"},
        {"\"gate\":\"0.0.gate\"", "\"gate\":\"0.0.down\"", MOE_ERR_INVALID_ARG, "must have the shape [3, 4]"},
        {"\"gate\":\"0.0.gate\"", "\"gate\":\"0.0.up\"", MOE_ERR_INVALID_ARG, "0.0.up is named twice"},
        {"\"down\":\"0.0.down\"", "\"down\":\"0.0.down\",\"replaces\":1", MOE_ERR_INVALID_ARG,
         "only of a pack of kind replace"},
        {"\"down\":\"0.0.down\"", "\"down\":\"0.0.down\",\"bias\":\"b\"", MOE_ERR_INVALID_ARG, "unknown key \"bias\""},
        {"\"router\":\"0.router\"", "\"router\":\"2.router\"", MOE_ERR_INVALID_ARG,
         "layer 0.router: tensor 2.router must have the shape [2, 4]"},
        {",\"router\":\"0.router\"", "", MOE_ERR_INVALID_ARG, "layer 0.router: must be a text"},
        {"\"router\":\"2.router\"", "\"router\":\"2.router\",\"map_rows\":\"m\"", MOE_ERR_INVALID_ARG,
         "layer 2.map_rows: there is none"},
        {"\"dtype\":\"BF16\"", "\"dtype\":\"F16\"", MOE_ERR_INVALID_ARG, "dtype: is not the file's"},
        {"\"shape\":[3,4]", "\"shape\":[4,3]", MOE_ERR_INVALID_ARG, "shape: is not the file's"},
        {"\"sha256\":\"", "\"sha256\":\"0", MOE_ERR_INVALID_ARG, "sha256: must be"},
        {"\"0.0.gate\":{", "\"0.0.other\":{", MOE_ERR_INVALID_ARG, "tensors.0.0.gate: is in no list"},
        {"\"tensors\":{", "\"tensors\":{\"more\":{},", MOE_ERR_INVALID_ARG,
         "tensors.more: the files have no such tensor"},
        {"\"tensors\":{", "\"tensors\":[],\"evaluation\":{", MOE_ERR_CORRUPT, "duplicate"},
    };
    scene s;

    (void)state;
    scene_of_olmoe(&s, "add");
    char *sound = save_all(&s);
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        char *spoilt = with(sound, wrong[i].find, wrong[i].put);

        save(&s, "pack.json", spoilt, strlen(spoilt));
        refused(&s, NULL, wrong[i].status, wrong[i].why);
        free(spoilt);
    }
    free(sound);
    scene_close(&s);
}

static void wrong_replacements_are_refused(void **state)
{
    static const struct {
        const char *find, *put, *why;
    } wrong[] = {{"\"replaces\":1", "\"replaces\":0", "expert 0 is replaced twice"},
                 {"\"replaces\":1", "\"replaces\":4", "replaces: 4"},
                 {",\"replaces\":1", "", "replaces: is missing"}};
    scene s;

    (void)state;
    scene_of_olmoe(&s, "replace");
    char *sound = save_all(&s);
    for (size_t i = 0; i < MOE_COUNT(wrong); i++) {
        char *spoilt = with(sound, wrong[i].find, wrong[i].put);

        save(&s, "pack.json", spoilt, strlen(spoilt));
        refused(&s, NULL, MOE_ERR_INVALID_ARG, wrong[i].why);
        free(spoilt);
    }
    free(sound);
    scene_close(&s);
}

static void wrong_files_are_refused(void **state)
{
    scene s;

    (void)state;
    scene_of_olmoe(&s, "add");
    refused(&s, NULL, MOE_ERR_NOT_FOUND, "pack.json");
    char *manifest = manifest_of(&s);
    save(&s, "pack.json", manifest, strlen(manifest));
    refused(&s, NULL, MOE_ERR_NOT_FOUND, "safetensors");
    add_matrix(&s, "stray", "BF16", 1, 1, false);
    save_tensors(&s);
    refused(&s, NULL, MOE_ERR_INVALID_ARG, "tensor stray: no layer names it");
    free(manifest);
    scene_close(&s);

    scene_of_olmoe(&s, "add");
    manifest = save_all(&s);
    unsigned char *image;
    size_t n;
    image = test_tensors_bytes(s.tensors, &n);
    image[n - 1] ^= 1;
    save(&s, "model.safetensors", image, n);
    refused(&s, NULL, MOE_ERR_CORRUPT, "another SHA-256");
    free(image);
    free(manifest);
    scene_close(&s);
}

static void values_must_be_finite_and_of_the_bases_dtype(void **state)
{
    scene s;

    (void)state;
    scene_open(&s, "olmoe", "add");
    add_layer(&s, 0, 1, D_MODEL);
    end_layer(&s);
    add_matrix(&s, "1.gate", "BF16", D_FF, D_MODEL, true);
    add_matrix(&s, "1.up", "BF16", D_FF, D_MODEL, false);
    add_matrix(&s, "1.down", "BF16", D_MODEL, D_FF, false);
    add_matrix(&s, "1.router", "F32", 1, D_MODEL, false);
    moe_text_printf(&s.layers, ",{\"layer\":1,\"experts\":[{\"gate\":\"1.gate\",\"up\":\"1.up\",\"down\":\"1.down\"}],"
                               "\"router\":\"1.router\"}");
    free(save_all(&s));
    refused(&s, NULL, MOE_ERR_CORRUPT, "tensor 1.gate: holds a value that is not finite");
    scene_close(&s);

    scene_open(&s, "olmoe", "add");
    add_matrix(&s, "gate", "F32", D_FF, D_MODEL, false);
    add_matrix(&s, "up", "BF16", D_FF, D_MODEL, false);
    add_matrix(&s, "down", "BF16", D_MODEL, D_FF, false);
    add_matrix(&s, "router", "F32", 1, D_MODEL, false);
    moe_text_printf(&s.layers, "{\"layer\":1,\"experts\":[{\"gate\":\"gate\",\"up\":\"up\",\"down\":\"down\"}],"
                               "\"router\":\"router\"}");
    free(save_all(&s));
    refused(&s, NULL, MOE_ERR_INVALID_ARG, "tensor gate is F32; the base's are BF16");
    scene_close(&s);
}

/* A new key: its public half goes into key.pem, and its signature of the manifest into pack.sig. */
static void sign(const scene *s, const char *manifest)
{
    char path[512];
    unsigned char signature[PACK_SIGNATURE_SIZE];
    size_t n = sizeof signature;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, key), 1);
    assert_int_equal(EVP_DigestSign(ctx, signature, &n, (const void *)manifest, strlen(manifest)), 1);
    save(s, "pack.sig", signature, n);
    (void)snprintf(path, sizeof path, "%s/key.pem", s->folder.path);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(PEM_write_PUBKEY(f, key), 1);
    assert_int_equal(fclose(f), 0);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
}

static void a_signature_is_asked_for_with_a_key(void **state)
{
    const unsigned char nobodys[PACK_SIGNATURE_SIZE] = {1};
    char path[512];
    scene s;
    pack *p;
    moe_error err;

    (void)state;
    scene_of_olmoe(&s, "add");
    char *manifest = save_all(&s);
    (void)snprintf(path, sizeof path, "%s/key.pem", s.folder.path);
    const pack_options o = {.key_file = path};
    refused(&s, &o, MOE_ERR_NOT_FOUND, "pack.sig");
    save(&s, "pack.sig", nobodys, sizeof nobodys);
    refused(&s, &o, MOE_ERR_NOT_FOUND, "key.pem");
    save(&s, "key.pem", "no key", 6);
    refused(&s, &o, MOE_ERR_INVALID_ARG, "must be an Ed25519 public key");
    sign(&s, manifest);
    assert_ok(open_saved(&s, &o, &p, &err), err);
    pack_close(p);
    save(&s, "pack.sig", nobodys, sizeof nobodys);
    refused(&s, &o, MOE_ERR_DENIED, "pack.sig: is not the signature");
    save(&s, "pack.sig", nobodys, sizeof nobodys - 1);
    refused(&s, &o, MOE_ERR_DENIED, "pack.sig: is not the signature");
    sign(&s, manifest);
    char *other = with(manifest, "\"seed\":7", "\"seed\":8");
    save(&s, "pack.json", other, strlen(other));
    refused(&s, &o, MOE_ERR_DENIED, "pack.sig: is not the signature");
    free(other);
    free(manifest);
    scene_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_pack_is_taken_whole),
        cmocka_unit_test(experts_are_replaced_without_router_rows),
        cmocka_unit_test(experts_of_two_matrices_and_gates_of_two_layers),
        cmocka_unit_test(a_gate_map_has_rows_and_columns_of_new_experts),
        cmocka_unit_test(attention_experts_come_with_experts),
        cmocka_unit_test(contents_say_what_stays_in_coordinators),
        cmocka_unit_test(wrong_attention_experts_are_refused_by_name),
        cmocka_unit_test(every_wrong_manifest_is_refused_by_name),
        cmocka_unit_test(wrong_replacements_are_refused),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(values_must_be_finite_and_of_the_bases_dtype),
        cmocka_unit_test(a_signature_is_asked_for_with_a_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
