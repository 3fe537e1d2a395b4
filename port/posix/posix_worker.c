/* SPDX-License-Identifier: MIT */
/* A worker is one thread that takes jobs from one ring and puts them into another when they are done. Each ring has one
 * writer and one reader; the count that one side stores with release and the other loads with acquire carries the job's
 * memory along. A ring never overflows, because no more jobs are out than it has room for. */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "check.h"
#include "posix.h"

enum { LINGER_MS = 200 }; /* that closing waits for the jobs that run */

static _Thread_local struct posix_worker *self;

struct posix_worker *posix_worker_self(void)
{
    return self;
}

static void ring_put(struct posix_ring *ring, struct port_job *job)
{
    size_t put = atomic_load_explicit(&ring->put_count, memory_order_relaxed);
    CHECK(put - atomic_load_explicit(&ring->taken_count, memory_order_acquire) < PORT_JOBS_MAX);
    ring->jobs[put % PORT_JOBS_MAX] = job;
    atomic_store_explicit(&ring->put_count, put + 1, memory_order_release);
}

static struct port_job *ring_take(struct posix_ring *ring)
{
    size_t taken = atomic_load_explicit(&ring->taken_count, memory_order_relaxed);
    if (taken == atomic_load_explicit(&ring->put_count, memory_order_acquire)) {
        return NULL;
    }
    struct port_job *job = ring->jobs[taken % PORT_JOBS_MAX];
    atomic_store_explicit(&ring->taken_count, taken + 1, memory_order_release);
    return job;
}

static void *work(void *context)
{
    struct posix_worker *worker = context;
    self = worker;
    (void)sem_post(&worker->told);
    for (;;) {
        while (sem_wait(&worker->work) != 0) {
            CHECK(errno == EINTR);
        }
        if (atomic_load(&worker->stopping)) {
            (void)sem_post(&worker->told);
            return NULL;
        }
        struct port_job *job = ring_take(&worker->submitted);
        CHECK(job != NULL);
        job->run(job);
        ring_put(&worker->finished, job);
        posix_wake(worker->posix);
    }
}

bool posix_worker_open(struct posix *posix, enum port_lane lane, void *stack, size_t stack_bytes)
{
    struct posix_worker *worker = &posix->workers[lane];
    worker->posix = posix;
    pthread_attr_t attributes;
    if (sem_init(&worker->work, 0, 0) != 0 || sem_init(&worker->told, 0, 0) != 0) {
        (void)posix_failed(posix, "sem_init");
        return false;
    }
    errno = pthread_attr_init(&attributes);
    if (errno == 0) {
        errno = pthread_attr_setstack(&attributes, stack, stack_bytes);
        if (errno == 0) {
            /* The worker starts with every signal blocked: they are the loop's. */
            sigset_t all;
            sigset_t previous;
            (void)sigfillset(&all);
            (void)pthread_sigmask(SIG_SETMASK, &all, &previous);
            errno = pthread_create(&worker->thread, &attributes, work, worker);
            int saved = errno;
            (void)pthread_sigmask(SIG_SETMASK, &previous, NULL);
            errno = saved;
        }
        int saved = errno;
        (void)pthread_attr_destroy(&attributes);
        errno = saved;
    }
    if (errno != 0) {
        (void)posix_failed(posix, "start a worker thread");
        (void)sem_destroy(&worker->work);
        (void)sem_destroy(&worker->told);
        return false;
    }
    /* Whatever the start of a thread takes from the system it has taken before the process is sealed. */
    while (sem_wait(&worker->told) != 0) {
        CHECK(errno == EINTR);
    }
    worker->running = true;
    return true;
}

/* Whether the thread ends in time: one that waits for work does at once. */
static bool ends_before(struct posix_worker *worker, const struct timespec *until)
{
    int result;
    do {
        result = sem_timedwait(&worker->told, until);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

static bool worker_close(struct posix_worker *worker, const struct timespec *until)
{
    if (!ends_before(worker, until)) {
        (void)pthread_detach(worker->thread);
        return false;
    }
    (void)pthread_join(worker->thread, NULL);
    (void)sem_destroy(&worker->work);
    (void)sem_destroy(&worker->told);
    worker->running = false;
    return true;
}

bool posix_workers_close(struct posix *posix)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_nsec += LINGER_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    for (size_t lane = 0; lane < PORT_LANE_COUNT; lane++) {
        struct posix_worker *worker = &posix->workers[lane];
        atomic_store(&worker->stopping, true);
        if (worker->running) {
            (void)sem_post(&worker->work);
        }
    }
    bool closed = true;
    for (size_t lane = 0; lane < PORT_LANE_COUNT; lane++) {
        struct posix_worker *worker = &posix->workers[lane];
        closed = (!worker->running || worker_close(worker, &until)) && closed;
    }
    return closed;
}

bool posix_submit_job(void *context, struct port_job *job)
{
    struct posix *posix = context;
    struct posix_worker *worker = &posix->workers[job->lane];
    if (worker->out_count == PORT_JOBS_MAX) {
        return false;
    }
    worker->out_count++;
    ring_put(&worker->submitted, job);
    CHECK(sem_post(&worker->work) == 0);
    return true;
}

struct port_job *posix_finished_job(void *context)
{
    struct posix *posix = context;
    for (size_t lane = 0; lane < PORT_LANE_COUNT; lane++) {
        struct posix_worker *worker = &posix->workers[lane];
        struct port_job *job = ring_take(&worker->finished);
        if (job != NULL) {
            worker->out_count--;
            return job;
        }
    }
    return NULL;
}
