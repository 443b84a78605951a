/* The names of the lanes and of where frames lie, apart from what they need: options know them in programs that open none. */
#include "transport/transport.h"

const char *const transport_lane_names[TRANSPORT_N_LANES + 1] = {"tls", "auto", "shm", "ucx-tcp", "rdma", NULL};
const char *const transport_gpu_names[TRANSPORT_N_GPU + 1] = {"off", "auto", "on", NULL};
