/* What the files of this folder share. */
#ifndef CONCLAVE_CLUSTER_PRIV_H
#define CONCLAVE_CLUSTER_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/store.h"

#define CLUSTER_SECOND ((uint64_t)1000000000)
/* Times. All are chosen, not measured; each says what it trades.
 *
 *   LEASE_S    how long a dead member's keys stay. BEAT is a third of it, so that two keepalives may be lost. Longer
 *              leases outlive a slow etcd
 *   OFFICE_S   how long the office of a dead or stopped controller stays occupied: nobody places meanwhile. Long enough for
 *              an etcd that elects a leader, which takes one or two seconds; etcd grants no less than one and a half of its
 *              election time-outs. Who loses the office without having died costs an election, and nothing else
 *   RELIST     how long a change can stay unseen when a watch loses it without a word
 *   QUIET      nodes that start together are placed together: without it each of eight nodes would cost a placement
 *              and make the ones before load experts that they lose at once. Experts without an owner do not wait
 *   RESTORE    the same after a loss, for experts that have owners left: a process that is restarted in place is back
 *              within a second or two and is given what it had, and nothing else has moved. Longer, and a second death
 *              would more often find the only copy
 *   ASK        between two questions to `alive` that may take two seconds of this thread
 *   LISTEN     between two looks of the controller at its own connections: a death is acted upon that late
 *   VANISHED   a lease's length again, for programs that cannot ask
 *   SILENT     a node that only some coordinators miss, or that has not said why it is away: long enough for what is
 *              passing, as the others serve with it. One that all of them miss is lost without that wait
 *   UNMET      the same for a node that has experts, but has never answered this controller: it may have been restarted
 *              with a wrong address or secret, and a connect that can succeed does so within a second or two
 *   MEET_WARN  connecting and HELLO take milliseconds, a busy coordinator's turn perhaps a second
 *   ASKED_FOR  a policy or catalogue that a person asked for is tried to be written: he has been told by then that it failed
 *   KEEP       experts that left the default set stay loaded: an undo within it takes no load, their memory is not free */
#define CLUSTER_LEASE_S   15
#define CLUSTER_OFFICE_S  5
#define CLUSTER_RELIST    (30 * CLUSTER_SECOND) /* everything is read again */
#define CLUSTER_QUIET     (1 * CLUSTER_SECOND)  /* without a change of membership, before the controller places */
#define CLUSTER_RESTORE   (3 * CLUSTER_SECOND)  /* after a loss, before experts get their number of owners again */
#define CLUSTER_ASK       (1 * CLUSTER_SECOND)  /* between two questions to `alive` */
#define CLUSTER_LISTEN    (CLUSTER_SECOND / 10) /* between two questions of the controller about a node */
#define CLUSTER_VANISHED  (15 * CLUSTER_SECOND) /* a vanished node is kept that long when nobody can be asked */
#define CLUSTER_SILENT    (10 * CLUSTER_SECOND) /* a node that does not answer for so long is lost */
#define CLUSTER_UNMET     (10 * CLUSTER_SECOND)
#define CLUSTER_MEET_WARN (2 * CLUSTER_SECOND)
#define CLUSTER_ASKED_FOR (5 * CLUSTER_SECOND)
#define CLUSTER_KEEP_MS   600000
#define CLUSTER_MAX_KEYS  4096
#define CLUSTER_MAX_EPOCH ((uint64_t)1 << 53)
/* How far above all that was known an epoch may be that a single key names. At one placement a second a member would
 * have missed 136 years; and who wants to use up all epochs has to raise them two million times. */
#define CLUSTER_EPOCH_JUMP ((uint64_t)1 << 32)

/* ------------------------------------------------------------------------------------------------ seal */
typedef struct cluster_seal {
    bool present; /* false: there is no secret, nothing is sealed */
    unsigned char key[32];
    char cluster[ROUTER_MAX_NODE_ID + 1];
} cluster_seal;
/* name: of the cluster. n 0: no secret. Errors: MOE_ERR_INVALID_ARG (too long), MOE_ERR_INTERNAL. */
MOE_NODISCARD moe_status cluster_seal_init(cluster_seal *s, const char *name, const void *secret, size_t n);
void cluster_seal_fini(cluster_seal *s);
/* Adds the mac to a whole record, if there is a secret. key: without the prefix. */
void cluster_seal_write(const cluster_seal *s, const char *key, moe_text *record);
bool cluster_seal_holds(const cluster_seal *s, const char *key, const char *value, size_t n);
bool cluster_seal_is_there(const char *value, size_t n);    /* right or wrong */
const char *cluster_seal_find(const char *value, size_t n); /* where its field begins; NULL: there is none */

/* ------------------------------------------------------------------------------------------------ keys */
typedef enum {
    CLUSTER_KEY_FOREIGN, /* nobody of a cluster writes or reads it */
    CLUSTER_KEY_LASTING, /* model, policy, catalogue, placement, placement/{layer} */
    CLUSTER_KEY_LEASED   /* nodes/{id}, ready/{id}, coordinators/{id}, controller */
} cluster_key_kind;
cluster_key_kind cluster_key_kind_of(const char *key, uint32_t n_layers);
/* Why no member of this cluster can have written it; NULL: one may have. The key is without the prefix. */
const char *cluster_key_doubt(const cluster_kv *kv, uint32_t n_layers, const cluster_seal *seal);

/* ------------------------------------------------------------------------------------------------ mirror
 * What the store holds under the cluster's prefix, as far as it is known. Keys without the prefix. What no member wrote
 * is known as a name: its revision is needed to replace it, its value is not kept. */
typedef struct cluster_entry {
    char *key, *value; /* owned */
    size_t value_bytes;
    uint64_t create_revision, mod_revision, lease;
    const char *doubt; /* static: why it is not believed; NULL: it is */
    bool complained;   /* that has been logged, or that its value is malformed */
} cluster_entry;

typedef struct cluster_mirror {
    cluster_entry *entries; /* owned, ascending keys */
    size_t n, capacity;
} cluster_mirror;

void cluster_mirror_fini(cluster_mirror *m);
cluster_entry *cluster_mirror_find(const cluster_mirror *m, const char *key); /* believed or not */
cluster_entry *cluster_mirror_read(const cluster_mirror *m, const char *key); /* NULL also when it is not believed */
/* The first entry whose key is not below the text. */
size_t cluster_mirror_lower(const cluster_mirror *m, const char *text);
/* An older revision than the one known is ignored. create_revision 0: that of the entry, or if new, mod_revision. doubt:
 * static, of the entry. Where there is no room, one that is believed takes the place of one that is not.
 * Errors: MOE_ERR_BUSY beyond CLUSTER_MAX_KEYS, MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status cluster_mirror_put(cluster_mirror *m, const cluster_kv *kv, const char *doubt);
/* True once of each revision: then its trouble is logged. */
bool cluster_entry_complain(cluster_entry *e, const moe_error *err);
/* What was complained of in the old one, and is still as it was, is not complained of again. */
void cluster_mirror_take_over(cluster_mirror *m, const cluster_mirror *old);
void cluster_mirror_delete(cluster_mirror *m, const char *key, uint64_t revision);

/* ------------------------------------------------------------------------------------------------ experts in records
 * Of a layer, a string: ids and ranges of ids, ascending, separated by commas: "0-15,17". A range holds those of its ids that there
 * are; ids that this member's space has not, yet, are left out. */
void cluster_put_experts(moe_text *t, const router_space_layer *layer, bool (*in)(const void *ctx, uint32_t slot),
                         const void *ctx);
/* Hands every slot of such a string to `each`; false from it ends the reading. Errors, naming the key: MOE_ERR_CORRUPT. */
MOE_NODISCARD moe_status cluster_read_experts(const moe_json *text, const char *key, const router_space_layer *layer,
                                              bool (*each)(void *ctx, uint32_t slot), void *ctx, moe_error *err);
/* A bitmap by slot, as an array with a string for each layer. Read: overwritten; *n_set bits are set. */
void cluster_put_bitmap(moe_text *t, const char *key, const router_space *space, const uint64_t *bitmap);
MOE_NODISCARD moe_status cluster_read_bitmap(const moe_json *json, const char *key, const router_space *space,
                                             uint64_t *bitmap, uint32_t *n_set, moe_error *err);

/* ------------------------------------------------------------------------------------------------ records
 * The JSON values, docs/etcd.md. Writers append to a text; readers refuse with MOE_ERR_CORRUPT or
 * MOE_ERR_INVALID_ARG. */

void cluster_write_model(moe_text *t, const cluster_model *m);
/* MOE_ERR_DENIED when the record is of another model than mine. */
MOE_NODISCARD moe_status cluster_check_model(const char *value, size_t bytes, const cluster_model *mine,
                                             moe_error *err);
void cluster_write_node(moe_text *t, const cluster_node *n);
/* packs: of at most CLUSTER_MAX_PACKS, that out->packs then points to; NULL: they are not read. */
MOE_NODISCARD moe_status cluster_read_node(const char *value, size_t bytes, cluster_pack *packs, cluster_node *out,
                                           moe_error *err);
typedef struct cluster_ids {
    size_t n;
    char at[ROUTER_MAX_NODES][ROUTER_MAX_NODE_ID + 1];
} cluster_ids;
/* missed: nodes; in place of the indices of that name. Spaces: of the two bitmaps. */
void cluster_write_coordinator(moe_text *t, const router_space *of_settled, const router_space *of_used,
                               const cluster_coordinator *c, const cluster_ids *missed);
/* bitmaps [CLUSTER_COORDINATOR_BITMAPS][words of the space] are overwritten, and out->settled and ->used point to them if there
 * are any. bitmaps and missed NULL: they are not read. */
#define CLUSTER_COORDINATOR_BITMAPS 2
MOE_NODISCARD moe_status cluster_read_coordinator(const char *value, size_t bytes, const router_space *space,
                                                  uint64_t *bitmaps, cluster_ids *missed, cluster_coordinator *out,
                                                  moe_error *err);
void cluster_write_controller(moe_text *t, const char *id, uint64_t incarnation);
MOE_NODISCARD moe_status cluster_read_controller(const char *value, size_t bytes, char id[ROUTER_MAX_NODE_ID + 1],
                                                 uint64_t *incarnation, moe_error *err);
void cluster_write_policy(moe_text *t, const cluster_policy *p);
MOE_NODISCARD moe_status cluster_read_policy(const char *value, size_t bytes, cluster_policy *out, moe_error *err);
MOE_NODISCARD moe_status cluster_check_policy(uint64_t replication, uint64_t min_nodes, moe_error *err);
typedef struct cluster_ready_record {
    uint64_t incarnation, epoch;
    uint64_t *bitmap; /* borrowed [words of the space]; overwritten */
    uint32_t n_ready;
} cluster_ready_record;
void cluster_write_ready(moe_text *t, const router_space *space, const cluster_ready_record *r);
MOE_NODISCARD moe_status cluster_read_ready(const char *value, size_t bytes, const router_space *space,
                                            cluster_ready_record *out, moe_error *err);
typedef struct cluster_placement_record {
    uint64_t epoch;
    uint32_t replication;
    cluster_ids nodes;
} cluster_placement_record;
void cluster_write_placement(moe_text *t, const router_placement *p, uint32_t replication);
MOE_NODISCARD moe_status cluster_read_placement(const char *value, size_t bytes, const cluster_model *m,
                                                cluster_placement_record *out, moe_error *err);
void cluster_write_layer(moe_text *t, const router_placement *p, uint32_t layer);
MOE_NODISCARD moe_status cluster_read_layer_epoch(const char *value, size_t bytes, uint64_t *epoch, moe_error *err);
/* Appends the layer's replicas at *n, of at most capacity. */
MOE_NODISCARD moe_status cluster_read_layer(const char *value, size_t bytes, uint32_t layer, const router_space *space,
                                            size_t n_nodes, router_replica *replicas, size_t capacity, size_t *n,
                                            moe_error *err);

/* ------------------------------------------------------------------------------------------------ state */
typedef struct cluster_state_box cluster_state_box;
struct cluster_state_box {
    cluster_state s; /* first: a cluster_state * is one of the box */
    atomic_uint refs;
    uint64_t highest_epoch;  /* believed, of anybody, ever */
    bool placement_is_torn;  /* the store's tables are not all of the published epoch */
    bool placement_is_there; /* the store has one */
    bool
        catalogue_is_refused; /* what the store has is not what is in force: it is malformed, older, or of other packs */
    /* Within the box's own memory. */
    cluster_node *nodes;               /* [capacity] */
    cluster_coordinator *coordinators; /* as many as there are keys, at most the limit */
    uint64_t *bitmaps;                 /* [nodes of capacity, then two for each coordinator][words of the space] */
    cluster_pack *packs;               /* owned [n_packs]: of all nodes */
    size_t n_packs;
};

typedef struct cluster_state_input {
    cluster_mirror *mirror;
    const cluster_model *model;
    catalogue *first;                                  /* while none is known; borrowed */
    const cluster_state_box *previous;                 /* NULL: none */
    bool (*keep)(void *ctx, const cluster_node *node); /* a vanished node stays */
    void *ctx;
    uint64_t *ignored; /* counts malformed keys */
} cluster_state_input;
/* connected, registered, revision and is_controller are the caller's to fill. NULL: no memory. */
cluster_state_box *cluster_state_build(const cluster_state_input *in);

/* ------------------------------------------------------------------------------------------------ member */
typedef enum { CLUSTER_OP_NONE, CLUSTER_OP_LIST, CLUSTER_OP_GRANT, CLUSTER_OP_TXN, CLUSTER_OP_REVOKE } cluster_op;

typedef struct cluster_lease {
    cluster *cluster;
    uint32_t ttl_s;
    uint64_t id, beaten;         /* id 0: there is none; beaten: that of the keepalive under way */
    uint64_t due_ns;             /* of the next keepalive */
    bool is_beating, is_revoked; /* revoking it was tried */
} cluster_lease;

/* A txn under way: kept, so that a success can be entered into the mirror. */
#define CLUSTER_TXN_PUTS 100 /* etcd's default limit is 128 operations of a transaction (--max-txn-ops) */
typedef struct cluster_change {
    size_t n_compares, n_puts;
    const char *doomed; /* key without the prefix, static: to be deleted; NULL: none */
    cluster_compare compares[2];
    cluster_put puts[CLUSTER_TXN_PUTS];
    char *keys[CLUSTER_TXN_PUTS + 3]; /* owned; full keys, after the puts' those of the compares and the deleted one */
    moe_text values[CLUSTER_TXN_PUTS];
    size_t bytes; /* of all values */
} cluster_change;

typedef struct cluster_vanished {
    char id[ROUTER_MAX_NODE_ID + 1];
    uint64_t incarnation;
    uint64_t since_ns, asked_ns;
    bool is_gone;
} cluster_vanished;

/* When this coordinator last had an answer of a node on the data plane. */
typedef struct cluster_heard {
    char id[ROUTER_MAX_NODE_ID + 1];
    uint64_t incarnation;
    uint64_t heard_ns, asked_ns; /* heard_ns: of one that was never met, when it was first seen */
    bool is_met;                 /* it has answered, ever */
    bool is_silent;
    bool is_missed; /* it has fallen silent a while ago, or computes nothing */
    bool is_gone;   /* nobody is at its address; for good, unless it answers all the same */
} cluster_heard;

/* A bitmap as it was told last. */
typedef struct cluster_told_bits {
    router_space *space; /* owned */
    uint64_t *bits;      /* owned [words of the space] */
} cluster_told_bits;

struct cluster {
    /* constant after open */
    cluster_options o; /* strings owned */
    char prefix[96];   /* /conclave/{cluster}/ */
    char own_key[96], ready_key[96];
    cluster_store *store;
    cluster_seal seal;

    /* the stepping thread's */
    cluster_mirror mirror;
    cluster_op op;
    cluster_change change;
    bool is_synced, is_watching, is_dirty;
    uint64_t revision;                      /* highest seen */
    uint64_t list_revision, watch_revision; /* of the last list; of the watch's last event */
    uint64_t list_floor;
    bool went_back;       /* one list has come with a revision below list_floor */
    cluster_lease lease;  /* of all our keys but `controller` */
    cluster_lease office; /* of that; only while we hold it or may */
    uint64_t listed_ns, list_due_ns, retry_due_ns, ask_due_ns, failures_in_row;
    uint64_t told_version; /* of `told` that the store has */
    uint64_t sent_version; /* of `told` in the txn under way */
    uint64_t own_revision; /* of the own key as it was last written */
    bool connected, was_registered;
    uint64_t model_revision; /* mod_revision of the model that was found to be ours; 0: none was yet */
    struct {
        uint64_t incarnation, since_ns;
    } rival; /* who was found to hold our id, and since when */
    cluster_vanished vanished[ROUTER_MAX_NODES];
    size_t n_vanished;
    cluster_policy warned; /* the policy that our options were found to differ from */
    moe_random random;

    /* controller.c */
    struct {
        uint64_t membership;      /* hash of who is there */
        uint64_t changed_ns;      /* when it became that */
        uint64_t solved;          /* the membership that `home` was solved for; 0: none yet */
        uint64_t repaired;        /* the membership for which lost experts were placed; 0: none */
        router_placement *home;   /* owned: who is to own what while the membership is that */
        router_placement *target; /* owned: being published; NULL: nothing is */
        bool is_repair;           /* what was published last is not home */
        uint32_t target_replication, next_layer;
        bool has_complained;
        moe_error unsolved;         /* why there is no placement for `solved`; "": there is one */
        uint64_t change, change_ns; /* the pending change, and since when this controller has known it */
    } ctl;
    catalogue *first_catalogue; /* owned: of a cluster that has none */

    /* holding.c; of the nodes in the state, in its order */
    struct {
        uint64_t *bits; /* owned [n_nodes][words of the space]; NULL: outside of the controller's turn */
        bool is_told[ROUTER_MAX_NODES];
    } holding;

    /* listening.c */
    struct {
        cluster_heard heard[ROUTER_MAX_NODES]; /* of the nodes in the state, in its order */
        size_t n_heard;
        uint64_t at_ns; /* when all of them were last looked at */
    } listened;

    /* shared; under lock, a leaf */
    pthread_mutex_t lock;
    cluster_state_box *state;
    moe_status status;
    moe_error why;
    cluster_stats stats;
    struct {
        uint64_t version; /* counts changes */
        cluster_told_bits ready, settled, used;
        uint64_t ready_epoch, applied, settled_epoch;
        uint64_t prepared, failed; /* numbers of changes */
        char failed_why[CATALOGUE_MAX_WHY + 1];
        bool draining;
        cluster_pack packs[CLUSTER_MAX_PACKS]; /* of a node */
        size_t n_packs;
        cluster_ids missed; /* by this coordinator */
    } told;
    struct {
        cluster_policy policy; /* 0: stays; both 0: nothing is asked for */
        uint64_t until_ns;
        catalogue *catalogue; /* owned; NULL: nothing is asked for */
        uint64_t catalogue_revision, catalogue_until_ns;
    } asked;
    bool leaving, has_left, displaced;
    pthread_t thread;
    bool has_thread;
    atomic_bool stop, is_outdated;
};

/* sync.c: how the store is, and what it holds */
uint64_t cluster_now(const cluster *c);
void cluster_count(cluster *c, uint64_t *counter); /* one of stats */
void cluster_set_status(cluster *c, moe_status status, const char *why);
uint64_t cluster_jittered(cluster *c, uint64_t ns);            /* half of it to all of it */
void cluster_resync(cluster *c);                               /* everything is read again, soon */
void cluster_answered(cluster *c, const cluster_reply *reply); /* the store is well */
void cluster_failed(cluster *c, const cluster_reply *reply);   /* it is not: back off */
void cluster_enter(cluster *c, const cluster_kv *kv);          /* into the mirror, if it is ours */
void cluster_list_begin(cluster *c);
void cluster_watch_begin(cluster *c); /* from the revision after the list's */

/* lease.c */
void cluster_lease_grant(cluster_lease *l);
void cluster_lease_beat(cluster_lease *l, uint64_t now);          /* if it is time */
uint64_t cluster_lease_due(const cluster_lease *l, uint64_t now); /* the next beat; UINT64_MAX: none */
void cluster_lease_drop(cluster_lease *l);                        /* it is dead */
bool cluster_lease_revoke(cluster_lease *l);                      /* true: the call was made */

/* change.c */
/* A change is built up and then sent; at most one is under way. */
void cluster_change_begin(cluster *c);
void cluster_change_compare(cluster *c, cluster_compare_kind kind, const char *key, uint64_t revision);
moe_text *cluster_change_put(cluster *c, const char *key, uint64_t lease); /* to be written into */
void cluster_change_delete(cluster *c, const char *key);                   /* static; at most one */
void cluster_change_send(cluster *c);
void cluster_change_fini(cluster_change *h);

/* policy.c */
/* The store's policy; while it is not known, that of our options. */
cluster_policy cluster_policy_in_force(const cluster *c);
bool cluster_settle_policy(cluster *c, uint64_t now); /* true: a change was sent */

/* catalogue.c */
void cluster_read_catalogue(const cluster_state_input *in, cluster_state_box *box); /* first of all: the space is its */
bool cluster_settle_catalogue(cluster *c, uint64_t now); /* writes what was asked for; true: a change was sent */
/* The controller's: what was lost is written again, a pending change committed or given up. True: a change was sent. */
bool cluster_control_catalogue(cluster *c, const cluster_entry *office, uint64_t now, uint64_t *due_ns);
/* The slots of the state's space that are to have owners; the caller frees it. NULL: no memory. */
uint64_t *cluster_wanted(const cluster *c);

/* vanished.c */
bool cluster_keep_vanished(void *ctx, const cluster_node *n); /* cluster_state_input.keep; ctx is the cluster */
void cluster_prune_vanished(cluster *c);
void cluster_judge_vanished(cluster *c, uint64_t now);

/* listening.c */
/* A lease says that some thread of a node lives; only an answer says that it serves. *due_ns is lowered to the next look. */
void cluster_listen(cluster *c, uint64_t now, uint64_t *due_ns);
bool cluster_is_lost(const cluster *c, const cluster_node *n);  /* to this coordinator, as the controller judges it */
bool cluster_is_met(const cluster *c, const cluster_node *n);   /* or nobody has listened to it yet */
bool cluster_is_placed(const cluster_state *s, const char *id); /* whether the placement gives the node something */

/* holding.c */
bool cluster_holding_learn(cluster *c); /* for as long as the state stays; false: no memory */
void cluster_holding_forget(cluster *c);
/* What a node of the state has ready: a bitmap. NULL: it has not told. */
const uint64_t *cluster_holding_of(const cluster *c, const cluster_node *n);

/* controller.c: true when it has sent a change. *due_ns is lowered to when it wants to be called again. */
bool cluster_control(cluster *c, uint64_t now, uint64_t *due_ns);
void cluster_control_reset(cluster *c); /* no longer the controller, or a publication failed */

#endif
