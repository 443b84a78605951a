/* A real etcd of one's own: on free ports of the loopback, data in a temporary folder, killed with the test. */
#ifndef CONCLAVE_TESTS_ETCD_SERVER_H
#define CONCLAVE_TESTS_ETCD_SERVER_H

#include <sys/types.h>

#include "tests/support/support.h"

typedef struct etcd_server {
    test_folder folder;
    int client_port, peer_port;
    bool is_tls; /* wants client certificates; ca.pem, client.pem and client.key lie in the folder */
    char url[64];
    pid_t pid; /* 0: not running */
} etcd_server;

bool etcd_is_installed(void);
int etcd_free_port(void);
void etcd_server_open(etcd_server *s, bool is_tls);
void etcd_server_close(etcd_server *s);
void etcd_server_start(etcd_server *s); /* returns when it answers */
void etcd_server_kill(etcd_server *s);
void etcd_server_wipe(etcd_server *s); /* not running */
/* curl with a JSON body; token: NULL, or an Authorization header's. The answer, valid until the next call. */
const char *etcd_server_post(etcd_server *s, const char *path, const char *body, const char *token);
/* user root / secret, and user node / node-secret who may do all below /conclave/; authentication on. The passwords lie
 * in root.password and node.password. */
void etcd_server_enable_auth(etcd_server *s);

#endif
