/* The real API over the fake engine, driven by tests/integration/api_test.py: flags are name=value, then one command
 * per line on standard input, each answered by one line. Ends when standard input does. */
#include "tests/support/fake_cluster.h"
#include "tests/support/fake_engine.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char *flag(int argc, char **argv, const char *name)
{
    size_t n = strlen(name);

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=') {
            return argv[i] + n + 1;
        }
    }
    return NULL;
}

static uint32_t number(int argc, char **argv, const char *name)
{
    const char *text = flag(argc, argv, name);

    return text == NULL ? 0 : (uint32_t)strtoul(text, NULL, 10);
}

static api_loading loading;

/* What there is to command. */
typedef struct parts {
    engine *engine;
    fake_cluster *cluster;
    registry *registry;
    api_server *server;
    api_http *http;
} parts;

static void attach(const parts *p)
{
    api_server_set_engine(p->server, p->engine, fake_cluster_view(p->cluster), registry_table(p->registry));
    api_http_set_engine(p->http, p->engine, fake_cluster_view(p->cluster), registry_table(p->registry));
}

/* True: go on. "close MS" ends with that grace. */
static bool obey(const char *line, const parts *p, uint32_t *grace_ms)
{
    engine *e = p->engine;
    fake_cluster *c = p->cluster;
    api_server *s = p->server;
    unsigned value;

    if (sscanf(line, "load %u", &value) == 1) {
        api_loading_set(&loading, "loading the weights", value, 100);
    } else if (strcmp(line, "attach\n") == 0) {
        attach(p);
    } else if (sscanf(line, "ready %u", &value) == 1) {
        fake_engine_set_ready(e, value != 0);
    } else if (sscanf(line, "freeze %u", &value) == 1) {
        fake_engine_freeze(e, value != 0);
    } else if (sscanf(line, "node %u", &value) == 1) {
        fake_cluster_set_state(c, (api_view_node_state)value);
    } else if (sscanf(line, "hold %u", &value) == 1) {
        fake_engine_hold(e, value != 0);
    } else if (strcmp(line, "held\n") == 0) {
        printf("%zu\n", fake_engine_held(e));
        return true;
    } else if (strcmp(line, "encoded\n") == 0) {
        printf("%zu\n", fake_engine_encoded(e));
        return true;
    } else if (strcmp(line, "live\n") == 0) {
        printf("%zu\n", fake_engine_live(e));
        return true;
    } else if (strcmp(line, "drain\n") == 0) {
        api_server_begin_drain(s);
    } else if (sscanf(line, "close %u", grace_ms) == 1) {
        return false;
    }
    printf("ok\n");
    return true;
}

int main(int argc, char **argv)
{
    fake_options service_options = {.no_tokenizer = flag(argc, argv, "no_tokenizer") != NULL,
                                    .no_chat = flag(argc, argv, "no_chat") != NULL,
                                    .classifier = flag(argc, argv, "classifier") != NULL};
    static char *labels[FAKE_LABELS] = {"bad", "fair", "good"};
    api_options options = {.listen = flag(argc, argv, "listen"),
                           .tls_cert = flag(argc, argv, "tls_cert"),
                           .tls_key = flag(argc, argv, "tls_key"),
                           .tls_ca = flag(argc, argv, "tls_ca"),
                           .token_file = flag(argc, argv, "token_file"),
                           .insecure = flag(argc, argv, "insecure") != NULL,
                           .reflection = true,
                           .model_name = "fake-model",
                           .labels = flag(argc, argv, "labels") != NULL ? labels : NULL,
                           .loading = &loading,
                           .services = number(argc, argv, "services"),
                           .max_calls = number(argc, argv, "max_calls"),
                           .send_timeout_ms = number(argc, argv, "send_timeout_ms"),
                           .first_message_ms = number(argc, argv, "first_message_ms")};
    api_http_options http_options = {
        .listen = "127.0.0.1:0", .model_name = "fake-model", .live_timeout_ms = 300, .loading = &loading};
    moe_error err;
    char line[128];
    uint32_t grace_ms = 1000;

    signal(SIGPIPE, SIG_IGN);
    parts p = {.engine = fake_engine_open(&service_options), .cluster = fake_cluster_open()};
    p.registry = fake_registry_open(p.engine, flag(argc, argv, "no_changes"), NULL);
    const engine_info *info = engine_get_info(p.engine);
    options.max_context = info->max_context;
    options.max_requests = info->max_queue + info->max_running;
    options.tokenizer = info->tokenizer;
    if (options.listen == NULL) {
        options.listen = "127.0.0.1:0";
    }
    if (api_server_open(&options, &p.server, &err) != MOE_OK) {
        printf("REFUSED %s\n", err.text);
        registry_close(p.registry);
        fake_engine_close(p.engine);
        fake_cluster_close(p.cluster);
        return 1;
    }
    moe_status status = api_http_open(&http_options, p.server, &p.http, &err);
    MOE_ASSERT(status == MOE_OK);
    if (flag(argc, argv, "unattached") == NULL) {
        attach(&p);
    }
    printf("READY %u %u\n", api_server_port(p.server), api_http_port(p.http));
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL && obey(line, &p, &grace_ms)) {
        fflush(stdout);
    }
    api_http_close(p.http);
    api_server_close(p.server, grace_ms);
    printf("CLOSED\n");
    registry_close(p.registry);
    fake_engine_close(p.engine);
    fake_cluster_close(p.cluster);
    return 0;
}
