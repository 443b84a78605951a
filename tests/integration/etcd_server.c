#include "tests/integration/etcd_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRIES 3000 /* of 0.02 s */

static int shell(const char *format, ...) MOE_PRINTF(1, 2);
static int shell(const char *format, ...)
{
    char command[2048];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(command, sizeof command, format, args);
    va_end(args);
    assert_true(n > 0 && (size_t)n < sizeof command);
    return system(command); /* NOLINT: our own text */
}

bool etcd_is_installed(void)
{
    return shell("command -v etcd > /dev/null && command -v curl > /dev/null && command -v openssl > /dev/null") == 0;
}

int etcd_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* The server's certificate is for servers and for clients, because the gateway dials its own server with it; the
 * client's has no CN, because etcd takes a CN for a user and refuses that on the gateway. */
static void make_certificates(const char *folder)
{
    assert_int_equal(
        shell("cd %s && exec 2> openssl.log && "
              "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca.pem "
              "-subj /CN=test-ca && "
              "for who in server client; do "
              "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $who.key -out $who.csr "
              "-subj /O=conclave && "
              "printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nextendedKeyUsage=%%s\\n' "
              "$([ $who = server ] && echo serverAuth,clientAuth || echo clientAuth) > $who.ext && "
              "openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $who.ext "
              "-out $who.pem || exit 1; done",
              folder),
        0);
}

void etcd_server_open(etcd_server *s, bool is_tls)
{
    *s = (etcd_server){.is_tls = is_tls};
    test_folder_open(&s->folder);
    s->client_port = etcd_free_port();
    s->peer_port = etcd_free_port();
    (void)snprintf(s->url, sizeof s->url, "%s://127.0.0.1:%d", is_tls ? "https" : "http", s->client_port);
    if (is_tls) {
        make_certificates(s->folder.path);
    }
}

static void run_etcd(const etcd_server *s, const char *peer)
{
    char initial[96];
    const char *args[40] = {"etcd", "--name", "test", "--data-dir", "data", "--log-level", "error"};
    size_t n = 7;

    (void)snprintf(initial, sizeof initial, "test=%s", peer);
    const char *const more[] = {"--listen-client-urls", s->url,  "--advertise-client-urls",       s->url,
                                "--listen-peer-urls",   peer,    "--initial-advertise-peer-urls", peer,
                                "--initial-cluster",    initial, "--heartbeat-interval",          "20",
                                "--election-timeout",   "200"}; /* alone, it waits that long before it elects itself */
    for (size_t i = 0; i < MOE_COUNT(more); i++) {
        args[n++] = more[i];
    }
    const char *const tls[] = {"--cert-file",       "server.pem", "--key-file",        "server.key",
                               "--trusted-ca-file", "ca.pem",     "--client-cert-auth"};
    for (size_t i = 0; s->is_tls && i < MOE_COUNT(tls); i++) {
        args[n++] = tls[i];
    }
    args[n] = NULL;
    (void)execvp("etcd", (char **)(uintptr_t)args);
    _exit(127);
}

void etcd_server_start(etcd_server *s)
{
    char peer[64];
    pid_t parent = getpid();

    (void)snprintf(peer, sizeof peer, "http://127.0.0.1:%d", s->peer_port);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int log = open(test_folder_path(&s->folder, "etcd.log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (getppid() != parent || log < 0 || chdir(s->folder.path) != 0) {
            _exit(126);
        }
        (void)dup2(log, 1);
        (void)dup2(log, 2);
        run_etcd(s, peer);
    }
    const struct timespec pause = {.tv_nsec = 20000000};
    for (int i = 0; i < TRIES; i++) {
        if (strstr(etcd_server_post(s, "maintenance/status", "{}", NULL), "\"leader\"") != NULL) {
            return;
        }
        (void)nanosleep(&pause, NULL);
    }
    fail_msg("etcd did not start: %s", test_read_file(test_folder_path(&s->folder, "etcd.log"), NULL));
}

void etcd_server_kill(etcd_server *s)
{
    if (s->pid > 0) {
        (void)kill(s->pid, SIGKILL);
        (void)waitpid(s->pid, NULL, 0);
        s->pid = 0;
    }
}

void etcd_server_wipe(etcd_server *s)
{
    assert_int_equal(s->pid, 0);
    assert_int_equal(shell("rm -rf %s", test_folder_path(&s->folder, "data")), 0);
}

void etcd_server_close(etcd_server *s)
{
    etcd_server_kill(s);
    test_folder_close(&s->folder);
}

const char *etcd_server_post(etcd_server *s, const char *path, const char *body, const char *token)
{
    static char answer[8192];
    char tls[512] = "", authorization[256] = "";

    if (s->is_tls) {
        (void)snprintf(tls, sizeof tls, "--cacert %s --cert %s --key %s", test_folder_path(&s->folder, "ca.pem"),
                       test_folder_path(&s->folder, "client.pem"), test_folder_path(&s->folder, "client.key"));
    }
    if (token != NULL) {
        (void)snprintf(authorization, sizeof authorization, "-H 'Authorization: %s'", token);
    }
    const char *out = test_folder_path(&s->folder, "answer");
    test_write_text(out, "");
    (void)shell("curl -s --noproxy '*' -m 5 -o %s %s %s -d '%s' %s/v3/%s", out, tls, authorization, body, s->url, path);
    char *text = test_read_file(out, NULL);
    (void)snprintf(answer, sizeof answer, "%s", text);
    free(text);
    return answer;
}

static void must(etcd_server *s, const char *path, const char *body)
{
    const char *answer = etcd_server_post(s, path, body, NULL);

    if (strstr(answer, "header") == NULL) {
        fail_msg("%s %s: %s", path, body, answer);
    }
}

void etcd_server_enable_auth(etcd_server *s)
{
    must(s, "auth/user/add", "{\"name\":\"root\",\"password\":\"secret\"}");
    must(s, "auth/role/add", "{\"name\":\"root\"}");
    must(s, "auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}");
    must(s, "auth/user/add", "{\"name\":\"node\",\"password\":\"node-secret\"}");
    must(s, "auth/role/add", "{\"name\":\"member\"}");
    /* /conclave/ up to /conclave0 */
    must(s, "auth/role/grant",
         "{\"name\":\"member\",\"perm\":{\"permType\":\"READWRITE\",\"key\":\"L2NvbmNsYXZlLw==\","
         "\"range_end\":\"L2NvbmNsYXZlMA==\"}}");
    must(s, "auth/user/grant", "{\"user\":\"node\",\"role\":\"member\"}");
    must(s, "auth/enable", "{}");
    test_write_text(test_folder_path(&s->folder, "root.password"), "secret\n");
    test_write_text(test_folder_path(&s->folder, "node.password"), "node-secret\n");
}
