/* The real API over the fake engine, driven by tests/integration/api_test.py: flags are name=value, then one command
 * per line on standard input, each answered by one line. Ends when standard input does. */
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

/* True: go on. "close MS" ends with that grace. */
static bool obey(const char *line, engine *e, fake_cluster *c, api_server *s, uint32_t *grace_ms)
{
    unsigned value;

    if (sscanf(line, "ready %u", &value) == 1) {
        fake_engine_set_ready(e, value != 0);
    } else if (sscanf(line, "freeze %u", &value) == 1) {
        fake_engine_freeze(e, value != 0);
    } else if (sscanf(line, "node %u", &value) == 1) {
        fake_cluster_set_state(c, (api_view_node_state)value);
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
                           .services = number(argc, argv, "services"),
                           .max_calls = number(argc, argv, "max_calls"),
                           .send_timeout_ms = number(argc, argv, "send_timeout_ms"),
                           .first_message_ms = number(argc, argv, "first_message_ms")};
    api_http_options http_options = {.listen = "127.0.0.1:0", .model_name = "fake-model", .live_timeout_ms = 300};
    api_server *server;
    api_http *http;
    moe_error err;
    char line[128];
    uint32_t grace_ms = 1000;

    signal(SIGPIPE, SIG_IGN);
    engine *e = fake_engine_open(&service_options);
    fake_cluster *c = fake_cluster_open();
    if (options.listen == NULL) {
        options.listen = "127.0.0.1:0";
    }
    if (api_server_open(&options, e, fake_cluster_view(c), &server, &err) != MOE_OK) {
        printf("REFUSED %s\n", err.text);
        fake_engine_close(e);
        fake_cluster_close(c);
        return 1;
    }
    moe_status status = api_http_open(&http_options, e, fake_cluster_view(c), server, &http, &err);
    MOE_ASSERT(status == MOE_OK);
    printf("READY %u %u\n", api_server_port(server), api_http_port(http));
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL && obey(line, e, c, server, &grace_ms)) {
        fflush(stdout);
    }
    api_http_close(http);
    api_server_close(server, grace_ms);
    printf("CLOSED\n");
    fake_engine_close(e);
    fake_cluster_close(c);
    return 0;
}
