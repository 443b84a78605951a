/* The names of the lanes, apart from what they need: options know them in programs that open none. */
#include "transport/transport.h"

const char *const transport_lane_names[TRANSPORT_N_LANES + 1] = {"tls", "auto", "shm", "ucx-tcp", "rdma", NULL};
