/* Packs of nodes, read over connections of their own: rows never wait for them. */
#include <string.h>

#include "coordinator/pool_priv.h"

static void say_hello(const pool *p, wire_hello *out)
{
    const model_config *m = &p->o.files->config;

    *out = (wire_hello){.role = WIRE_READER,
                        .incarnation = p->incarnation,
                        .d_model = m->d_model,
                        .max_message = p->transport->max_message,
                        .max_rows = 1,
                        .max_picks = m->gate.k};
    (void)snprintf(out->member, sizeof out->member, "%s", p->id);
    (void)snprintf(out->cluster, sizeof out->cluster, "%s", p->o.member->cluster);
    (void)snprintf(out->numeric_class, sizeof out->numeric_class, "%s", compute_class_name(p->o.device->numeric_class));
    memcpy(out->fingerprint, p->o.files->manifest.fingerprint.bytes, sizeof out->fingerprint);
}

/* An endpoint that only connects, and the key of the secret. */
static moe_status dial(const pool *p, transport **out, wire_key *key, moe_error *err)
{
    const member_config *m = p->o.member;
    const transport_net_options options = {.lane = member_lane(m),
                                           .max_message = p->transport->max_message,
                                           .max_peers = 1,
                                           .secret = m->secret,
                                           .n_secret = m->n_secret};
    moe_status status = wire_key_init(key, m->secret, m->n_secret);

    return status == MOE_OK ? transport_net_open(&options, out, err) : moe_fail(err, status, "no key of the secret");
}

moe_status pool_fetch_pack(pool *p, pack_fetch *f, const cluster_state *s, const char *hash, pack **out, moe_error *err)
{
    wire_hello hello;
    wire_key key = {.present = false};
    moe_status status = dial(p, &f->transport, &key, err);

    if (status == MOE_OK) {
        say_hello(p, &hello);
        f->hello = &hello;
        f->key = &key;
        f->clock = p->o.clock;
        status = pack_fetch_from(f, s, hash, NULL, out, err);
        transport_close(f->transport);
    }
    wire_key_fini(&key);
    f->transport = NULL;
    f->hello = NULL;
    f->key = NULL;
    return status;
}
