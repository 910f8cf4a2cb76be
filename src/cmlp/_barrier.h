/* Where the threads of an epoch meet between two phases.
 *
 * team[0] counts those that have arrived, team[8] counts the meetings (another cache line). A thread
 * spins for a few microseconds, which is how long a phase's tail takes, and then yields at every look,
 * so that two processes on one core do not hold each other up. A thread that cannot take part (it failed
 * before the first phase) sets team[TEAM_ABORTED]; then nobody waits, and the caller throws the result away. */
#ifndef CMLP_BARRIER_H
#define CMLP_BARRIER_H

#include <stdint.h>

#if defined(_MSC_VER)
#include <intrin.h>
#include <windows.h>
#define ATOMIC_ADD(p) (_InterlockedIncrement64((volatile long long *)(p)) - 1)
#define ATOMIC_LOAD(p) _InterlockedOr64((volatile long long *)(p), 0)
#define ATOMIC_STORE(p, v) _InterlockedExchange64((volatile long long *)(p), (v))
#define YIELD() SwitchToThread()
#else
#include <sched.h>
#define ATOMIC_ADD(p) __atomic_fetch_add((p), 1, __ATOMIC_ACQ_REL)
#define ATOMIC_LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define ATOMIC_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define YIELD() sched_yield()
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <emmintrin.h>
#define PAUSE() _mm_pause()
#elif defined(__aarch64__) && !defined(_MSC_VER)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE()
#endif

enum { TEAM_ARRIVED = 0, TEAM_MEETINGS = 8, TEAM_ABORTED = 9, SPINS = 2000 };

static inline void barrier_wait(int64_t *team, int64_t n_threads)
{
    if (n_threads == 1) return;
    int64_t meeting = ATOMIC_LOAD(&team[TEAM_MEETINGS]);
    if (ATOMIC_ADD(&team[TEAM_ARRIVED]) == n_threads - 1) {
        ATOMIC_STORE(&team[TEAM_ARRIVED], 0);
        ATOMIC_STORE(&team[TEAM_MEETINGS], meeting + 1);
        return;
    }
    for (int spin = 0; ATOMIC_LOAD(&team[TEAM_MEETINGS]) == meeting; spin++) {
        if (spin < SPINS) PAUSE();
        else if (ATOMIC_LOAD(&team[TEAM_ABORTED])) return;
        else YIELD();
    }
}

#endif
