/* How far a program has come that has no engine yet, and from then on whether the engine is ready. */
#include "api/api.h"

void api_loading_set(api_loading *l, const char *what, size_t done, size_t total)
{
    unsigned percent = total > 0 ? (unsigned)(100.0 * (double)MOE_MIN(done, total) / (double)total) : 0;

    atomic_store_explicit(&l->percent, percent, memory_order_relaxed);
    atomic_store(&l->what, what);
}

moe_status api_check_ready(const api_loading *l, engine *e, moe_error *err)
{
    const char *what = l == NULL ? NULL : atomic_load(&l->what);

    if (e != NULL) {
        return engine_check_ready(e, err);
    }
    if (what == NULL) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is starting");
    }
    return moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is starting: %s, %u %%", what,
                    atomic_load_explicit(&l->percent, memory_order_relaxed));
}
