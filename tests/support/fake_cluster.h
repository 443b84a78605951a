/* What the API shows of a cluster, without one. */
#ifndef CONCLAVE_TESTS_FAKE_CLUSTER_H
#define CONCLAVE_TESTS_FAKE_CLUSTER_H

#include "api/view.h"

/* A cluster of one node and one coordinator whose state can be changed. */
typedef struct fake_cluster fake_cluster;
fake_cluster *fake_cluster_open(void);
void fake_cluster_close(fake_cluster *c);
const api_view *fake_cluster_view(fake_cluster *c);
void fake_cluster_set_state(fake_cluster *c, api_view_node_state state);

#endif
