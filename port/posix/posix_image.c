/* SPDX-License-Identifier: MIT */
/* What the program is made of in memory, by the dynamic linker's own list: every object's loadable segments. Those that
 * may be written are counted as data (after the touch they are the process's own pages), the others as pages of files.
 * The part of a data segment that was made read-only after relocation is only read. */
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "posix.h"

struct walk {
    void (*visit)(uintptr_t page, bool is_writable);
    struct port_posix_image image;
    uintptr_t page_bytes;
};

static bool is_kernels(const struct dl_phdr_info *object, const ElfW(Phdr) * segment)
{
    uintptr_t start = object->dlpi_addr + segment->p_vaddr;
    uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);
    return vdso >= start && vdso < start + segment->p_memsz;
}

static int visit_object(struct dl_phdr_info *object, size_t size, void *context)
{
    (void)size;
    struct walk *walk = context;
    uintptr_t page = walk->page_bytes;
    uintptr_t sealed_start = 0;
    uintptr_t sealed_end = 0;
    for (size_t index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[index];
        if (segment->p_type == PT_GNU_RELRO) {
            sealed_start = (object->dlpi_addr + segment->p_vaddr) / page * page;
            sealed_end = (object->dlpi_addr + segment->p_vaddr + segment->p_memsz) / page * page;
        }
    }
    for (size_t index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[index];
        if (segment->p_type != PT_LOAD || segment->p_memsz == 0 || is_kernels(object, segment)) {
            continue;
        }
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr) / page * page;
        uintptr_t end = (object->dlpi_addr + segment->p_vaddr + segment->p_memsz + page - 1) / page * page;
        bool is_data = (segment->p_flags & PF_W) != 0;
        *(is_data ? &walk->image.data_bytes : &walk->image.file_bytes) += end - start;
        for (uintptr_t at = start; walk->visit != NULL && at < end; at += page) {
            walk->visit(at, is_data && (at < sealed_start || at >= sealed_end));
        }
    }
    return 0;
}

static void walk_image(struct walk *walk)
{
    walk->page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    walk->image.stack_bytes = POSIX_MAIN_STACK_BYTES;
    (void)dl_iterate_phdr(visit_object, walk);
}

void port_posix_image(struct port_posix_image *image)
{
    struct walk walk = {.visit = NULL};
    walk_image(&walk);
    *image = walk.image;
}

/* Atomic, because the worker may be at the same byte. Not checked by AddressSanitizer, because a page may begin with
 * the guard of a variable. */
__attribute__((no_sanitize("address"))) static void touch(uintptr_t page, bool is_writable)
{
    uint8_t *byte = (uint8_t *)page;
    if (is_writable) {
        (void)__atomic_fetch_or(byte, 0, __ATOMIC_RELAXED);
    } else {
        (void)*(volatile uint8_t *)byte;
    }
}

static __attribute__((noinline)) void touch_stack(void)
{
    volatile uint8_t reserve[POSIX_MAIN_STACK_BYTES];
    for (size_t at = 0; at < sizeof reserve; at += 1024) {
        reserve[sizeof reserve - 1 - at] = 0; /* downwards, as a stack grows */
    }
}

void port_posix_touch_image(void)
{
    struct walk walk = {.visit = touch};
    walk_image(&walk);
    touch_stack();
}
