#include "cuda_runtime.h"
#include "fake.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <xmmintrin.h>

#if defined(__SANITIZE_ADDRESS__)
#define FAKE_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(FAKE_TSAN) /* this file itself is not instrumented: what fibres share here is no part of what TSan looks at */
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_write_range(void *p, unsigned long bytes);
extern "C" void __tsan_read_range(void *p, unsigned long bytes);
#endif

#define MAX_THREADS   1024u
#define STACK_BYTES   ((size_t)128 << 10)
#define SHARED_STATIC ((size_t)48 << 10)
#define SHARED_LIMIT  ((size_t)227 << 10)
#define CANARY        16

namespace fake
{
place here;

namespace
{
fake_config config = {FAKE_ASCENDING, FAKE_AT_ONCE, FAKE_LATE, 1, 0, 1};
fake_counts counts;
uint64_t random_state = 1;
uint64_t clock_ns = 1;
struct {
    fake_failure what;
    uint64_t left; /* 0: nothing fails */
    bool broken;
} failure;
std::recursive_mutex lock;

/* Whether this one of its kind is the one that fails. */
bool fails(fake_failure what)
{
    return failure.left > 0 && failure.what == what && --failure.left == 0;
}

uint64_t random_u64()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

bool chosen(fake_when when)
{
    return when == FAKE_AT_ONCE || (when == FAKE_BY_SEED && random_u64() % 3 == 0);
}

void release(void *p)
{
#if defined(FAKE_TSAN)
    __tsan_release(p);
#endif
    (void)p;
}

void acquire(void *p)
{
#if defined(FAKE_TSAN)
    __tsan_acquire(p);
#endif
    (void)p;
}

void written(void *p, size_t bytes)
{
#if defined(FAKE_TSAN)
    __tsan_write_range(p, bytes);
#endif
    (void)p;
    (void)bytes;
}

void read(const void *p, size_t bytes)
{
#if defined(FAKE_TSAN)
    __tsan_read_range(const_cast<void *>(p), bytes);
#endif
    (void)p;
    (void)bytes;
}

void poison(const void *p, size_t bytes)
{
#if defined(FAKE_ASAN)
    __asan_poison_memory_region(p, bytes);
#endif
    (void)p;
    (void)bytes;
}

void unpoison(const void *p, size_t bytes)
{
#if defined(FAKE_ASAN)
    __asan_unpoison_memory_region(p, bytes);
#endif
    (void)p;
    (void)bytes;
}

/* memcpy and memset are functions that TSan watches; these are not, and their target may be read late. */
void copy_bytes(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        static_cast<volatile unsigned char *>(to)[i] = static_cast<const volatile unsigned char *>(from)[i];
    }
}

void fill(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        static_cast<volatile unsigned char *>(p)[i] = 0xff;
    }
}

/* ------------------------------------------------------------------------------------------------ fibres */
enum state { RUN, AT_BARRIER, AT_WARP, AT_COPY, WANTS_SHARED, DONE };

struct pending_copy { /* cp.async */
    void *to;
    const void *from;
    unsigned bytes, group;
    bool done;
};

struct fibre {
    void *sp;
    char *stack;
    state st;
    dim3 tid;
    unsigned n, mask, from, group;
    uint32_t value;
    char kind;
    line at;
    void *fake_stack, *tsan;
    uint64_t *mbarrier; /* waited for */
    unsigned parity;
    std::vector<pending_copy> copies;
};

struct region {
    const void *key;
    unsigned char *bytes;
    size_t size;
};

struct mbarrier {
    uint64_t *at;
    unsigned count, pending, phase;
    long tx;
    char sync;
};

struct bulk {
    void *to;
    const void *from;
    unsigned bytes;
    uint64_t *barrier;
};

struct warp {
    unsigned arrived;
    char sync;
};

fibre fibres[MAX_THREADS];
unsigned n_fibres;
fibre *cur;
warp warps[MAX_THREADS / 32];
std::vector<region> regions;
std::vector<std::unique_ptr<mbarrier>> mbarriers;
std::deque<bulk> bulks;
struct {
    const void *key;
    size_t bytes, alignment;
    void *got;
} wanted; /* a region that a fibre asks for */
size_t dynamic_bytes, shared_bytes, shared_allowed;
bool voted;
const char *kernel_name = "";
const std::function<void()> *body;
void *main_sp;
[[maybe_unused]] void *main_fake_stack, *main_tsan;
[[maybe_unused]] const void *main_bottom;
[[maybe_unused]] size_t main_size;
char block_sync, start_sync, end_sync, main_sync;

extern "C" void fake_switch(void **save, void *load);
asm(".text\n.globl fake_switch\n.type fake_switch,@function\nfake_switch:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");

const char *state_text(const fibre &f)
{
    switch (f.st) {
    case AT_BARRIER:
        return "at a barrier";
    case AT_WARP:
        return "at a collective of its warp";
    case AT_COPY:
        return "waiting for a copy";
    case DONE:
        return "ended";
    default:
        return &f == cur ? "running" : "ready";
    }
}

/* Where every thread is, those that are at one place together; then the end. */
[[noreturn]] void die(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "fake GPU: kernel %s, block (%u,%u,%u): ", kernel_name, here.block.x, here.block.y, here.block.z);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    for (unsigned i = 0; i < n_fibres;) {
        unsigned j = i + 1;
        const fibre &f = fibres[i];

        while (j < n_fibres && fibres[j].st == f.st && fibres[j].at.number == f.at.number && fibres[j].at.file == f.at.file) {
            j++;
        }
        fprintf(stderr, "  threads %u-%u: %s%s%s:%d\n", i, j - 1, state_text(f), f.at.file == nullptr ? "" : f.st == DONE ? ", last " : " ",
                f.at.file == nullptr ? "" : f.at.file, f.at.number);
        i = j;
    }
    fflush(stderr);
    abort();
}

void to_main(bool last)
{
    fibre *f = cur;

    (void)last;
    release(&main_sync); /* the scheduler frees what fibres have allocated; it gives its own order to nobody */
#if defined(FAKE_ASAN)
    __sanitizer_start_switch_fiber(last ? nullptr : &f->fake_stack, main_bottom, main_size);
#endif
#if defined(FAKE_TSAN)
    __tsan_switch_to_fiber(main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    fake_switch(&f->sp, main_sp);
#if defined(FAKE_ASAN)
    __sanitizer_finish_switch_fiber(f->fake_stack, nullptr, nullptr);
#endif
}

void entry()
{
#if defined(FAKE_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
#endif
    acquire(&start_sync);
    (*body)();
    cur->st = DONE;
    for (const pending_copy &c : cur->copies) {
        if (!c.done) {
            die("thread %u ended with a copy that nobody waited for", cur->n);
        }
    }
    release(&end_sync);
    to_main(true);
    abort();
}

void to_fibre(fibre *f)
{
    cur = f;
    here.thread = f->tid;
#if defined(FAKE_ASAN)
    __sanitizer_start_switch_fiber(&main_fake_stack, f->stack, STACK_BYTES);
#endif
#if defined(FAKE_TSAN)
    __tsan_switch_to_fiber(f->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    fake_switch(&main_sp, f->sp);
#if defined(FAKE_ASAN)
    __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr);
#endif
    acquire(&main_sync);
    cur = nullptr;
}

/* ------------------------------------------------------------------------------------------------ shared memory */
unsigned char *region_alloc(size_t bytes)
{
#if defined(FAKE_ASAN)
    size_t total = bytes; /* exact: ASan has its own zones around it */
#else
    size_t total = bytes + CANARY;
#endif
    void *p = nullptr;

    if (posix_memalign(&p, 128, std::max<size_t>(total, 1)) != 0) {
        abort();
    }
    fill(p, total);
    return static_cast<unsigned char *>(p);
}

void region_check(const unsigned char *p, size_t bytes, const char *what)
{
#if defined(FAKE_ASAN)
    (void)p;
    (void)bytes;
    (void)what;
#else
    for (size_t i = 0; i < CANARY; i++) {
        if (p[bytes + i] != 0xff) {
            die("a write behind the %zu bytes of %s", bytes, what);
        }
    }
#endif
}

void *region_of(const void *key, size_t bytes, size_t alignment)
{
    for (const region &r : regions) {
        if (r.key == key) {
            return r.bytes;
        }
    }
    shared_bytes += bytes;
    if (alignment > 128 || shared_bytes - dynamic_bytes > SHARED_STATIC || shared_bytes > std::max(shared_allowed, SHARED_STATIC)) {
        die("%zu bytes of shared memory, %zu of them dynamic: more than the kernel may have", shared_bytes, dynamic_bytes);
    }
    regions.push_back({key, region_alloc(bytes), bytes});
    release(&regions);
    return regions.back().bytes;
}

void shared_clear()
{
    for (const region &r : regions) {
        region_check(r.bytes, r.size, "a shared region");
        unpoison(r.bytes, r.size);
        free(r.bytes);
    }
    regions.clear();
    mbarriers.clear();
    shared_bytes = 0;
}

void *ask_shared(const void *key, size_t bytes, size_t alignment)
{
    for (const region &r : regions) {
        if (r.key == key) {
            acquire(&regions);
            return r.bytes;
        }
    }
    wanted = {key, bytes, alignment, nullptr}; /* made by the scheduler, so that no thread of the kernel is its writer */
    cur->st = WANTS_SHARED;
    to_main(false);
    acquire(&regions);
    return wanted.got;
}

/* ------------------------------------------------------------------------------------------------ mbarriers, copies */
mbarrier &mbarrier_of(uint64_t *at, const char *what)
{
    for (auto &b : mbarriers) {
        if (b->at == at) {
            return *b;
        }
    }
    die("%s: no mbarrier was initialised there", what);
}

void mbarrier_settle(mbarrier &b)
{
    if (b.pending == 0 && b.tx == 0) {
        b.pending = b.count;
        b.phase++;
        for (unsigned i = 0; i < n_fibres; i++) {
            fibre &f = fibres[i];

            if (f.st == AT_COPY && f.mbarrier == b.at && (b.phase & 1) != f.parity) {
                f.st = RUN;
            }
        }
    }
}

void bulk_finish(const bulk &c)
{
    mbarrier &b = mbarrier_of(c.barrier, "a bulk copy");

    unpoison(c.to, c.bytes);
    copy_bytes(c.to, c.from, c.bytes);
    b.tx -= (long)c.bytes;
    mbarrier_settle(b);
}

bool bulk_progress(bool stuck)
{
    bool any = false;

    while (!bulks.empty() && (stuck || chosen(config.copies))) {
        size_t i = config.copies == FAKE_BY_SEED ? random_u64() % bulks.size() : 0;
        bulk c = bulks[i];

        bulks.erase(bulks.begin() + (long)i);
        counts.late_copies += stuck;
        bulk_finish(c);
        any = true;
        if (stuck) {
            break;
        }
    }
    return any;
}

/* ------------------------------------------------------------------------------------------------ blocks */
void fibre_start(unsigned i, dim3 b)
{
    fibre &f = fibres[i];
    void **sp;

    if (f.stack == nullptr) {
        f.stack = static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    }
    unpoison(f.stack, STACK_BYTES); /* the fibre that ended there never returned from its frames */
    f.st = RUN;
    f.n = i;
    f.tid = dim3(i % b.x, i / b.x % b.y, i / b.x / b.y);
    f.at = {nullptr, 0};
    f.fake_stack = nullptr;
    f.copies.clear();
    f.group = 0;
#if defined(FAKE_TSAN)
    if (f.tsan == nullptr) {
        f.tsan = __tsan_create_fiber(0);
    }
#endif
    sp = reinterpret_cast<void **>(f.stack + STACK_BYTES - 64);
    *--sp = nullptr;
    *--sp = reinterpret_cast<void *>(entry);
    sp -= 6;
    std::fill(sp, sp + 6, nullptr);
    f.sp = sp;
}

void barrier_settle()
{
    const fibre *first = nullptr;
    unsigned waiting = 0, done = 0;

    for (unsigned i = 0; i < n_fibres; i++) {
        done += fibres[i].st == DONE;
        if (fibres[i].st == AT_BARRIER) {
            waiting++;
            if (first == nullptr) {
                first = &fibres[i];
            } else if (first->at.number != fibres[i].at.number || first->at.file != fibres[i].at.file) {
                die("threads %u and %u are at different barriers", first->n, i);
            }
        }
    }
    if (waiting > 0 && waiting + done == n_fibres) {
        if (done > 0) {
            die("a barrier that %u threads never reach: they ended", done);
        }
        for (unsigned i = 0; i < n_fibres; i++) {
            fibres[i].st = RUN;
        }
    }
}

void block_run()
{
    static unsigned order[MAX_THREADS];

    for (unsigned i = 0; i < n_fibres; i++) {
        order[i] = config.order == FAKE_DESCENDING ? n_fibres - 1 - i : i;
    }
    for (unsigned done = 0; done < n_fibres;) {
        bool ran = false;

        if (config.order == FAKE_SEEDED) {
            for (unsigned i = n_fibres; i > 1; i--) {
                std::swap(order[i - 1], order[random_u64() % i]);
            }
        }
        for (unsigned i = 0; i < n_fibres; i++) {
            fibre *f = &fibres[order[i]];

            while (f->st == RUN || f->st == WANTS_SHARED) {
                if (f->st == WANTS_SHARED) {
                    wanted.got = region_of(wanted.key, wanted.bytes, wanted.alignment);
                    f->st = RUN;
                }
                to_fibre(f);
                ran = true;
                if (f->st == RUN) {
                    break; /* the last lane of a collective gave way */
                }
            }
        }
        barrier_settle();
        ran = bulk_progress(false) || ran;
        done = 0;
        for (unsigned i = 0; i < n_fibres; i++) {
            done += fibres[i].st == DONE;
            ran = ran || fibres[i].st == RUN;
        }
        if (!ran && done < n_fibres && !bulk_progress(true)) {
            die("no thread can go on");
        }
    }
    if (!bulks.empty()) {
        die("the block ended with a bulk copy that nobody waited for");
    }
}

void kernel_run(const char *name, dim3 grid, dim3 block, size_t dynamic, size_t allowed, const std::function<void()> &f)
{
    uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z, step = 1, at = 0;
    unsigned saved = _mm_getcsr();

    kernel_name = name;
    n_fibres = block.x * block.y * block.z;
    dynamic_bytes = dynamic;
    shared_allowed = allowed;
    body = &f;
    here.grid_dim = grid;
    here.block_dim = block;
    counts.kernels++;
    counts.blocks += n_blocks;
    clock_ns += FAKE_KERNEL_NS + n_blocks;
#if defined(FAKE_TSAN)
    main_tsan = __tsan_get_current_fiber();
#endif
    if (config.order == FAKE_SEEDED && n_blocks > 2) { /* a stride that shares no factor visits every block once */
        do {
            step = random_u64() % n_blocks;
        } while (step == 0 || std::__gcd(step, n_blocks) != 1);
        at = random_u64() % n_blocks;
    }
    mbarriers.reserve(1024); /* so that no fibre frees what another has allocated: TSan would take it for the kernel's doing */
    _mm_setcsr((saved & ~0x3fu) | 0x8040u);
    for (uint64_t i = 0; i < n_blocks; i++, at = (at + step) % n_blocks) {
        uint64_t b = config.order == FAKE_DESCENDING ? n_blocks - 1 - i : at;

        here.block = dim3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y));
        for (unsigned w = 0; w * 32 < n_fibres; w++) {
            warps[w].arrived = 0;
        }
        if (dynamic > 0) {
            (void)region_of(&dynamic_bytes, dynamic, 16);
        }
        release(&start_sync);
        for (unsigned t = 0; t < n_fibres; t++) {
            fibre_start(t, block);
        }
        block_run();
        acquire(&end_sync); /* for TSan, blocks come after each other: their conflicts show as another answer in another order */
        shared_clear();
    }
    _mm_setcsr(saved);
    n_fibres = 0;
    kernel_name = "";
}

/* All lanes of mask meet at one line; the last one gives all of them what they asked for. */
uint32_t collective(unsigned mask, char kind, uint32_t value, unsigned from, line at)
{
    fibre *me = cur, *first = &fibres[me->n & ~31u];
    unsigned w = me->n / 32, lane = me->n & 31u;

    me->mask = mask;
    me->kind = kind;
    me->value = value;
    me->from = from;
    me->at = at;
    if ((mask >> lane & 1u) == 0) {
        die("thread %u: a collective whose mask %08x lacks it", me->n, mask);
    }
    for (unsigned i = 0; i < 32; i++) {
        if ((warps[w].arrived >> i & 1u) != 0 && (first[i].mask != mask || first[i].kind != kind || first[i].at.number != at.number)) {
            die("threads %u and %u of one warp are at different collectives", first[i].n, me->n);
        }
    }
    if (kind == 'b') {
        release(&warps[w].sync);
    }
    warps[w].arrived |= 1u << lane;
    if (warps[w].arrived == mask) {
        uint32_t in[32] = {0}, votes = 0;

        warps[w].arrived = 0;
        for (unsigned i = 0; i < 32; i++) {
            if ((mask >> i & 1u) != 0) {
                in[i] = first[i].value;
                votes |= (uint32_t)(first[i].value != 0) << i;
            }
        }
        for (unsigned i = 0; i < 32; i++) {
            if ((mask >> i & 1u) == 0) {
                continue;
            }
            if (kind == 's' && (mask >> first[i].from & 1u) == 0) {
                die("thread %u: a shuffle from lane %u, which takes no part", first[i].n, first[i].from);
            }
            first[i].value = kind == 's' ? in[first[i].from] : votes;
            if (&first[i] != me) {
                first[i].st = RUN;
            }
        }
    } else {
        me->st = AT_WARP;
        to_main(false);
    }
    if (kind == 'b') {
        acquire(&warps[w].sync);
    }
    return me->value;
}
} // namespace

void barrier(line at)
{
    cur->at = at;
    release(&block_sync);
    cur->st = AT_BARRIER;
    to_main(false);
    acquire(&block_sync);
}

bool barrier_or(bool value, line at)
{
    bool result;

    barrier(at); /* nobody reads the last vote any more */
    if (cur->n == 0) {
        voted = false;
    }
    barrier(at);
    voted = voted || value;
    barrier(at);
    result = voted;
    barrier(at);
    return result;
}

void warp_barrier(unsigned mask, line at)
{
    (void)collective(mask, 'b', 0, 0, at);
}

uint32_t shuffle(unsigned mask, uint32_t value, unsigned from, line at)
{
    return collective(mask, 's', value, from & 31u, at);
}

uint32_t ballot(unsigned mask, bool value, line at)
{
    return collective(mask, 'v', value, 0, at);
}

void *shared_region(const void *key, size_t bytes, size_t alignment)
{
    return ask_shared(key, bytes, alignment);
}

void *shared_dynamic()
{
    if (dynamic_bytes == 0) {
        die("dynamic shared memory in a launch without any");
    }
    return ask_shared(&dynamic_bytes, dynamic_bytes, 16);
}

uint64_t atomic_add(uint64_t *p, uint64_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

namespace
{
void check_shared(const void *p, size_t bytes, size_t alignment)
{
    for (const region &r : regions) {
        if (p >= r.bytes && static_cast<const unsigned char *>(p) + bytes <= r.bytes + r.size) {
            if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
                die("thread %u: an asynchronous copy to %p, which is not %zu-byte aligned", cur->n, p, alignment);
            }
            return;
        }
    }
    die("thread %u: an asynchronous copy of %zu bytes that is not inside a shared region", cur->n, bytes);
}

void check_global(const void *p, size_t bytes, size_t alignment);
} // namespace

void copy_async(void *shared, const void *global, unsigned bytes)
{
    pending_copy c = {shared, global, bytes, cur->group, false};

    if (bytes != 4 && bytes != 8 && bytes != 16) {
        die("cp.async of %u bytes", bytes);
    }
    check_shared(shared, bytes, bytes);
    check_global(global, bytes, bytes);
    counts.copies++;
    written(shared, bytes);
    fill(shared, bytes);
    poison(shared, bytes);
    if (chosen(config.copies)) { /* there, but not to be read before the wait */
        unpoison(shared, bytes);
        copy_bytes(shared, global, bytes);
        c.done = true;
        poison(shared, bytes);
    }
    cur->copies.push_back(c);
}

void copy_async_commit()
{
    cur->group++;
}

void copy_async_wait(unsigned pending)
{
    std::vector<pending_copy> left;

    for (const pending_copy &c : cur->copies) {
        if (c.group + pending < cur->group) {
            unpoison(c.to, c.bytes);
            read(c.from, c.bytes);
            if (!c.done) {
                counts.late_copies++;
                copy_bytes(c.to, c.from, c.bytes);
            }
            written(c.to, c.bytes);
        } else {
            left.push_back(c);
        }
    }
    cur->copies = left;
}

void bulk_copy(void *shared, const void *global, unsigned bytes, uint64_t *barrier, line at)
{
    cur->at = at;
    if (bytes == 0 || bytes % 16 != 0) {
        die("cp.async.bulk of %u bytes", bytes);
    }
    check_shared(shared, bytes, 16);
    check_global(global, bytes, 16);
    counts.copies++;
    written(shared, bytes);
    release(&mbarrier_of(barrier, "a bulk copy").sync);
    fill(shared, bytes);
    poison(shared, bytes);
    bulks.push_back({shared, global, bytes, barrier});
    if (config.copies == FAKE_AT_ONCE) {
        (void)bulk_progress(false);
    }
}

void mbarrier_init(uint64_t *at_, unsigned count, line at)
{
    cur->at = at;
    check_shared(at_, 8, 8);
    for (auto &b : mbarriers) {
        if (b->at == at_) {
            die("an mbarrier is initialised twice");
        }
    }
    mbarriers.emplace_back(new mbarrier{at_, count, count, 0, 0, 0});
    written(at_, 8);
}

void mbarrier_arrive(uint64_t *at_, unsigned expect_bytes, line at)
{
    mbarrier &b = mbarrier_of(at_, "an arrival");

    cur->at = at;
    read(at_, 8); /* after the initialisation */
    if (b.pending == 0) {
        die("thread %u: more arrivals at an mbarrier than its %u", cur->n, b.count);
    }
    release(&b.sync);
    b.tx += (long)expect_bytes;
    b.pending--;
    mbarrier_settle(b);
}

void mbarrier_wait(uint64_t *at_, unsigned parity, line at)
{
    mbarrier &b = mbarrier_of(at_, "a wait");

    cur->at = at;
    read(at_, 8);
    if ((b.phase & 1u) == parity) {
        cur->mbarrier = at_;
        cur->parity = parity;
        cur->st = AT_COPY;
        to_main(false);
    }
    acquire(&b.sync);
}

/* ------------------------------------------------------------------------------------------------ device memory */
namespace
{
struct allocation {
    size_t bytes;
    bool device;
};
std::map<uintptr_t, allocation> allocations;
cudaError_t last_error;

cudaError_t fail(cudaError_t e)
{
    last_error = e == cudaSuccess ? last_error : e;
    return e;
}

[[noreturn]] void refuse(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "fake GPU: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    fflush(stderr);
    abort();
}

const allocation *allocation_of(const void *p, size_t bytes)
{
    uintptr_t u = reinterpret_cast<uintptr_t>(p);
    auto it = allocations.upper_bound(u);

    if (it == allocations.begin()) {
        return nullptr;
    }
    --it;
    return u + bytes <= it->first + it->second.bytes ? &it->second : nullptr;
}

void check_global(const void *p, size_t bytes, size_t alignment)
{
    const allocation *a = allocation_of(p, bytes);

    if (a == nullptr || !a->device) {
        die("thread %u: a copy of %zu bytes from %p, which is not inside an allocation of the device", cur->n, bytes, p);
    }
    if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
        die("thread %u: a copy from %p, which is not %zu-byte aligned", cur->n, p, alignment);
    }
}

void device_open(bool open)
{
#if defined(FAKE_ASAN)
    for (const auto &a : allocations) {
        if (a.second.device) {
            (open ? unpoison : poison)(reinterpret_cast<void *>(a.first), a.second.bytes);
        }
    }
#endif
    if (!open) {
        for (const auto &a : allocations) {
            region_check(reinterpret_cast<unsigned char *>(a.first), a.second.bytes, a.second.device ? "a device allocation" : "a pinned allocation");
        }
    }
}

cudaError_t allocate(void **out, size_t bytes, bool device)
{
    std::lock_guard<std::recursive_mutex> g(lock);
    size_t limit = config.memory_bytes == 0 ? (size_t)1 << 30 : config.memory_bytes;

    *out = nullptr;
    if (failure.broken || fails(FAKE_ALLOCATION)) {
        return fail(failure.broken ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation);
    }
    if (device && (bytes > limit || counts.device_bytes > limit - bytes)) {
        return fail(cudaErrorMemoryAllocation);
    }
    unsigned char *p = region_alloc(bytes);
    if (device) {
        poison(p, bytes);
    }
    (device ? counts.device_bytes : counts.pinned_bytes) += bytes;
    allocations[reinterpret_cast<uintptr_t>(p)] = {bytes, device};
    *out = p;
    return cudaSuccess;
}

cudaError_t deallocate(void *p, bool device);
} // namespace

void check_argument(const void *p, const char *kernel)
{
    std::lock_guard<std::recursive_mutex> g(lock);
    const allocation *a = p == nullptr ? nullptr : allocation_of(p, 0);

    if (p != nullptr && (a == nullptr || !a->device)) {
        refuse("kernel %s: argument %p is no pointer of the device", kernel, p);
    }
}
} // namespace fake

/* ------------------------------------------------------------------------------------------------ streams */
using namespace fake;

/* What every call says once the device is broken. */
#define FAKE_UNLESS_BROKEN()                                                                                           \
    do {                                                                                                               \
        if (failure.broken) {                                                                                          \
            return fake::fail(cudaErrorIllegalAddress);                                                                \
        }                                                                                                              \
    } while (0)

struct CUevent_st {
    cudaStream_t stream;
    uint64_t at; /* ends with this many operations of the stream; 0: not recorded */
    bool timed;
    std::shared_ptr<uint64_t> ns; /* when that was; outlives the event in what is queued */
};

struct queued_op {
    std::function<void()> op;
    uint64_t turn; /* of all that was ever queued */
    bool kernel;
};

struct CUgraph_st {
    std::vector<queued_op> ops;
};

struct CUgraphExec_st {
    std::vector<queued_op> ops;
};

struct CUstream_st {
    std::deque<queued_op> queue;
    cudaGraph_t captured = nullptr; /* owned; what is queued goes there */
    uint64_t done = 0, queued = 0;
};

namespace
{
std::vector<cudaStream_t> streams;
std::map<const void *, size_t> allowed_shared;
uint64_t turns;

void stream_run(cudaStream_t s, uint64_t until)
{
    while (s->done < until) {
        std::function<void()> op = std::move(s->queue.front().op);

        s->queue.pop_front();
        op();
        s->done++;
    }
}

/* A kernel that was queued before this turn is still to be run. */
bool kernel_waits(uint64_t turn)
{
    for (cudaStream_t s : streams) {
        for (const queued_op &q : s->queue) {
            if (q.kernel && q.turn < turn) {
                return true;
            }
        }
    }
    return false;
}

void check_stream(cudaStream_t s)
{
    if (std::find(streams.begin(), streams.end(), s) == streams.end()) {
        refuse("%p is no stream", static_cast<void *>(s));
    }
}

void stream_push(cudaStream_t s, std::function<void()> op, bool kernel = false)
{
    check_stream(s);
    if (s->captured != nullptr) {
        refuse("an event or a wait on a stream that is captured");
    }
    s->queue.push_back({std::move(op), turns++, kernel});
    s->queued++;
    if (config.streams == FAKE_AT_ONCE) {
        stream_run(s, s->queued);
    } else if (config.streams == FAKE_BY_SEED) {
        cudaStream_t any = streams[random_u64() % streams.size()];

        stream_run(any, any->done + random_u64() % (any->queued - any->done + 1));
    }
}

/* Something that may fail. */
void stream_work(cudaStream_t s, std::function<void()> op, bool kernel = false)
{
    check_stream(s);
    if (s->captured != nullptr) {
        s->captured->ops.push_back({std::move(op), 0, kernel});
        return;
    }
    bool bad = fails(FAKE_WORK);

    stream_push(s, [=] {
        failure.broken = failure.broken || bad;
        if (!failure.broken) {
            device_open(true);
            op();
            device_open(false);
        }
    }, kernel);
}

void all_run()
{
    for (cudaStream_t s : streams) {
        stream_run(s, s->queued);
    }
}
} // namespace

namespace fake
{
namespace
{
cudaError_t deallocate(void *p, bool device)
{
    std::lock_guard<std::recursive_mutex> g(lock);
    auto it = allocations.find(reinterpret_cast<uintptr_t>(p));

    if (p == nullptr) {
        return cudaSuccess;
    }
    if (it == allocations.end() || it->second.device != device) {
        refuse("%p is freed and is no %s allocation", p, device ? "device" : "pinned");
    }
    all_run();
    region_check(static_cast<unsigned char *>(p), it->second.bytes, "an allocation");
    (device ? counts.device_bytes : counts.pinned_bytes) -= it->second.bytes;
    unpoison(p, it->second.bytes);
    allocations.erase(it);
    free(p);
    return cudaSuccess;
}
} // namespace

void allow_shared(const void *kernel, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> g(lock);

    if (bytes > SHARED_LIMIT) {
        refuse("a kernel asks for %zu bytes of shared memory; the limit is %zu", bytes, SHARED_LIMIT);
    }
    allowed_shared[kernel] = bytes;
}

void launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream, std::function<void()> f)
{
    std::lock_guard<std::recursive_mutex> g(lock);
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    auto it = allowed_shared.find(kernel);
    size_t allowed = it == allowed_shared.end() ? SHARED_STATIC : std::max(SHARED_STATIC, it->second);

    if (threads == 0 || threads > MAX_THREADS || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || shared > allowed) {
        (void)fail(cudaErrorInvalidConfiguration);
        return;
    }
    if (failure.broken || fails(FAKE_LAUNCH)) {
        (void)fail(failure.broken ? cudaErrorIllegalAddress : cudaErrorInvalidConfiguration);
        return;
    }
    stream_work(stream, [=] { kernel_run(name, grid, block, shared, allowed, f); }, true);
}
} // namespace fake

extern "C" {
void fake_configure(const fake_config *c)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    all_run();
    config = *c;
    random_state = c->seed * 2654435761u + 88172645463325252u;
}

void fake_read_counts(fake_counts *out)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    *out = counts;
}

void fake_fail(fake_failure what, uint64_t nth)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    failure = {what, nth, false};
    last_error = cudaSuccess;
}

uint64_t fake_clock_ns(void)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    return clock_ns;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    default:
        return "error of the fake GPU";
    }
}

cudaError_t cudaGetLastError(void)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);
    cudaError_t e = failure.broken ? cudaErrorIllegalAddress : last_error;

    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (config.n_devices == 0) {
        return cudaErrorInsufficientDriver;
    }
    *count = config.n_devices;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device < 0 || device >= config.n_devices ? cudaErrorInvalidDevice : cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    if (device < 0 || device >= config.n_devices) {
        return cudaErrorInvalidDevice;
    }
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "fake GPU %d", device);
    out->totalGlobalMem = config.memory_bytes == 0 ? (size_t)1 << 30 : config.memory_bytes;
    out->sharedMemPerBlockOptin = SHARED_LIMIT;
    out->major = FAKE_ARCH / 10;
    out->minor = FAKE_ARCH % 10;
    out->multiProcessorCount = 4;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    *total_bytes = config.memory_bytes == 0 ? (size_t)1 << 30 : config.memory_bytes;
    *free_bytes = *total_bytes - counts.device_bytes;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    return allocate(out, bytes, true);
}

cudaError_t cudaFree(void *p)
{
    return deallocate(p, true);
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags)
{
    (void)flags;
    return allocate(out, bytes, false);
}

cudaError_t cudaFreeHost(void *p)
{
    return deallocate(p, false);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);
    const allocation *a = allocation_of(to, bytes), *b = allocation_of(from, bytes);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
         from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

    if (a == nullptr || a->device != to_device) {
        refuse("a copy of %zu bytes to %p, which is not inside %s allocation", bytes, to, to_device ? "a device" : "a pinned");
    }
    if (b == nullptr || b->device != from_device) {
        refuse("a copy of %zu bytes from %p, which is not inside %s allocation", bytes, from, from_device ? "a device" : "a pinned");
    }
    FAKE_UNLESS_BROKEN();
    if (kind == cudaMemcpyDeviceToHost) {
        memset(to, 0xff, bytes);
    }
    uint64_t turn = turns;
    stream_work(stream, [=] {
        counts.early_uploads += kind == cudaMemcpyHostToDevice && kernel_waits(turn);
        memmove(to, from, bytes);
        clock_ns += FAKE_COPY_NS + bytes;
    });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);
    const allocation *a = allocation_of(to, bytes);

    if (a == nullptr || !a->device) {
        refuse("%zu bytes at %p are set, which are not inside a device allocation", bytes, to);
    }
    FAKE_UNLESS_BROKEN();
    stream_work(stream, [=] {
        memset(to, value, bytes);
        clock_ns += FAKE_COPY_NS + bytes;
    });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    (void)flags;
    *out = new CUstream_st;
    streams.push_back(*out);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);
    auto it = std::find(streams.begin(), streams.end(), s);

    if (it == streams.end()) {
        refuse("%p is destroyed and is no stream", static_cast<void *>(s));
    }
    stream_run(s, s->queued);
    streams.erase(it);
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    (void)mode;
    check_stream(s);
    FAKE_UNLESS_BROKEN();
    if (s->captured != nullptr) {
        return fake::fail(cudaErrorInvalidValue);
    }
    s->captured = new CUgraph_st;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    *out = s->captured;
    s->captured = nullptr;
    return *out != nullptr ? cudaSuccess : fake::fail(cudaErrorInvalidValue);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    (void)flags;
    FAKE_UNLESS_BROKEN();
    if (fails(FAKE_ALLOCATION) || fails(FAKE_GRAPH)) {
        return fake::fail(cudaErrorMemoryAllocation);
    }
    *out = new CUgraphExec_st{graph->ops};
    counts.graphs_held++;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    FAKE_UNLESS_BROKEN();
    if (fails(FAKE_LAUNCH)) {
        return fake::fail(cudaErrorInvalidConfiguration);
    }
    counts.graphs++;
    for (const queued_op &q : graph->ops) {
        stream_work(s, q.op, q.kernel);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    counts.graphs_held--;
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    if (s->captured != nullptr) {
        refuse("a host waits for a stream that is captured");
    }
    counts.host_waits += s->done < s->queued;
    stream_run(s, s->queued);
    FAKE_UNLESS_BROKEN();
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    *out = new CUevent_st{nullptr, 0, (flags & cudaEventDisableTiming) == 0, nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    FAKE_UNLESS_BROKEN();
    std::shared_ptr<uint64_t> ns = std::make_shared<uint64_t>(0);

    stream_push(s, [=] { *ns = clock_ns; });
    e->stream = s;
    e->at = s->queued;
    e->ns = ns;
    return cudaSuccess;
}

static void event_run(cudaStream_t s, uint64_t at)
{
    if (s != nullptr && std::find(streams.begin(), streams.end(), s) != streams.end() && s->done < at) {
        stream_run(s, at);
    }
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);
    cudaStream_t of = e->stream;
    uint64_t at = e->at;

    FAKE_UNLESS_BROKEN();
    (void)flags;
    stream_push(s, [=] { event_run(of, at); });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    counts.host_waits += e->stream != nullptr && e->stream->done < e->at;
    event_run(e->stream, e->at);
    FAKE_UNLESS_BROKEN();
    return cudaSuccess;
}

/* One that asks often enough sees it end. */
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    if (e->stream != nullptr && e->stream->done < e->at) {
        stream_run(e->stream, e->stream->done + 1);
    }
    FAKE_UNLESS_BROKEN();
    return e->stream != nullptr && e->stream->done < e->at ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    std::lock_guard<std::recursive_mutex> g(fake::lock);

    FAKE_UNLESS_BROKEN();
    if (!from->timed || !to->timed || from->ns == nullptr || to->ns == nullptr) {
        return fake::fail(cudaErrorInvalidResourceHandle);
    }
    if (*from->ns == 0 || *to->ns == 0) {
        return fake::fail(cudaErrorNotReady);
    }
    *ms = (float)((double)(int64_t)(*to->ns - *from->ns) * 1e-6);
    return cudaSuccess;
}
}
