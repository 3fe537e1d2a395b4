/* SPDX-License-Identifier: MIT */
/* The simulator's command. Seeds run in child processes, one a core, so that a failed CHECK, a sanitizer's report or a
 * hang costs one seed; a seed that failed is run again with its trace. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

static const char help[] =
    "sim: the gateway in a simulated world, from a seed.\n"
    "\n"
    "  sim --seed N [--quiet]     one run, with its trace and hash\n"
    "  sim --hash COUNT           runs seeds 1 to COUNT and prints one hash over all of them\n"
    "  sim --twice COUNT          the same, each twice: the second run must be as the first\n"
    "  sim --seeds COUNT [--from N] [--jobs J]\n"
    "  sim --minutes M [--from N] [--jobs J]\n"
    "                             many runs, from N on (without it from a seed of the day); stops at the first "
    "failure\n"
    "  sim --find COUNT [--from N]\n"
    "                             runs COUNT seeds from 1, or N, on until one fails, which is what is wanted (planted "
    "faults)\n";

enum { JOBS_MAX = 64, TRACE_LINES = 120, SEED_SECONDS_MAX = 300 };

/* What the children tell, in shared memory. */
struct board {
    uint64_t next;
    uint64_t end;
    time_t stop_at; /* 0: not by time */
    struct {
        uint64_t seed;
        uint64_t done_count;
        struct world_counts counts;
    } jobs[JOBS_MAX];
};

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "abort_on_error=1:detect_leaks=0:handle_abort=0";
}

static void add(struct world_counts *sum, const struct world_counts *counts)
{
    sum->turns += counts->turns;
    sum->virtual_s += counts->virtual_s;
    sum->messages += counts->messages;
    sum->enqueued += counts->enqueued;
    sum->crashes += counts->crashes;
    sum->power_cuts += counts->power_cuts;
    sum->stops += counts->stops;
    sum->refused_starts += counts->refused_starts;
    sum->accepted_told += counts->accepted_told;
    sum->queued_told += counts->queued_told;
    sum->stored_told += counts->stored_told;
}

static void print_counts(uint64_t seeds, const struct world_counts *sum, double seconds)
{
    (void)printf("seeds=%" PRIu64 " virtual_minutes=%" PRIu64 " seconds=%.1f turns=%" PRIu64 " messages=%" PRIu64
                 " enqueued=%" PRIu64 " crashes=%" PRIu64 " power_cuts=%" PRIu64 " stops=%" PRIu64
                 " refused_starts=%" PRIu64 " accepted=%" PRIu64 " queued=%" PRIu64 " stored=%" PRIu64 "\n",
                 seeds, sum->virtual_s / 60, seconds, sum->turns, sum->messages, sum->enqueued, sum->crashes,
                 sum->power_cuts, sum->stops, sum->refused_starts, sum->accepted_told, sum->queued_told,
                 sum->stored_told);
}

/* ---- one seed ---- */

static int run_one(uint64_t seed, bool is_quiet)
{
    struct world *world = world_make();
    bool is_good = world_run(world, seed, is_quiet ? NULL : stdout);
    if (!is_good) {
        (void)printf("FAILED: %s\n", world->failure);
    }
    (void)printf("seed %" PRIu64 " hash %016" PRIx64 "\n", seed, sim_hash(world->sim));
    print_counts(1, &world->counts, 0);
    return is_good ? 0 : 1;
}

/* The second run of a seed has what the first left in memory. */
static int run_hash(uint64_t count, bool is_twice)
{
    struct world *world = world_make();
    uint64_t hash = 0;
    for (uint64_t seed = 1; seed <= count; seed++) {
        bool is_good = world_run(world, seed, NULL);
        uint64_t once = sim_hash(world->sim);
        is_good = is_good && (!is_twice || world_run(world, seed, NULL));
        if (!is_good) {
            (void)printf("seed %" PRIu64 " FAILED: %s\n", seed, world->failure);
            return 1;
        }
        if (once != sim_hash(world->sim)) {
            (void)printf("seed %" PRIu64 " FAILED: its second run is not like its first\n", seed);
            return 1;
        }
        hash = hash * 31 + once;
    }
    (void)printf("hash of %" PRIu64 " seeds: %016" PRIx64 "\n", count, hash);
    return 0;
}

/* ---- many seeds ---- */

static void work(struct board *board, size_t job)
{
    struct world *world = world_make();
    while (board->stop_at == 0 || time(NULL) < board->stop_at) {
        uint64_t seed = __atomic_fetch_add(&board->next, 1, __ATOMIC_SEQ_CST);
        if (seed >= board->end) {
            break;
        }
        board->jobs[job].seed = seed;
        (void)alarm(SEED_SECONDS_MAX); /* a hang ends by SIGALRM */
        if (!world_run(world, seed, NULL)) {
            (void)printf("seed %" PRIu64 " failed: %s\n", seed, world->failure);
            (void)fflush(stdout);
            _exit(3);
        }
        add(&board->jobs[job].counts, &world->counts);
        board->jobs[job].done_count++;
    }
    _exit(0);
}

/* Runs the seed again in a child, and prints the end of its trace. */
static void show(uint64_t seed)
{
    FILE *trace = tmpfile();
    static char lines[TRACE_LINES][1024];
    size_t count = 0;
    if (trace == NULL) {
        return;
    }
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct world *world = world_make();
        (void)setvbuf(trace, NULL, _IOLBF, 4096);
        (void)alarm(SEED_SECONDS_MAX);
        if (!world_run(world, seed, trace)) {
            (void)fprintf(trace, "FAILED: %s\n", world->failure);
        }
        (void)fflush(trace);
        _exit(0);
    }
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    rewind(trace);
    while (fgets(lines[count % TRACE_LINES], sizeof lines[0], trace) != NULL) {
        count++;
    }
    for (size_t i = count > TRACE_LINES ? count - TRACE_LINES : 0; i < count; i++) {
        (void)fputs(lines[i % TRACE_LINES], stdout);
    }
    (void)printf("the end of %zu lines; ./dev sim --seed %" PRIu64 " shows all of them\n", count, seed);
    (void)fclose(trace);
}

/* Waits for the children; the job of the first that failed, JOBS_MAX: none did. */
static size_t wait_for_all(const pid_t *children, size_t jobs)
{
    size_t failed = JOBS_MAX;
    for (size_t left = jobs; left > 0;) {
        int status;
        pid_t child = wait(&status);
        if (child < 0) {
            if (errno == EINTR) {
                continue;
            }
            break;
        }
        left--;
        for (size_t i = 0; i < jobs; i++) {
            if (children[i] == child && status != 0 && failed == JOBS_MAX) {
                failed = i;
                if (WIFSIGNALED(status)) {
                    (void)printf("ended by signal %d\n", WTERMSIG(status));
                }
                for (size_t other = 0; other < jobs; other++) {
                    if (other != i) {
                        (void)kill(children[other], SIGTERM);
                    }
                }
            }
        }
    }
    return failed;
}

static int run_many(struct board *board, size_t jobs, bool is_failure_wanted)
{
    pid_t children[JOBS_MAX];
    struct timespec start;
    struct timespec end;
    uint64_t first = board->next;
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    (void)fflush(stdout);
    for (size_t i = 0; i < jobs; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            work(board, i);
        }
    }
    size_t failed = wait_for_all(children, jobs);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    struct world_counts sum = {0};
    uint64_t done_count = 0;
    for (size_t i = 0; i < jobs; i++) {
        add(&sum, &board->jobs[i].counts);
        done_count += board->jobs[i].done_count;
    }
    (void)printf("from seed %" PRIu64 ": ", first);
    print_counts(done_count, &sum, (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    if (failed == JOBS_MAX) {
        return is_failure_wanted ? 1 : 0;
    }
    uint64_t seed = board->jobs[failed].seed;
    (void)printf("seed %" PRIu64 " failed\n", seed);
    if (!is_failure_wanted) {
        show(seed);
    }
    return is_failure_wanted ? 0 : 1;
}

/* ---- the command line ---- */

struct command {
    uint64_t seed;
    uint64_t hash_count;
    uint64_t from;
    uint64_t minutes;
    uint64_t seeds;
    uint64_t jobs;
    bool is_twice;
    bool is_quiet;
    bool finds;
};

static _Noreturn void give_help(FILE *stream, int code)
{
    (void)fputs(help, stream);
    exit(code);
}

static uint64_t number_of(const char *text)
{
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text) {
        give_help(stderr, 2);
    }
    return number;
}

static void read_option(struct command *command, const char *name, const char *value)
{
    const struct {
        const char *name;
        uint64_t *number;
    } options[] = {{"--seed", &command->seed},  {"--hash", &command->hash_count}, {"--twice", &command->hash_count},
                   {"--from", &command->from},  {"--minutes", &command->minutes}, {"--seeds", &command->seeds},
                   {"--find", &command->seeds}, {"--jobs", &command->jobs}};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (strcmp(name, options[i].name) == 0) {
            *options[i].number = number_of(value);
            command->is_twice = command->is_twice || strcmp(name, "--twice") == 0;
            command->finds = command->finds || strcmp(name, "--find") == 0;
            return;
        }
    }
    give_help(stderr, 2);
}

static struct command read_command(int argument_count, char **arguments)
{
    struct command command = {.jobs = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN)};
    for (int i = 1; i < argument_count; i++) {
        if (strcmp(arguments[i], "--help") == 0) {
            give_help(stdout, 0);
        } else if (strcmp(arguments[i], "--quiet") == 0) {
            command.is_quiet = true;
        } else {
            read_option(&command, arguments[i], i + 1 < argument_count ? arguments[i + 1] : "");
            i++;
        }
    }
    if (command.finds) { /* one after another, so that it says how many it took */
        command.from = command.from > 0 ? command.from : 1;
        command.jobs = 1;
    }
    command.jobs = command.jobs < 1 ? 1 : command.jobs > JOBS_MAX ? JOBS_MAX : command.jobs;
    return command;
}

int main(int argument_count, char **arguments)
{
    struct command command = read_command(argument_count, arguments);
    if (command.seed > 0) {
        return run_one(command.seed, command.is_quiet);
    }
    if (command.hash_count > 0) {
        return run_hash(command.hash_count, command.is_twice);
    }
    if (command.minutes == 0 && command.seeds == 0) {
        give_help(stderr, 2);
    }
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) {
        (void)perror("sim");
        return 1;
    }
    board->next = command.from > 0 ? command.from : (uint64_t)time(NULL) * 1000000;
    board->end = command.seeds > 0 ? board->next + command.seeds : UINT64_MAX;
    board->stop_at = command.minutes > 0 ? time(NULL) + (time_t)command.minutes * 60 : 0;
    return run_many(board, (size_t)command.jobs, command.finds);
}
