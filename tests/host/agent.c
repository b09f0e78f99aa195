// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control agent of a test host: runs commands and takes files for the harness (hosts.py).
 *
 *     agent /dev/vport0p1
 *
 * It speaks over a virtio-serial port and not over the network, because the tests cut the network. Both
 * directions carry frames: u32 length of the payload, u32 job, u8 type, payload; little-endian. The harness
 * picks job numbers.
 *
 *   from the harness                               from the agent
 *   X exec      payload: a line for /bin/sh        H hello     once, at the start
 *   K kill      payload: u8 signal, to the group   O R output  of the job: stdout, stderr
 *   P push      payload: u32 mode, path            E exit      i32: the exit status, or 128 + signal
 *   D data      of the file being pushed
 *   C close     of it; answered by E (0 or errno)
 *
 * One thread, one poll loop. A job ends when its first process ends: what a daemon it left behind writes
 * later is dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_JOBS = 64, MAX_PAYLOAD = 1 << 20, HEADER = 9 };

struct job {
    uint32_t id;
    pid_t pid; /* 0: this slot is free */
    int pidfd;
    int pipes[2]; /* stdout, stderr; -1 once closed */
};

struct push {
    uint32_t id;
    int fd;
    int error; /* the first errno; reported at close */
};

static struct job jobs[MAX_JOBS];
static struct push push = {.fd = -1};
static int port;

static void die(const char *what)
{
    fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void port_read(void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(port, (char *)buf + done, len - done);
        if (n < 0 && errno != EINTR)
            die("read");
        if (n == 0)
            usleep(20000); /* the harness is not connected */
        if (n > 0)
            done += n;
    }
}

static void port_write(const void *buf, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(port, (const char *)buf + done, len - done);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            die("write");
        if (n > 0)
            done += n;
    }
}

static void send_frame(uint32_t id, char type, const void *payload, uint32_t len)
{
    char frame[HEADER + 16384];

    memcpy(frame, &len, 4);
    memcpy(frame + 4, &id, 4);
    frame[8] = type;
    memcpy(frame + HEADER, payload, len);
    port_write(frame, HEADER + len);
}

static void send_exit(uint32_t id, int32_t code)
{
    send_frame(id, 'E', &code, sizeof(code));
}

static struct job *job_find(uint32_t id)
{
    for (int i = 0; i < MAX_JOBS; i++) {
        if (jobs[i].pid && jobs[i].id == id)
            return &jobs[i];
    }
    return NULL;
}

static struct job *job_free_slot(void)
{
    for (int i = 0; i < MAX_JOBS; i++) {
        if (!jobs[i].pid)
            return &jobs[i];
    }
    return NULL;
}

static void child(const char *line, int out, int err)
{
    int null = open("/dev/null", O_RDWR);

    setsid();
    dup2(null, 0);
    dup2(out, 1);
    dup2(err, 2);
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
}

static void job_start(uint32_t id, const char *line)
{
    struct job *job = job_free_slot();
    int out[2], err[2];

    if (!job || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
        send_exit(id, 126);
        return;
    }
    pid_t pid = fork();
    if (pid == 0)
        child(line, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    *job = (struct job){.id = id, .pid = pid, .pipes = {out[0], err[0]}};
    job->pidfd = syscall(SYS_pidfd_open, pid, 0);
    if (pid < 0 || job->pidfd < 0)
        die("start a job");
}

/* Forwards what one pipe holds; with @all until it is empty. */
static void job_forward(struct job *job, int which, bool all)
{
    char buf[16384];
    ssize_t n;

    do {
        if (job->pipes[which] < 0)
            return;
        n = read(job->pipes[which], buf, sizeof(buf));
        if (n > 0)
            send_frame(job->id, which ? 'R' : 'O', buf, n);
    } while (n > 0 && all);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        close(job->pipes[which]);
        job->pipes[which] = -1;
    }
}

static void job_end(struct job *job)
{
    int status = 0;

    waitpid(job->pid, &status, 0);
    for (int i = 0; i < 2; i++) {
        job_forward(job, i, true);
        if (job->pipes[i] >= 0)
            close(job->pipes[i]);
    }
    close(job->pidfd);
    send_exit(job->id, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    job->pid = 0;
}

static void make_parents(char *path)
{
    for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        mkdir(path, 0755);
        *p = '/';
    }
}

static void push_open(uint32_t id, char *payload)
{
    uint32_t mode;
    char *path = payload + sizeof(mode);

    memcpy(&mode, payload, sizeof(mode));
    make_parents(path);
    unlink(path); /* a running program of that name stays whole */
    push.id = id;
    push.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    push.error = push.fd < 0 ? errno : 0;
}

static void push_data(const char *data, size_t len)
{
    while (len && !push.error) {
        ssize_t n = write(push.fd, data, len);
        if (n < 0)
            push.error = errno;
        else
            data += n, len -= n;
    }
}

static void push_close(void)
{
    if (push.fd >= 0 && close(push.fd) && !push.error)
        push.error = errno;
    push.fd = -1;
    send_exit(push.id, push.error);
}

static void handle_frame(void)
{
    static char payload[MAX_PAYLOAD + 1];
    char header[HEADER];
    uint32_t len, id;
    struct job *job;

    port_read(header, sizeof(header));
    memcpy(&len, header, 4);
    memcpy(&id, header + 4, 4);
    if (len > MAX_PAYLOAD) {
        errno = EPROTO;
        die("frame too long");
    }
    port_read(payload, len);
    payload[len] = 0;
    switch (header[8]) {
    case 'X':
        job_start(id, payload);
        break;
    case 'K':
        job = job_find(id);
        if (job)
            kill(-job->pid, payload[0]);
        break;
    case 'P':
        push_open(id, payload);
        break;
    case 'D':
        push_data(payload, len);
        break;
    case 'C':
        push_close();
        break;
    }
}

static int fill_pollfds(struct pollfd *fds)
{
    int n = 0;

    fds[n++] = (struct pollfd){.fd = port, .events = POLLIN};
    for (int i = 0; i < MAX_JOBS; i++) {
        bool used = jobs[i].pid != 0;
        fds[n++] = (struct pollfd){.fd = used ? jobs[i].pidfd : -1, .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = used ? jobs[i].pipes[0] : -1, .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = used ? jobs[i].pipes[1] : -1, .events = POLLIN};
    }
    return n;
}

int main(int argc, char **argv)
{
    struct pollfd fds[1 + 3 * MAX_JOBS];

    port = argc == 2 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
    if (port < 0)
        die("open the port");
    send_frame(0, 'H', "", 0);
    for (;;) {
        int n = fill_pollfds(fds);
        if (poll(fds, n, -1) < 0 && errno != EINTR)
            die("poll");
        for (int i = 0; i < MAX_JOBS; i++) {
            struct pollfd *f = &fds[1 + 3 * i];
            if (f[1].revents)
                job_forward(&jobs[i], 0, false);
            if (f[2].revents)
                job_forward(&jobs[i], 1, false);
            if (f[0].revents)
                job_end(&jobs[i]);
        }
        if (fds[0].revents & POLLHUP)
            usleep(20000);
        else if (fds[0].revents)
            handle_frame();
    }
}
