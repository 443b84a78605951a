/* shm: two processes of one host share two rings, one each way. The memory has no name and no place in any file system:
 * its descriptor is handed from one process to the other, and it is gone with the last of them, however that ends.
 *
 *   memory    a memfd whose size is sealed, so that no end can take the other's pages away; all of it is reserved when
 *             it is made, so that a lack of memory is an error then and no signal later. It does not count against
 *             /dev/shm
 *   handing   over a datagram socket in the abstract namespace of unix sockets, which is that of the network namespace:
 *             that it arrives proves that both are on one host. The socket is there for as long as two ends meet. A
 *             stranger may send to it; what he sends does not begin with the key
 *   waking    an end that sleeps says so in the shared memory; the other one sends a byte over a pair of sockets then.
 *             They are sockets because a call on one can be kept from blocking whatever the other end does to it
 *
 * The other end is a member that has proved the secret, and still nothing that it writes is believed (ring_priv.h).
 * Threads: one. */
#ifndef CONCLAVE_TRANSPORT_SHM_PRIV_H
#define CONCLAVE_TRANSPORT_SHM_PRIV_H

#include "base/base.h"

#define SHM_NAME  16 /* bytes, random */
#define SHM_KEY   32 /* bytes that the two ends alone know */
#define SHM_TOKEN 32 /* bytes, random: lies in the memory; whoever knows it has read there */

typedef struct shm shm;

/* Where the memory will come in: a socket (owned by the caller) and its name. Errors: MOE_ERR_UNAVAILABLE. */
MOE_NODISCARD moe_status shm_door_open(int *fd_out, unsigned char name_out[SHM_NAME], moe_error *err);
/* Makes the memory and hands it in at the door of that name. Errors: MOE_ERR_NOT_FOUND (no such door: another host, or
 * another network namespace), MOE_ERR_NO_MEMORY, MOE_ERR_UNAVAILABLE. */
MOE_NODISCARD moe_status shm_hand_in(const unsigned char name[SHM_NAME], const unsigned char key[SHM_KEY], shm **out,
                                     moe_error *err);
/* Takes the memory that was handed in. Errors: MOE_ERR_NOT_FOUND (none was, with this key), MOE_ERR_CORRUPT (not what
 * shm_hand_in makes), MOE_ERR_UNAVAILABLE. */
MOE_NODISCARD moe_status shm_take(int door, const unsigned char key[SHM_KEY], shm **out, moe_error *err);
void shm_close(shm *s); /* NULL is fine */

/* As the end that made the memory has put it there, or as the other one has found it. */
const unsigned char *shm_token(const shm *s);
/* Readable when the other end wakes this one, or is gone. */
int shm_fd(const shm *s);
/* Takes the bytes that woke us. False: the other end is gone; what it has written can still be read. */
MOE_NODISCARD bool shm_hear(shm *s);

/* As ring_write and ring_read. Then shm_tell, once, when anything was written or read. */
MOE_NODISCARD moe_status shm_write(shm *s, const void *from, size_t n, size_t *n_out);
MOE_NODISCARD moe_status shm_read(shm *s, void *to, size_t n, size_t *n_out);
/* Wakes the other end if it sleeps and waits for what was done since the last call. */
void shm_tell(shm *s);
bool shm_has_bytes(const shm *s);
/* From now on the other end wakes us for bytes, and for room if for_room. False: there is some already. */
MOE_NODISCARD bool shm_sleep(shm *s, bool for_room);
void shm_awake(shm *s);

#endif
