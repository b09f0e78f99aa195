// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs as process 1 of the Linux guest after its /init: says where the guest is, and ends it when asked.
 *
 *     guestd BROADCAST-ADDRESS WORDS
 *
 * It prints WORDS once it listens.
 * Fifty times a second it broadcasts "beacon BOOT N RANDOM" to port 7777: BOOT is drawn at every boot, N
 * counts, RANDOM is drawn for each. A guest that a takeover sets back to an epoch sends some N again, so an N
 * seen from both hosts is output that left the first host without being acknowledged: nothing else on the
 * wire tells this as plainly. To port 7778 one sends "reboot", "poweroff" or "panic"; it answers "ok" and
 * does it. Over TCP, whose connections live through a takeover, the same port takes a line for the shell and
 * returns what that prints.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BEACON_PORT = 7777, COMMAND_PORT = 7778, BEACON_MS = 20, BACKLOG = 8 };

static uint64_t draw(void)
{
    uint64_t value = 0;

    /* Not waiting: a guest without an entropy source draws a weak number rather than none. */
    getrandom(&value, sizeof(value), GRND_INSECURE);
    return value;
}

static void panic_now(void)
{
    int fd = open("/proc/sysrq-trigger", O_WRONLY);

    if (fd < 0 || write(fd, "c", 1) != 1)
        perror("guestd: sysrq-trigger");
}

static void obey(int fd)
{
    char word[32] = "";
    struct sockaddr_in from;
    socklen_t len = sizeof(from);

    if (recvfrom(fd, word, sizeof(word) - 1, 0, (struct sockaddr *)&from, &len) <= 0)
        return;
    sendto(fd, "ok", 2, 0, (struct sockaddr *)&from, len);
    printf("guestd: %s\n", word);
    fflush(stdout);
    usleep(100000); /* let the answer out */
    if (!strcmp(word, "reboot"))
        reboot(RB_AUTOBOOT);
    else if (!strcmp(word, "poweroff"))
        reboot(RB_POWER_OFF);
    else if (!strcmp(word, "panic"))
        panic_now();
}

/* A shell of its own for every connection. */
static void serve_shell(int listener)
{
    int fd = accept(listener, NULL, NULL);

    if (fd < 0)
        return;
    if (fork() == 0) {
        for (int i = 0; i <= 2; i++)
            dup2(fd, i);
        execl("/bin/sh", "sh", "-c", "read -r line; eval \"$line\"", (char *)NULL);
        _exit(127);
    }
    close(fd);
}

static int listen_for_shells(const struct sockaddr_in *self)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)self, sizeof(*self)) || listen(fd, BACKLOG)) {
        perror("guestd: listen");
        return -1;
    }
    return fd;
}

static void beacon(int fd, const struct sockaddr_in *to, uint64_t boot, uint64_t n)
{
    char text[96];
    int len = snprintf(text, sizeof(text), "beacon %016llx %llu %016llx", (unsigned long long)boot,
                       (unsigned long long)n, (unsigned long long)draw());

    sendto(fd, text, len, MSG_DONTWAIT, (const struct sockaddr *)to, sizeof(*to));
}

int main(int argc, char **argv)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), shells, one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(BEACON_PORT)};
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(COMMAND_PORT)};
    uint64_t boot = draw();

    if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
        return 2;
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&self, sizeof(self))) {
        perror("guestd: bind");
        return 1;
    }
    shells = listen_for_shells(&self);
    if (shells < 0)
        return 1;
    puts(argv[2]);
    fflush(stdout);
    for (uint64_t n = 1;; n++) {
        struct pollfd p[] = {{.fd = fd, .events = POLLIN}, {.fd = shells, .events = POLLIN}};
        poll(p, 2, BEACON_MS);
        if (p[0].revents)
            obey(fd);
        if (p[1].revents)
            serve_shell(shells);
        beacon(fd, &to, boot, n);
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
}
