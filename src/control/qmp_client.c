/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/qmp_client.h"
#include "base/task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REQUEST_MAX     (1024 * 1024)
#define SEND_TIMEOUT_NS (1 * NS_PER_S)

struct qmp_client {
    const struct qmp_command *commands;
    void *opaque;
    Channel *ch;
    Task *task;
    struct task_mutex lock; /* sending (one message at a time), and the three below */
    bool negotiated;        /* past qmp_capabilities: may run commands and gets events */
    bool gone;
    bool busy; /* a command is under way, its answer not yet sent */
    struct task_cond idle;
    /* the task's own */
    char in[4096];
    size_t in_used, in_size;
    size_t request_size; /* bytes of the request being read */
};

/* Lock held. The deadline is for this write alone: a quiet client may stay connected for ever. */
static void send_locked(struct qmp_client *c, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);

    if (!text)
        return;
    struct iovec iov[2] = {{text, strlen(text)}, {(char *)"\r\n", 2}};
    if (!c->ch->ops->write(c->ch, iov, 2, clock_now() + SEND_TIMEOUT_NS, NULL))
        channel_shutdown(c->ch);
    free(text);
}

static void send_reply(struct qmp_client *c, json_t *message)
{
    task_lock(&c->lock);
    send_locked(c, message);
    task_unlock(&c->lock);
    json_decref(message);
}

static json_t *timestamp(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return json_pack("{s:I, s:I}", "seconds", (json_int_t)ts.tv_sec, "microseconds",
                     (json_int_t)(ts.tv_nsec / 1000));
}

void qmp_client_event(struct qmp_client *c, const char *event, json_t *data)
{
    json_t *message = json_pack("{s:s, s:o}", "event", event, "timestamp", timestamp());

    if (data)
        json_object_set(message, "data", data);
    task_lock(&c->lock);
    if (c->negotiated && !c->gone)
        send_locked(c, message);
    task_unlock(&c->lock);
    json_decref(message);
}

static json_t *version_object(void)
{
    int major = 0, minor = 0, micro = 0;

    sscanf(PERDURE_VERSION, "%d.%d.%d", &major, &minor, &micro);
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "perdure", "major", major, "minor", minor, "micro", micro,
                     "package", "");
}

static json_t *error_reply(const char *class, json_t *desc)
{
    return json_pack("{s:{s:s, s:o}}", "error", "class", class, "desc", desc);
}

static json_t *query_commands(const struct qmp_command *commands)
{
    static const char *const built_in[] = {"qmp_capabilities", "query-commands", "query-version"};
    json_t *list = json_array();

    for (const struct qmp_command *cmd = commands; cmd->name; cmd++)
        json_array_append_new(list, json_pack("{s:s}", "name", cmd->name));
    for (size_t i = 0; i < sizeof(built_in) / sizeof(built_in[0]); i++)
        json_array_append_new(list, json_pack("{s:s}", "name", built_in[i]));
    return json_pack("{s:o}", "return", list);
}

static json_t *run_command(struct qmp_client *c, const struct qmp_command *cmd, json_t *args)
{
    json_t *result = NULL, *empty = json_object(), *reply;
    Error *err = NULL;

    if (cmd->run(c->opaque, args ? args : empty, &result, &err)) {
        reply = json_pack("{s:o}", "return", result ? result : json_object());
    } else {
        reply = error_reply("GenericError", json_string(error_get_pretty(err)));
        error_free(err);
    }
    json_decref(empty);
    return reply;
}

static json_t *negotiate(struct qmp_client *c, const char *name)
{
    if (strcmp(name, "qmp_capabilities"))
        return error_reply("CommandNotFound",
                           json_string("Expecting capabilities negotiation with 'qmp_capabilities'"));
    task_lock(&c->lock);
    c->negotiated = true;
    task_unlock(&c->lock);
    return json_pack("{s:{}}", "return");
}

static json_t *execute(struct qmp_client *c, const char *name, json_t *args)
{
    if (!c->negotiated)
        return negotiate(c, name);
    if (!strcmp(name, "query-commands"))
        return query_commands(c->commands);
    if (!strcmp(name, "query-version"))
        return json_pack("{s:o}", "return", version_object());
    for (const struct qmp_command *cmd = c->commands; cmd->name; cmd++) {
        if (!strcmp(cmd->name, name))
            return run_command(c, cmd, args);
    }
    return error_reply("CommandNotFound", json_sprintf("The command %s has not been found", name));
}

/* NULL when the request has the form of one. */
static json_t *check_form(json_t *request)
{
    const char *key;
    json_t *value, *args = json_object_get(request, "arguments");

    if (!json_is_object(request))
        return error_reply("GenericError", json_string("QMP input must be a JSON object"));
    if (!json_is_string(json_object_get(request, "execute")))
        return error_reply("GenericError", json_string("QMP input lacks member 'execute'"));
    if (args && !json_is_object(args))
        return error_reply("GenericError", json_string("QMP input member 'arguments' must be an object"));
    json_object_foreach(request, key, value)
    {
        if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id"))
            return error_reply("GenericError", json_sprintf("QMP input member '%s' is unexpected", key));
    }
    return NULL;
}

static void set_busy(struct qmp_client *c, bool busy)
{
    task_lock(&c->lock);
    c->busy = busy;
    task_broadcast(&c->idle);
    task_unlock(&c->lock);
}

static void handle_request(struct qmp_client *c, json_t *request)
{
    json_t *id = json_object_get(request, "id"), *reply = check_form(request);

    set_busy(c, true);
    if (!reply)
        reply = execute(c, json_string_value(json_object_get(request, "execute")),
                        json_object_get(request, "arguments"));
    if (id)
        json_object_set(reply, "id", id);
    send_reply(c, reply);
    set_busy(c, false);
}

/* One byte a call: the parser then takes nothing that belongs to the next request. */
static size_t read_byte(void *buffer, size_t size, void *opaque)
{
    struct qmp_client *c = opaque;

    if (!size || c->request_size >= REQUEST_MAX)
        return 0;
    if (c->in_used == c->in_size) {
        ssize_t n = channel_read(c->ch, c->in, sizeof(c->in), NULL);
        if (n <= 0)
            return (size_t)-1;
        c->in_used = 0;
        c->in_size = n;
    }
    *(char *)buffer = c->in[c->in_used++];
    c->request_size++;
    return 1;
}

static void serve(struct qmp_client *c)
{
    json_error_t why;
    json_t *request;

    send_reply(c, json_pack("{s:{s:o, s:[]}}", "QMP", "version", version_object(), "capabilities"));
    for (;;) {
        c->request_size = 0;
        request = json_load_callback(read_byte, c,
                                     JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
        if (!request)
            break;
        handle_request(c, request);
        json_decref(request);
    }
    /* After bad syntax there is no telling where the next request begins: answer, and close. */
    if (json_error_code(&why) != json_error_premature_end_of_input || c->request_size >= REQUEST_MAX)
        send_reply(c, error_reply("GenericError", json_string("Invalid JSON syntax")));
}

static void client_main(void *arg)
{
    struct qmp_client *c = arg;

    serve(c);
    task_lock(&c->lock);
    channel_shutdown(c->ch);
    c->gone = true;
    task_unlock(&c->lock);
}

struct qmp_client *qmp_client_new(Channel *ch, const struct qmp_command *commands, void *opaque)
{
    struct qmp_client *c = calloc(1, sizeof(*c));

    if (!c) {
        channel_close(ch);
        return NULL;
    }
    c->commands = commands;
    c->opaque = opaque;
    c->ch = ch;
    task_mutex_init(&c->lock);
    task_cond_init(&c->idle);
    c->task = task_start("qmp-client", client_main, c, NULL);
    if (!c->task) {
        qmp_client_free(c);
        return NULL;
    }
    return c;
}

bool qmp_client_gone(struct qmp_client *c)
{
    bool gone;

    task_lock(&c->lock);
    gone = c->gone;
    task_unlock(&c->lock);
    return gone;
}

void qmp_client_free(struct qmp_client *c)
{
    if (!c)
        return;
    /* The command may be the `quit` that made us end: its client is owed an answer. */
    task_lock(&c->lock);
    while (c->busy)
        task_wait(&c->idle, &c->lock);
    task_unlock(&c->lock);
    channel_shutdown(c->ch);
    task_join(c->task);
    channel_close(c->ch);
    task_cond_destroy(&c->idle);
    task_mutex_destroy(&c->lock);
    free(c);
}
