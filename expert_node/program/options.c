#include "expert_node/program/options.h"

#define FIELD(f) offsetof(node_config, f)
#define TEXT(field, default_value, shown, text)                                                                        \
    {                                                                                                                  \
        .name = #field, .kind = MOE_OPT_STRING, .offset = FIELD(field), .fallback = (default_value), .value = (shown), \
        .help = (text)                                                                                                 \
    }

static const moe_option options[] = {
    TEXT(model, NULL, "DIR", "checkpoint directory: config.json, safetensors"),
    {.name = "pack",
     .kind = MOE_OPT_STRING,
     .is_list = true,
     .offset = FIELD(pack),
     .value = "DIR[,DIR]",
     .help = "packs of new experts that this node brings: it offers them, and other members read them from it "
             "(docs/packs.md)"},
    TEXT(pack_key, NULL, "FILE", "an Ed25519 public key in PEM: packs are taken with its signature alone"),
    MEMBER_OPTIONS(FIELD(member)),
    TEXT(listen, "127.0.0.1:0", "HOST:PORT", "where coordinators connect; port 0: a free one, printed by READY"),
    TEXT(advertise, NULL, "HOST[:PORT]",
         "the address told to coordinators, a name or a number; default: --listen, whose port is also that of an "
         "address "
         "without one"),
    TEXT(http, NULL, "HOST:PORT", "/livez, /readyz and /metrics; default: off"),
    TEXT(zone, NULL, "NAME", "where this node stands; copies of an expert go to different zones"),
    {.name = "memory",
     .kind = MOE_OPT_SIZE,
     .offset = FIELD(memory),
     .fallback = "0",
     .value = "SIZE",
     .help =
         "memory that experts may take; 0: three quarters of what the machine has, or of the control groups' limits"},
    {.name = "load_bandwidth",
     .kind = MOE_OPT_SIZE,
     .offset = FIELD(load_bandwidth),
     .fallback = "512M",
     .value = "SIZE",
     .help =
         "bytes of experts that are read in a second at most, so that the dispatches beside it are not held up; 0: no "
         "limit"},
    {.name = "insecure",
     .kind = MOE_OPT_BOOL,
     .offset = FIELD(insecure),
     .help = "allow listening beyond loopback without a secret, and --transport ucx-tcp"},
    {.name = "drain_timeout_ms",
     .kind = MOE_OPT_U32,
     .offset = FIELD(drain_timeout_ms),
     .fallback = "10000",
     .min = 0,
     .max = 3600000,
     .value = "MS",
     .help = "how long to wait after SIGTERM for other nodes to take over the experts"},
};

const moe_program node_program = {
    .name = "conclave-node",
    .summary =
        "Holds experts of a checkpoint and computes their rows for the coordinators of its cluster.\n"
        "Prints one line, READY host:port, when a coordinator has reached it; which experts it holds is decided by the "
        "cluster's controller.\nSIGTERM drains: exit code 0 when others have its experts, 3 when it left without "
        "that.\n"
        "Exit code 4: another process has taken its name while it did not answer.",
    .options = options,
    .n_options = MOE_COUNT(options),
};
