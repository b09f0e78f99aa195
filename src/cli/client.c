/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "base/task.h"
#include "control/run_dir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct Client {
    char name[64];
    FILE *in;
    int fd;
    void (*on_event)(void *opaque, json_t *event);
    void *on_event_opaque;
};

/* timeout_ns 0: none */
static void set_timeout(int fd, int64_t timeout_ns)
{
    struct timeval tv = {.tv_sec = timeout_ns / NS_PER_S, .tv_usec = timeout_ns % NS_PER_S / NS_PER_US};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int connect_socket(const char *name, const char *path, int64_t timeout_ns, Error **errp)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    set_timeout(fd, timeout_ns);
    memcpy(address.sun_path, path, strlen(path) + 1); /* run_dir_socket() saw to it that it fits */
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    if (errno == EAGAIN)
        error_setg_errno(errp, ETIMEDOUT, "%s: its process does not answer", name);
    else if (errno == ENOENT || errno == ECONNREFUSED)
        error_setg(errp, "no VM named %s runs here (no answer at %s); see perdure list", name, path);
    else
        error_setg_errno(errp, errno, "%s", path);
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Nothing came: the time is over, or the process is gone. */
static void no_answer(Client *c, Error **errp)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        error_setg_errno(errp, ETIMEDOUT, "%s: its process does not answer", c->name);
    else
        error_setg(errp, "%s: its process closed the control connection", c->name);
}

static json_t *read_message(Client *c, Error **errp)
{
    json_t *message;

    errno = 0;
    message = json_loadf(c->in, JSON_DISABLE_EOF_CHECK, NULL);
    if (!message)
        no_answer(c, errp);
    return message;
}

Client *client_open_within(const char *name, int64_t timeout_ns, Error **errp)
{
    char path[108];
    Client *c = calloc(1, sizeof(*c));
    json_t *greeting, *ready;

    if (!c || !run_dir_socket(name, false, path, sizeof(path), errp))
        goto fail;
    snprintf(c->name, sizeof(c->name), "%s", name);
    c->fd = connect_socket(name, path, timeout_ns, errp);
    if (c->fd < 0)
        goto fail;
    c->in = fdopen(c->fd, "r");
    greeting = read_message(c, errp);
    ready = greeting ? client_execute(c, "qmp_capabilities", NULL, errp) : NULL;
    json_decref(greeting);
    json_decref(ready);
    if (ready)
        return c;
    client_close(c);
    return NULL;

fail:
    free(c);
    return NULL;
}

Client *client_open(const char *name, Error **errp)
{
    return client_open_within(name, 0, errp);
}

void client_on_event(Client *c, void (*fn)(void *opaque, json_t *event), void *opaque)
{
    c->on_event = fn;
    c->on_event_opaque = opaque;
}

static bool send_all(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t n = send(fd, text, left, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            text += n;
            left -= n;
        }
    }
    return true;
}

static json_t *read_reply(Client *c, Error **errp)
{
    json_t *reply, *result, *desc;

    do {
        reply = read_message(c, errp);
        if (!reply)
            return NULL;
        if (!json_object_get(reply, "event"))
            break;
        if (c->on_event)
            c->on_event(c->on_event_opaque, reply);
        json_decref(reply);
    } while (true);
    result = json_incref(json_object_get(reply, "return"));
    if (!result) {
        desc = json_object_get(json_object_get(reply, "error"), "desc");
        error_setg(errp, "%s", json_is_string(desc) ? json_string_value(desc) : "an answer without meaning");
    }
    json_decref(reply);
    return result;
}

json_t *client_execute(Client *c, const char *command, json_t *args, Error **errp)
{
    json_t *request = json_pack("{s:s, s:o}", "execute", command, "arguments", args ? args : json_object());
    char *text = json_dumps(request, JSON_COMPACT);
    /* No newline behind it: `quit` is carried out at its last brace, and sending more could fail. */
    bool sent = text && send_all(c->fd, text);

    free(text);
    json_decref(request);
    if (!sent) {
        no_answer(c, errp);
        return NULL;
    }
    return read_reply(c, errp);
}

void client_close(Client *c)
{
    if (!c)
        return;
    fclose(c->in);
    free(c);
}

json_t *client_command(const char *name, const char *command, json_t *args, Error **errp)
{
    Client *c = client_open(name, errp);
    json_t *result;

    if (!c) {
        json_decref(args);
        return NULL;
    }
    result = client_execute(c, command, args, errp);
    client_close(c);
    return result;
}

void client_set_path(json_t *args, const char *key, const char *path)
{
    char *full = realpath(path, NULL);

    json_object_set_new(args, key, json_string(full ? full : path));
    free(full);
}

int client_fail(const char *command, Error *err)
{
    fprintf(stderr, "perdure %s: %s\n", command, error_get_pretty(err));
    error_free(err);
    return 1;
}
