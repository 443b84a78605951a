/* Any text as HOST:PORT, after a byte that says whether the port may be left out: refused with a reason, or an address
 * that is the same when what is printed of it is read back. */
#include "base/base.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[512], printed[MOE_ADDRESS_BYTES];
    moe_address a, again;
    moe_error err = {.text = ""};
    size_t n = MOE_MIN(size - (size > 0), sizeof text - 1);

    if (size == 0) {
        return 0;
    }
    memcpy(text, data + 1, n);
    text[n] = '\0';
    if (moe_address_parse("--listen", text, data[0] % 2 == 0 ? -1 : 50051, &a, &err) != MOE_OK) {
        MOE_ASSERT(err.text[0] != '\0');
        return 0;
    }
    MOE_ASSERT(strpbrk(a.host, " []/@\n") == NULL && strlen(a.host) < MOE_HOST_BYTES);
    MOE_ASSERT(!(moe_address_is_loopback(&a) && moe_address_is_wildcard(&a)));
    moe_address_print(&a, printed);
    MOE_ASSERT(moe_address_parse("--listen", printed, -1, &again, &err) == MOE_OK);
    MOE_ASSERT(strcmp(a.host, again.host) == 0 && a.port == again.port);
    return 0;
}
