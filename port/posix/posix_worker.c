/* SPDX-License-Identifier: MIT */
/* One thread that takes jobs from one ring and puts them into another when they are done. Each ring has one writer and
 * one reader; the count that one side stores with release and the other loads with acquire carries the job's memory
 * along. A ring never overflows, because no more jobs are out than it has room for. */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "check.h"
#include "posix.h"

enum { LINGER_MS = 200 }; /* that closing waits for the job that runs */

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
    struct posix *posix = context;
    struct posix_worker *worker = &posix->worker;
    for (;;) {
        while (sem_wait(&worker->work) != 0) {
            CHECK(errno == EINTR);
        }
        if (atomic_load(&worker->stopping)) {
            (void)sem_post(&worker->ended);
            return NULL;
        }
        struct port_job *job = ring_take(&worker->submitted);
        CHECK(job != NULL);
        job->run(job);
        ring_put(&worker->finished, job);
        posix_wake(posix);
    }
}

bool posix_worker_open(struct posix *posix, void *stack, size_t stack_bytes)
{
    struct posix_worker *worker = &posix->worker;
    pthread_attr_t attributes;
    if (sem_init(&worker->work, 0, 0) != 0 || sem_init(&worker->ended, 0, 0) != 0) {
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
            errno = pthread_create(&worker->thread, &attributes, work, posix);
            int saved = errno;
            (void)pthread_sigmask(SIG_SETMASK, &previous, NULL);
            errno = saved;
        }
        int saved = errno;
        (void)pthread_attr_destroy(&attributes);
        errno = saved;
    }
    if (errno != 0) {
        (void)posix_failed(posix, "start the worker thread");
        (void)sem_destroy(&worker->work);
        (void)sem_destroy(&worker->ended);
        return false;
    }
    worker->running = true;
    return true;
}

/* Whether the thread ends soon: one that waits for work does at once. */
static bool ends_soon(struct posix_worker *worker)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_nsec += LINGER_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    int result;
    do {
        result = sem_timedwait(&worker->ended, &until);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

bool posix_worker_close(struct posix *posix)
{
    struct posix_worker *worker = &posix->worker;
    if (!worker->running) {
        return true;
    }
    atomic_store(&worker->stopping, true);
    (void)sem_post(&worker->work);
    if (!ends_soon(worker)) {
        (void)pthread_detach(worker->thread);
        return false;
    }
    (void)pthread_join(worker->thread, NULL);
    (void)sem_destroy(&worker->work);
    (void)sem_destroy(&worker->ended);
    worker->running = false;
    return true;
}

bool posix_submit_job(void *context, struct port_job *job)
{
    struct posix *posix = context;
    struct posix_worker *worker = &posix->worker;
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
    struct port_job *job = ring_take(&posix->worker.finished);
    if (job != NULL) {
        posix->worker.out_count--;
    }
    return job;
}
