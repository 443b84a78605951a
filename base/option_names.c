/* Which CONCLAVE_* variables exist at all. Programs on one host share an environment, so each tolerates the variables of
 * the others and refuses the rest: a misspelt one would be ignored without a word. tests/integration/cli_options.py asks
 * the programs for their options and fails when one is missing here, or when one here is of none. */
#include "base/options_priv.h"

#include <ctype.h>
#include <string.h>

/* Options, in the order of the alphabet. */
static const char *const names[] = {
    "accept_packs",
    "add_special_tokens",
    "admin_listen",
    "admin_token_file",
    "advertise",
    "all",
    "below",
    "by",
    "cache_dir",
    "chat_template",
    "cluster",
    "config",
    "cuda_graphs",
    "default_max_tokens",
    "device",
    "device_module",
    "dispatch_timeout_ms",
    "drain_delay_ms",
    "drain_timeout_ms",
    "dry_run",
    "dtype",
    "echo",
    "etcd",
    "etcd_ca",
    "etcd_cert",
    "etcd_key",
    "etcd_password_file",
    "etcd_user",
    "exclude",
    "exclude_pack",
    "expect",
    "experts",
    "frequency_penalty",
    "gpu_frames",
    "health",
    "http",
    "id",
    "ignore_eos",
    "include",
    "insecure",
    "isa",
    "json",
    "keep_at_least",
    "keep_unused_ms",
    "kv_memory",
    "layer",
    "limit",
    "listen",
    "load_bandwidth",
    "log_format",
    "log_level",
    "logprobs",
    "max_batch_tokens",
    "max_context",
    "max_file",
    "max_queue",
    "max_running",
    "max_tokens",
    "memory",
    "metrics_experts",
    "micro_batches",
    "min_nodes",
    "min_p",
    "min_tokens",
    "model",
    "model_name",
    "n",
    "no_early_exit",
    "no_history",
    "no_prefix_cache",
    "no_reflection",
    "over",
    "pack",
    "pack_dir",
    "pack_key",
    "prefill_chunk",
    "presence_penalty",
    "profile",
    "progress",
    "quiet",
    "rdma_network",
    "repetition_penalty",
    "replication",
    "request_id",
    "resume_from",
    "secret_file",
    "seed",
    "server",
    "service",
    "set",
    "set_exclude",
    "set_include",
    "shadow",
    "skip_special",
    "stats",
    "step_timeout_ms",
    "stop",
    "stop_token_ids",
    "system",
    "temperature",
    "template_args",
    "text",
    "threads",
    "timeout",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_server_name",
    "token_file",
    "tokens",
    "top",
    "top_k",
    "top_p",
    "transport",
    "uniform",
    "watch",
    "weights",
    "why",
    "zone",
};

static bool is_among(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* What Kubernetes puts into the environment of every container for a service whose name begins with "conclave":
 * CONCLAVE_SERVICE_HOST, CONCLAVE_API_SERVICE_PORT_GRPC, CONCLAVE_PORT, CONCLAVE_API_PORT_50051_TCP_ADDR. In lower case
 * and without our prefix. */
static bool is_of_a_service(const char *name)
{
    static const char *const marks[] = {"service_host", "service_port", "port"};

    for (size_t i = 0; i < MOE_COUNT(marks); i++) {
        const char *at = strstr(name, marks[i]);
        size_t n = strlen(marks[i]);

        if (at != NULL && (at == name || at[-1] == '_') && (at[n] == '\0' || at[n] == '_')) {
            return true;
        }
    }
    return false;
}

bool option_name_known(const char *name)
{
    return is_among(names, MOE_COUNT(names), name) || is_of_a_service(name);
}

void option_names_offer(moe_guess *g)
{
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        moe_guess_offer(g, names[i]);
    }
}

void option_flag_name(const char *name, char out[OPTION_NAME_BYTES])
{
    (void)snprintf(out, OPTION_NAME_BYTES, "--%s", name);
    for (char *p = out + 2; *p != '\0'; p++) {
        *p = (char)(*p == '_' ? '-' : *p);
    }
}

void option_env_name(const char *name, char out[OPTION_NAME_BYTES])
{
    (void)snprintf(out, OPTION_NAME_BYTES, "CONCLAVE_%s", name);
    for (char *p = out; *p != '\0'; p++) {
        *p = (char)toupper((unsigned char)*p);
    }
}

void moe_option_label(const char *name, const char *text, moe_option_origin from, const char *file, moe_error *out)
{
    char as_given[OPTION_NAME_BYTES];

    switch (from) {
    case MOE_FROM_ENVIRONMENT:
        option_env_name(name, as_given);
        (void)snprintf(out->text, sizeof out->text, "%s=%.96s (environment)", as_given, text);
        return;
    case MOE_FROM_FILE:
        (void)snprintf(out->text, sizeof out->text, "\"%s\": %.96s (%.128s)", name, text,
                       file != NULL ? file : "configuration file");
        return;
    default:
        option_flag_name(name, as_given);
        (void)snprintf(out->text, sizeof out->text, "%s %.96s (%s)", as_given, text,
                       from == MOE_FROM_DEFAULT ? "default" : "command line");
        return;
    }
}
