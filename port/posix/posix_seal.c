/* SPDX-License-Identifier: MIT */
/* Linux's seccomp with a filter of our own: the calls by which memory grows or shrinks end the process, on whichever
 * thread. Calls of another architecture or of the x32 ABI, whose numbers mean something else, do too. The main thread's
 * stack, which grows without a call, is held by its limit to what it has. */
#include "posix.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#ifdef __GLIBC__
#include <nss.h>
#endif
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"

/* The modules are found as glibc finds them, in the line "hosts: files mdns4_minimal [NOTFOUND=return] dns". Loading
 * them here is not all: glibc would look on disk again for one that is not installed, and would read the file again
 * when it changes. So it is told to use exactly those that are there (__nss_configure_lookup, which ends the rereading
 * too). */
enum { CONFIG_BYTES_MAX = 16384, SERVICES_BYTES_MAX = 512, MODULE_BYTES_MAX = 64 };

static const char blanks[] = " \t";

/* Can the service be had? `files` and `dns` are part of the C library. The module stays loaded for good. */
static bool load_service(const char *name, size_t bytes)
{
    char module[MODULE_BYTES_MAX];
    int length = snprintf(module, sizeof module, "libnss_%.*s.so.2", (int)bytes, name);
    bool loaded = length > 0 && (size_t)length < sizeof module && dlopen(module, RTLD_NOW) != NULL;
    return loaded || (bytes == 5 && memcmp(name, "files", bytes) == 0) ||
           (bytes == 3 && memcmp(name, "dns", bytes) == 0);
}

/* Copies the services that can be had, each with the rule in brackets that follows it. */
static void load_services(const char *line, char services[SERVICES_BYTES_MAX])
{
    size_t used = 0;
    bool keep = false;
    for (;;) {
        line += strspn(line, blanks);
        bool is_rule = *line == '[';
        size_t bytes = is_rule ? strcspn(line, "]") + 1 : strcspn(line, " \t[");
        if (bytes == 0 || bytes > strlen(line)) {
            return;
        }
        keep = is_rule ? keep : load_service(line, bytes);
        if (keep && used + bytes + 2 <= SERVICES_BYTES_MAX) {
            memcpy(services + used, line, bytes);
            used += bytes;
            services[used++] = ' ';
            services[used] = '\0';
        }
        line += bytes;
    }
}

/* The rest of the last line that begins with "hosts:", cut at its end or comment; NULL: none. */
static char *find_hosts(char *config)
{
    char *found = NULL;
    for (char *line = config; line != NULL;) {
        char *next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        line[strcspn(line, "#")] = '\0';
        line += strspn(line, blanks);
        if (strncmp(line, "hosts:", 6) == 0) {
            found = line + 6;
        }
        line = next;
    }
    return found;
}

void port_posix_warm_up(void)
{
    char config[CONFIG_BYTES_MAX];
    char services[SERVICES_BYTES_MAX] = "";
    ssize_t bytes = -1;
    int fd = open("/etc/nsswitch.conf", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        bytes = read(fd, config, sizeof config - 1);
        (void)close(fd);
    }
    config[bytes > 0 ? bytes : 0] = '\0';
    const char *line = find_hosts(config);
    load_services(line != NULL ? line : "files dns", services);
#ifdef __GLIBC__
    (void)__nss_configure_lookup("hosts", services[0] != '\0' ? services : "files");
#endif
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo("localhost", NULL, &hints, &found) == 0) { // a file answers, so it does not wait
        freeaddrinfo(found);
    }
}

#ifdef __linux__

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined __x86_64__
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined __arm__
#define OUR_ARCHITECTURE AUDIT_ARCH_ARM
#endif

#ifdef OUR_ARCHITECTURE

static const uint32_t forbidden[] = {
#ifdef SYS_mmap
    SYS_mmap,
#endif
#ifdef SYS_mmap2
    SYS_mmap2,
#endif
    SYS_brk,   SYS_mremap, SYS_munmap, SYS_shmat,
};

enum {
    FORBIDDEN_COUNT = sizeof forbidden / sizeof forbidden[0],
    X32_BIT = 0x40000000, /* no architecture has so many calls */
    INSTRUCTIONS = FORBIDDEN_COUNT + 6
};

/* From Linux 4.14 on the whole process can be killed; before, an uncaught SIGSYS does the same. */
static uint32_t death(void)
{
    const uint32_t process = SECCOMP_RET_KILL_PROCESS;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &process) == 0 ? process : SECCOMP_RET_TRAP;
}

/* Load the architecture, load the number, compare; the last instruction kills, the one before it allows. */
static bool install(void)
{
    struct sock_filter code[INSTRUCTIONS];
    size_t at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[at] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 0, (uint8_t)(INSTRUCTIONS - 2 - at));
    at++;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    code[at] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, (uint8_t)(INSTRUCTIONS - 2 - at), 0);
    at++;
    for (size_t index = 0; index < FORBIDDEN_COUNT; index++) {
        code[at] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, forbidden[index],
                                                (uint8_t)(INSTRUCTIONS - 2 - at), 0);
        at++;
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, death());
    CHECK(at == INSTRUCTIONS);
    const struct sock_fprog filter = {.len = INSTRUCTIONS, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return false;
    }
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
    if (result > 0) { /* a thread with a filter of its own, put there from outside */
        errno = EBUSY;
    }
    return result == 0;
}

static bool seal_calls(struct posix *posix)
{
    if (!install()) {
        (void)posix_failed(posix, "seccomp");
        return false;
    }
    return true;
}

#else

static bool seal_calls(struct posix *posix)
{
    (void)posix_failed_because(posix, "seccomp", "no filter is known for this architecture");
    return false;
}

#endif

#else

static bool seal_calls(struct posix *posix)
{
    (void)posix_failed_because(posix, "seccomp", "this system has none");
    return false;
}

#endif

bool posix_seal(void *context)
{
    struct posix *posix = context;
    struct port_heap heap = {0};
    if (posix->heap != NULL) {
        posix->heap(&heap);
    }
    if (heap.capacity_bytes == 0) {
        (void)posix_failed_because(posix, "seal", "malloc asks the system for memory");
        return false;
    }
    if (!seal_calls(posix)) {
        return false;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) == 0) {
        limit.rlim_cur = POSIX_MAIN_STACK_BYTES;
        (void)setrlimit(RLIMIT_STACK, &limit);
    }
    posix->sealed = true;
    return true;
}
