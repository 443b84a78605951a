/* What a stranger sends to a member's tls port: nothing of it may crash the one that was called, and it may not say a
 * byte, because the stranger does not know the secret. */
#include "transport/channel_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static channel_key *key;
    channel *c;
    moe_error err;
    size_t room, said;

    if (key == NULL) {
        MOE_ASSERT(channel_key_open("a secret that no input knows", 28, &key, &err) == MOE_OK);
    }
    MOE_ASSERT(channel_open(key, false, &c) == MOE_OK);
    unsigned char *in = channel_in(c, &room);
    n = MOE_MIN(n, room);
    if (n > 0) {
        memcpy(in, bytes, n);
    }
    channel_received(c, n);
    MOE_ASSERT(channel_handshake(c, &err) != MOE_OK);
    (void)channel_out(c, &said);
    MOE_ASSERT(said == 0);
    channel_close(c);
    return 0;
}
