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
static bool begins_with_any(const char *name, const char *const *prefixes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_rdma(const char *transport_name)
{
    static const char *const prefixes[] = {"rc", "dc", "ud"};

    return begins_with_any(transport_name, prefixes, MOE_COUNT(prefixes));
}

/* What UCX calls transports and are none: ways between the memory of a GPU and the host's, within the process. */
static bool is_gpu_copy(const char *transport_name)
{
    static const char *const prefixes[] = {"cuda_copy", "gdr_copy"};

    return begins_with_any(transport_name, prefixes, MOE_COUNT(prefixes));
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
        if (is_gpu_copy(name)) {
            continue;
        }
        good = lane == TRANSPORT_LANE_UCX_TCP ? good || strcmp(name, "tcp") == 0 : is_rdma(name) && (good || used == 0);
        if (strstr(text, name) == NULL && used < UCX_MAX_LANE) {
            used += (size_t)snprintf(text + used, UCX_MAX_LANE - used, used == 0 ? "%s" : ",%s", name);
        }
    }
    free(report);
    return good;
}

/* Whether UCX sends from the memory of a GPU; says so behind its transports. */
static moe_status read_gpu(ucp_context_h context, const ucx_options *o, char text[UCX_MAX_LANE], bool *out,
                           moe_error *err)
{
    ucp_context_attr_t attr = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};
    char kinds[128] = "none";
    size_t used = 0;

    if (ucp_context_query(context, &attr) != UCS_OK) {
        attr.memory_types = 0;
    }
    *out = o->gpu != TRANSPORT_GPU_OFF && (o->gpu_is_host || (attr.memory_types & MOE_BIT(UCS_MEMORY_TYPE_CUDA)) != 0);
    for (size_t i = 0; i < UCS_MEMORY_TYPE_LAST; i++) {
        if ((attr.memory_types & MOE_BIT(i)) != 0 && used < sizeof kinds) {
            used += (size_t)snprintf(kinds + used, sizeof kinds - used, used == 0 ? "%s" : ", %s",
                                     ucs_memory_type_names[i]);
        }
    }
    if (o->gpu == TRANSPORT_GPU_ON && !*out) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        "--gpu-frames on: UCX cannot send from the memory of a GPU here; it knows: %s", kinds);
    }
    if (o->gpu != TRANSPORT_GPU_OFF) {
        MOE_INFO("frames by UCX are %s (it knows memory of: %s)",
                 *out ? "sent from the memory of the GPU" : "staged in host memory", kinds);
        (void)snprintf(text + strlen(text), UCX_MAX_LANE - strlen(text), *out ? "+gpu" : "+staged");
    }
    return MOE_OK;
}

moe_status ucx_context_open(const ucx_options *o, char lane_out[UCX_MAX_LANE], bool *takes_device_out,
                            ucp_context_h *out, moe_error *err)
{
    transport_lane lane = o->lane;
    const char *device = o->device;
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
        (void)ucp_config_modify(config, "TLS",
                                o->gpu == TRANSPORT_GPU_OFF ? "rc,dc,ud" : "rc,dc,ud,cuda_copy,gdr_copy");
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
    moe_status gpu = read_gpu(context, o, lane_out, takes_device_out, err);
    if (gpu != MOE_OK) {
        ucp_cleanup(context);
        return gpu;
    }
    *out = context;
    return MOE_OK;
}
