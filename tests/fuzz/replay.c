/* SPDX-License-Identifier: MIT */
/* What stands in for libFuzzer where there is none: runs each file that is named, and each file of each folder that is
 * named, through the fuzzer once. A property that does not hold ends the program, and the last file printed is the one.
 *
 *     fuzz_json tests/fuzz/corpus/json build/fuzz/finds/json/crash-... */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

enum { PATH_BYTES = 4096, FILE_BYTES_MAX = 1024 * 1024 };

static size_t file_count;

static bool replay_file(const char *path)
{
    static uint8_t bytes[FILE_BYTES_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        return false;
    }
    size_t count = fread(bytes, 1, sizeof bytes, file);
    (void)fclose(file);
    (void)printf("%s\n", path);
    (void)fflush(stdout);
    uint8_t *exact = malloc(count > 0 ? count : 1); /* so that a sanitizer knows its end */
    if (exact == NULL) {
        return false;
    }
    memcpy(exact, bytes, count);
    (void)LLVMFuzzerTestOneInput(exact, count);
    free(exact);
    file_count++;
    return true;
}

static bool replay(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return replay_file(path);
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    bool is_good = count >= 0;
    for (int i = 0; i < count; i++) {
        char inner[PATH_BYTES];
        (void)snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
        is_good = (entries[i]->d_name[0] == '.' || replay_file(inner)) && is_good;
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
    return is_good;
}

int main(int argc, char **argv)
{
    bool is_good = true;
    for (int i = 1; i < argc; i++) {
        is_good = replay(argv[i]) && is_good;
    }
    (void)printf("%zu inputs\n", file_count);
    return is_good && file_count > 0 ? 0 : 1;
}
