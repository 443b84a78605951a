/* The fake GPU: the kernels of compute/cuda, compiled by g++, run on one core. What it is for is to find faults, not to be fast.
 *
 *   threads    Every CUDA thread is a fibre (under ASan and TSan one of theirs). It runs until a barrier, a warp's collective, a wait for a copy, or its end.
 *   order      Blocks and fibres run ascending, descending, or shuffled by a seed. A result that depends on it is a race.
 *   barriers   A barrier must be reached by every thread of the block, from one line; a collective by every lane of its mask. Else the process ends with the
 *              line of every thread. TSan sees them as the only order among threads; a shuffle orders nothing.
 *   memory     Every device allocation and every shared region is an allocation of its exact size, filled with 0xff (a NaN). Outside of kernels and copies,
 *              ASan has device memory poisoned. Copies check that their host end is pinned and their device end lies in one allocation; pointers that are
 *              arguments of a kernel must be a device's.
 *   copies     Asynchronous copies into shared memory complete at once, by seed, or as late as they may; until somebody waits for them their
 *              target is poisoned and filled with 0xff.
 *   streams    What is queued runs at once, by seed, or when it is waited for; the target of a copy to the host is 0xff until then.
 *   graphs     A stream that is captured keeps kernels and copies, with their arguments as they are then, and runs none; events and waits on it are refused. A graph
 *              that is launched queues all of them again.
 *   time       Events have the time of a clock that only the device moves: by kernels, their blocks, and copied bytes. It is the same in every run.
 *   failures   Asked for, the n-th allocation, launch, or whatever else was queued fails; after the last kind every call says so.
 *   limits     1024 threads, 48 KB of shared memory (227 KB where the kernel asked), grids, alignment.
 *   floats     FTZ and DAZ are set while a kernel runs, as -ftz=true does.
 *
 * One lock for all: calls of several host threads are taken in turn. */
#ifndef FAKE_H
#define FAKE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FAKE_ASCENDING, FAKE_DESCENDING, FAKE_SEEDED } fake_order;
typedef enum { FAKE_AT_ONCE, FAKE_LATE, FAKE_BY_SEED } fake_when;

typedef struct fake_config {
    fake_order order;          /* of blocks and fibres */
    fake_when copies, streams; /* completion of asynchronous copies in kernels, and of what is queued on streams */
    uint64_t seed;
    size_t memory_bytes; /* of the device; 0: 1 GB */
    int n_devices;       /* cudaGetDeviceCount; 0: no driver */
} fake_config;

void fake_configure(const fake_config *config);

/* Counted from the call: the nth of its kind fails. nth 0: nothing does, and a broken device is whole again. */
typedef enum {
    FAKE_ALLOCATION, /* of the device's memory, or pinned: there is none */
    FAKE_LAUNCH,     /* is refused */
    FAKE_GRAPH,      /* cannot be made of what was captured */
    FAKE_WORK /* a kernel, a copy or a setting of memory, when it runs: it and all that comes later is not done */
} fake_failure;
void fake_fail(fake_failure what, uint64_t nth);
uint64_t fake_clock_ns(void);
#define FAKE_KERNEL_NS 1000u /* and one for every block */
#define FAKE_COPY_NS   500u  /* and one for every byte */

typedef struct fake_counts {
    uint64_t kernels, blocks, copies, late_copies; /* late: copies that were pending when nothing else could run */
    uint64_t host_waits;                           /* synchronisations that found something queued */
    uint64_t graphs, graphs_held;                  /* launched; not destroyed */
    uint64_t early_uploads;                        /* copies from the host that overtook a kernel queued before them */
    size_t device_bytes, pinned_bytes;             /* held */
} fake_counts;

void fake_read_counts(fake_counts *out);

#ifdef __cplusplus
}
#endif
#endif
