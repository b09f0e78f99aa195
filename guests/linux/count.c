/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * count as process 1 of a Linux guest: the protocol of guests/count.c (guest_abi.h), so that a client does
 * not know the difference. The initrd holds this as /init, /dev/console, and the modules that the kernel
 * lacks; tests/lib/linux_guest.py makes it.
 *
 * Options stand on the kernel command line behind " -- ", which the kernel gives to process 1 and does not
 * read itself:
 *
 *   ip=10.0.0.2       eth0 gets this address (/24), UDP port 7007 answers
 *   pages=1024 dirty=2, as for count
 *
 * It ends by POWEROFF, RESET and PANIC; CONTROL, which counting has no use for, and the resets past the
 * operating system are UNKNOWN.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "requests.h"

#define MODULES   "/lib/modules/"
#define INTERFACE "eth0"
#define NETMASK   "255.255.255.0"
#define TURN_MS   10   /* the heart beats at least this often */
#define CARD_MS   5000 /* a driver may find its card a little after it was loaded */

struct datagram {
    struct guest_message m;
    char extra[sizeof(struct guest_status)];
};

static struct guest_status status = {.magic = GUEST_STATUS_MAGIC,
                                     .version = GUEST_STATUS_VERSION,
                                     .size = sizeof(status),
                                     .name = "count",
                                     .cpus = 1};

/* Nobody is there to repair this guest: it says what is wrong and goes. */
static void give_up(const char *what)
{
    printf("count: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    reboot(RB_POWER_OFF);
    exit(1);
}

static void torn(uint64_t address, uint64_t have, uint64_t want)
{
    if (status.errors++ == 0) {
        status.error = GUEST_ERROR_TORN;
        status.error_where = address;
        status.error_have = have;
        status.error_want = want;
    }
    status.state = GUEST_STATE_FAILED;
    printf("TORN address=%#lx have=%#lx want=%#lx\n", address, have, want);
}

/* The text behind "key=" among the arguments, or NULL. */
static const char *option(char **argv, const char *key)
{
    size_t n = strlen(key);

    for (; *argv; argv++)
        if (!strncmp(*argv, key, n) && (*argv)[n] == '=')
            return *argv + n + 1;
    return NULL;
}

static uint64_t option_number(char **argv, const char *key, uint64_t otherwise)
{
    const char *text = option(argv, key);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void load_module(const char *name)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), MODULES "%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
        give_up(path);
    close(fd);
}

/* The list may be empty: a kernel with all of it built in. */
static void load_modules(void)
{
    FILE *order = fopen(MODULES "order", "re");
    char name[128];

    while (order && fscanf(order, "%127s", name) == 1)
        load_module(name);
    if (order)
        fclose(order);
}

static struct ifreq with_address(const char *text)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    struct ifreq r = {.ifr_name = INTERFACE};

    errno = EINVAL;
    if (!text || inet_pton(AF_INET, text, &a.sin_addr) != 1)
        give_up("ip=");
    memcpy(&r.ifr_addr, &a, sizeof(a));
    return r;
}

static void bring_up(int fd, const char *ip)
{
    struct ifreq address = with_address(ip), mask = with_address(NETMASK), flags = {.ifr_name = INTERFACE};

    for (int ms = 0; ioctl(fd, SIOCGIFFLAGS, &flags) < 0; ms += TURN_MS) {
        if (ms > CARD_MS)
            give_up(INTERFACE);
        usleep(TURN_MS * 1000);
    }
    flags.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFADDR, &address) < 0 || ioctl(fd, SIOCSIFNETMASK, &mask) < 0 ||
        ioctl(fd, SIOCSIFFLAGS, &flags) < 0)
        give_up(INTERFACE);
}

static int open_service(const char *ip)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(GUEST_UDP_PORT)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        give_up("socket");
    bring_up(fd, ip);
    if (bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0)
        give_up("bind");
    return fd;
}

/* n octets follow the request. How many follow the answer. */
static size_t carry_out(struct datagram *d, size_t n)
{
    d->m.answer = GUEST_ANSWER_OK;
    d->m.boot_id = status.boot_id;
    switch (d->m.op) {
    case GUEST_OP_COUNT:
        requests_answer(&d->m, status.errors != 0);
        return 0;
    case GUEST_OP_STATUS:
        memcpy(d->extra, &status, sizeof(status));
        return sizeof(status);
    case GUEST_OP_PRINT:
        printf("%.*s\n", (int)(n < GUEST_TEXT_MAX ? n : GUEST_TEXT_MAX), d->extra);
        return 0;
    case GUEST_OP_POWEROFF:
    case GUEST_OP_RESET:
    case GUEST_OP_PANIC:
        return 0;
    default:
        d->m.answer = GUEST_ANSWER_UNKNOWN;
        return 0;
    }
}

static void panic_now(void)
{
    int fd;

    mkdir("/proc", 0555);
    mount("proc", "/proc", "proc", 0, NULL);
    fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "c", 1) != 1)
        give_up("sysrq-trigger");
}

/* Once the answer is sent. */
static void end(uint16_t op)
{
    if (op != GUEST_OP_POWEROFF && op != GUEST_OP_RESET && op != GUEST_OP_PANIC)
        return;
    usleep(100000); /* let it out */
    if (op == GUEST_OP_PANIC)
        panic_now();
    reboot(op == GUEST_OP_RESET ? RB_AUTOBOOT : RB_POWER_OFF);
}

static void serve(int fd)
{
    struct datagram d;
    struct sockaddr_in from;
    socklen_t from_size = sizeof(from);
    ssize_t n = recvfrom(fd, &d, sizeof(d), MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);

    if (n < 0)
        return;
    status.frames_in++;
    if ((size_t)n < sizeof(d.m) || d.m.magic != GUEST_MESSAGE_MAGIC)
        return;
    n = (ssize_t)(sizeof(d.m) + carry_out(&d, (size_t)n - sizeof(d.m)));
    if (sendto(fd, &d, (size_t)n, 0, (struct sockaddr *)&from, from_size) == n)
        status.frames_out++;
    end(d.m.op);
}

static void start_counting(char **argv)
{
    struct guest_count_status *c = &status.count;
    void *ring;

    c->pages = option_number(argv, "pages", 1024);
    c->dirty = option_number(argv, "dirty", 2);
    ring =
        mmap(NULL, (c->pages + 1) * GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED)
        give_up("memory for pages=");
    c->start = (uintptr_t)ring;
    requests_start(c, torn);
    /* Not waiting: a guest without a source of entropy draws a weak number rather than none. */
    getrandom(&status.boot_id, sizeof(status.boot_id), GRND_INSECURE);
    status.boot_id |= 1;
}

int main(int argc, char **argv)
{
    int fd;

    (void)argc;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getpid() != 1) {
        fputs("count: this is process 1 of a Linux guest, and nothing else\n", stderr);
        return 2;
    }
    load_modules();
    start_counting(argv);
    fd = open_service(option(argv, "ip"));
    status.state = GUEST_STATE_RUNNING;
    puts("count: running");
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, TURN_MS) > 0)
            serve(fd);
        status.heartbeat[0]++;
    }
}
