/* Starting UCX: what it writes, what it may use, and what it says that it uses. */
#include "transport/ucx_priv.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ucp/api/ucp.h>
#include <ucs/debug/debug.h>
#include <ucs/debug/log_def.h>

#define LOG_PER_SECOND 10

/* ------------------------------------------------------------------------------------------------ process
 * UCX's log goes to ours, at most a few lines a second: peers can provoke some of them. */
static atomic_uint log_second, log_lines;

static ucs_log_func_rc_t on_log(const char *file, unsigned line, const char *function, ucs_log_level_t level,
                                const ucs_log_component_config_t *component, const char *format, va_list ap)
{
    struct timespec now;
    char text[512];

    (void)file;
    (void)line;
    (void)function;
    (void)component;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (atomic_exchange(&log_second, (unsigned)now.tv_sec) != (unsigned)now.tv_sec) {
        atomic_store(&log_lines, 0);
    }
    if (atomic_fetch_add(&log_lines, 1) >= LOG_PER_SECOND) {
        return UCS_LOG_FUNC_RC_STOP;
    }
    (void)vsnprintf(text, sizeof text, format, ap);
    /* What fails is told to the caller too; here is only UCX's own word for it. */
    moe_log(level == UCS_LOG_LEVEL_FATAL   ? MOE_LOG_ERROR
            : level == UCS_LOG_LEVEL_ERROR ? MOE_LOG_WARN
                                           : MOE_LOG_DEBUG,
            "ucx: %s", text);
    return UCS_LOG_FUNC_RC_STOP;
}

static const char *const defaults[][2] = {
    {"UCX_TLS", "tcp"},
    {"UCX_RNDV_THRESH", "inf"},    /* rendezvous over tcp costs four times plain TCP at 64 KB */
    {"UCX_TCP_TX_SEG_SIZE", "1m"}, /* a frame is one piece: nothing is put together from parts a peer sends */
    {"UCX_TCP_RX_SEG_SIZE", "1m"}, /* equal in all members */
    {"UCX_TCP_CONN_NB", "y"},      /* a host that does not answer must not stop the thread */
    {"UCX_LOG_FILE", "stderr"},    /* the default is stdout, where READY lines are read */
    {"UCX_ERROR_SIGNALS", ""},     /* crashes are the sanitizer's and the core dump's */
    {"UCX_WARN_UNUSED_ENV_VARS", "n"},
};

/* The UCX_ variables that are not ours, for the person whose shell or pod has them: "UCX_TLS=sm,self". */
static void users_variables(char out[200])
{
    size_t used = 0;

    (void)snprintf(out, 200, "no UCX_ variable is set");
    for (char **e = environ; *e != NULL; e++) {
        bool own = strncmp(*e, "UCX_", 4) != 0;

        for (size_t i = 0; i < MOE_COUNT(defaults) && !own; i++) {
            size_t n = strlen(defaults[i][0]);
            own = strncmp(*e, defaults[i][0], n) == 0 && (*e)[n] == '=' && strcmp(*e + n + 1, defaults[i][1]) == 0;
        }
        if (!own && used < 200) {
            used += (size_t)snprintf(out + used, 200 - used, used == 0 ? "the environment has %s" : " %s", *e);
        }
    }
}

/* What a variable set by the user says stays. */
static void process_init(void)
{
    bool own_signals = getenv("UCX_ERROR_SIGNALS") == NULL;

    for (size_t i = 0; i < MOE_COUNT(defaults); i++) {
        (void)setenv(defaults[i][0], defaults[i][1], 0);
    }
    /* The library took the signals and chose its log file when it was loaded. */
    if (own_signals) {
        static const int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE};

        for (size_t i = 0; i < MOE_COUNT(signals); i++) {
            ucs_debug_disable_signal(signals[i]);
        }
    }
    ucs_log_push_handler(on_log);
}

/* ------------------------------------------------------------------------------------------------ context */
static bool is_rdma(const char *transport_name)
{
    static const char *const prefixes[] = {"rc", "dc", "ud"};

    for (size_t i = 0; i < MOE_COUNT(prefixes); i++) {
        if (strncmp(transport_name, prefixes[i], 2) == 0) {
            return true;
        }
    }
    return false;
}

/* Reads the transports that UCX has opened out of its own report, "# resource 0: md 0 dev 0 flags -- tcp/eth0". False
 * when none of them is tcp, where that is the lane; where it is rdma, when one of them is not, or there is none. */
static bool read_lane(ucp_context_h context, transport_lane lane, char text[UCX_MAX_LANE])
{
    char *report = NULL, *rest = NULL;
    size_t bytes = 0, used = 0;
    FILE *f = open_memstream(&report, &bytes);
    bool good = false;

    if (f == NULL) {
        return false;
    }
    ucp_context_print_info(context, f);
    (void)fclose(f);
    for (char *line = strtok_r(report, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *name = strstr(line, "-- ");
        char *end = name == NULL ? NULL : strchr(name, '/');

        if (strstr(line, "resource") == NULL || end == NULL) {
            continue;
        }
        name += 3;
        *end = '\0';
        good = lane == TRANSPORT_LANE_UCX_TCP ? good || strcmp(name, "tcp") == 0 : is_rdma(name) && (good || used == 0);
        if (strstr(text, name) == NULL && used < UCX_MAX_LANE) {
            used += (size_t)snprintf(text + used, UCX_MAX_LANE - used, used == 0 ? "%s" : ",%s", name);
        }
    }
    free(report);
    return good;
}

moe_status ucx_context_open(transport_lane lane, const char *device, char lane_out[UCX_MAX_LANE], ucp_context_h *out,
                            moe_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
                                 .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
                                 .estimated_num_eps = 1}; /* of a worker */
    ucp_config_t *config;
    ucp_context_h context;
    char variables[200];

    (void)pthread_once(&once, process_init);
    if (lane == TRANSPORT_LANE_UCX_TCP && device[0] == '\0' && getenv("UCX_NET_DEVICES") == NULL) {
        return moe_fail(
            err, MOE_ERR_INVALID_ARG,
            "transport ucx-tcp: UCX would open ports on every network of this host; UCX_NET_DEVICES must name "
            "the device to use");
    }
    ucs_status_t status = ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK) {
        users_variables(variables);
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: configuration: %s; %s", ucs_status_string(status), variables);
    }
    if (lane == TRANSPORT_LANE_RDMA) {
        /* Whatever UCX_TLS says, this lane has no tcp to fall back to. */
        (void)ucp_config_modify(config, "TLS", "rc,dc,ud");
    } else if (device[0] != '\0' && getenv("UCX_NET_DEVICES") == NULL) {
        (void)ucp_config_modify(config, "NET_DEVICES", device);
    }
    status = ucp_init(&params, config, &context);
    ucp_config_release(config);
    if (status != UCS_OK) {
        users_variables(variables);
        return lane == TRANSPORT_LANE_RDMA
                   ? moe_fail(err, MOE_ERR_UNSUPPORTED, "transport rdma: no RDMA device that UCX can use here (%s); %s",
                              ucs_status_string(status), variables)
                   : moe_fail(err, MOE_ERR_UNAVAILABLE, "ucx: %s; %s", ucs_status_string(status), variables);
    }
    lane_out[0] = '\0';
    if (!read_lane(context, lane, lane_out)) {
        users_variables(variables);
        ucp_cleanup(context);
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "transport %s: UCX would use \"%s\" instead; %s",
                        transport_lane_names[lane], lane_out, variables);
    }
    *out = context;
    return MOE_OK;
}
