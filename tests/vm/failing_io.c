/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes the system calls of a perdure process fail on chosen files, whenever a test says so: a library that is loaded
 * before the C library (LD_PRELOAD). The program itself knows nothing of it.
 *
 *     FAILING_IO=/path/to/rules LD_PRELOAD=failing_io.so PERDURE_DISK_ENGINE=threads perdure run ...
 *
 * The file of rules has one page, which is mapped and read at each call: what is written into it counts at once.
 * Lines of "CALL SUFFIX ERRNO": CALL is read, write (also zeroes) or sync; the file's name ends in SUFFIX; ERRNO 0: the call
 * hangs until the rules say something else. The rest of the page is zeroes. Only calls at offsets (pread, ...) and syncs are looked at: how disks, journals and records are
 * written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGE 4096

static const volatile char *rules;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAILING_IO");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED) {
        fprintf(stderr, "failing_io: no rules in $FAILING_IO\n");
        _exit(127);
    }
    close(fd);
    rules = page;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static bool name_of(int fd, char *buf, size_t size)
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, buf, size - 1);
    if (n >= 0)
        buf[n] = 0;
    return n >= 0;
}

#define NO_RULE (-1)

/* What the rules say of it now. */
static int look(const char *call, int fd)
{
    char text[PAGE + 1], path[PAGE], *line, *rest = text, rule_call[16], suffix[256];
    int error;

    if (!rules || !rules[0] || !name_of(fd, path, sizeof(path)))
        return NO_RULE;
    memcpy(text, (const char *)rules, PAGE);
    text[PAGE] = 0;
    while ((line = strsep(&rest, "\n")))
        if (sscanf(line, "%15s %255s %d", rule_call, suffix, &error) == 3 && strcmp(call, rule_call) == 0 &&
            ends_with(path, suffix))
            return error;
    return NO_RULE;
}

static bool fails(const char *call, int fd)
{
    int saved = errno, error;

    while ((error = look(call, fd)) == 0)
        usleep(1000);
    errno = error == NO_RULE ? saved : error;
    return error != NO_RULE;
}

/* The function of the C library that stands behind ours. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
    return fails("read", fd) ? -1 : NEXT(pread)(fd, buf, n, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return fails("write", fd) ? -1 : NEXT(pwrite)(fd, buf, n, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    return fails("write", fd) ? -1 : NEXT(fallocate)(fd, mode, offset, n);
}

int fdatasync(int fd)
{
    return fails("sync", fd) ? -1 : NEXT(fdatasync)(fd);
}

int fsync(int fd)
{
    return fails("sync", fd) ? -1 : NEXT(fsync)(fd);
}
