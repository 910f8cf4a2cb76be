/* The barrier at which the threads of an epoch meet between two phases.
 *
 * team[TEAM_ARRIVED] counts those that have arrived, team[TEAM_MEETINGS] the meetings (in another cache
 * line). A thread spins for a few microseconds, which is how long a phase's tail takes, and then yields
 * each time it checks, so that two processes on one core do not hold each other up.
 *
 * The caller stops a step by setting team[TEAM_STOP] from a thread of its own. Rank 0 alone reads it,
 * before a meeting, and writes the number of that meeting to team[TEAM_LAST]: after it, all threads read
 * the same number and leave together. A late one cannot mistake it, since the number counts meetings.
 *
 * A thread that cannot take part sets team[TEAM_ABORTED]. That happens only before the first meeting of
 * an epoch: the meeting fails for all threads, and none has written anything. */
#ifndef CMLP_BARRIER_H
#define CMLP_BARRIER_H

#include <stdint.h>

#if defined(_MSC_VER)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
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

enum {
    TEAM_ARRIVED = 0, TEAM_MEETINGS = 8, TEAM_ABORTED = 9, TEAM_STEPS = 10, TEAM_STOP = 11, TEAM_LAST = 12,
    TEAM_SIZE = 16, /* those that Python reads or writes are in seam.py, too: check_codes compares them */
    SPINS = 2000
};

/* Wait for the others; 0 if one of them failed to start. */
static inline int barrier_wait(int64_t *team, int64_t n_threads)
{
    if (n_threads == 1) return 1;
    int64_t meeting = ATOMIC_LOAD(&team[TEAM_MEETINGS]);
    if (ATOMIC_ADD(&team[TEAM_ARRIVED]) == n_threads - 1) {
        if (ATOMIC_LOAD(&team[TEAM_ABORTED])) return 0; /* the last one came late: the others have left */
        ATOMIC_STORE(&team[TEAM_ARRIVED], 0);
        ATOMIC_STORE(&team[TEAM_MEETINGS], meeting + 1);
        return 1;
    }
    for (int spin = 0; ATOMIC_LOAD(&team[TEAM_MEETINGS]) == meeting; spin++) {
        if (spin < SPINS) PAUSE();
        else if (ATOMIC_LOAD(&team[TEAM_ABORTED])) return 0;
        else YIELD();
    }
    return 1;
}

/* Rank 0, before a meeting: make it the last one if the caller has set TEAM_STOP. */
static inline void relay_stop(int64_t *team)
{
    if (ATOMIC_LOAD(&team[TEAM_STOP]) && !ATOMIC_LOAD(&team[TEAM_LAST]))
        ATOMIC_STORE(&team[TEAM_LAST], ATOMIC_LOAD(&team[TEAM_MEETINGS]) + 1);
}

/* Whether the meeting that has just ended was the last one. */
static inline int stop_relayed(int64_t *team, int64_t n_threads)
{
    if (n_threads == 1) return ATOMIC_LOAD(&team[TEAM_LAST]) != 0;
    int64_t last = ATOMIC_LOAD(&team[TEAM_LAST]);
    return last != 0 && last <= ATOMIC_LOAD(&team[TEAM_MEETINGS]);
}

#endif
