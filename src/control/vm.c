/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/vm.h"
#include "base/log.h"
#include "base/task.h"
#include "control/disk_gate.h"
#include "control/event_queue.h"
#include "control/last_resort.h"
#include "control/listen.h"
#include "control/migrate.h"
#include "control/notify.h"
#include "control/qmp_commands.h"
#include "control/qmp_server.h"
#include "control/run_dir.h"
#include "control/state_file.h"
#include "net/console_gate.h"
#include "net/output_buffer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define IDLE_LOOK_MS 500
#define ANSWER_LIMIT (5 * NS_PER_S)

/* Why the process ends; the first cause counts. */
enum vm_end { VM_END_NONE, VM_END_QUIT, VM_END_POWEROFF, VM_END_MIGRATED, VM_END_PANIC, VM_END_ERROR };

struct Vm {
    struct vm_options options;
    struct transport *transport;
    struct guest_factory factory;
    Engine *engine;
    QmpServer *server;
    EventQueue *events;
    int signal_fd;
    bool signalled;
    LastResort *last_resort; /* NULL: the end has not begun */
    struct task_mutex lock;  /* machine, and every change of its run state by a command; listens_at */
    Machine *machine;        /* built here, or by the engine from a primary's stream */
    const char *listens_at;
    _Atomic(const char *) migration; /* the status that the clients were told */
    atomic_uint machine_events;
    atomic_int end; /* enum vm_end */
};

static void end_process(Vm *vm, enum vm_end cause)
{
    int none = VM_END_NONE;

    atomic_compare_exchange_strong(&vm->end, &none, cause);
    event_queue_wake(vm->events);
}

/* --- what the machine and the engine tell --- */

static void on_machine_event(void *opaque, enum machine_event ev)
{
    Vm *vm = opaque;

    atomic_fetch_or(&vm->machine_events, 1u << ev);
    event_queue_wake(vm->events);
}

/* QMP's events of a migration, here or to here. */
static void tell_migration(Vm *vm, bool pass)
{
    struct engine_status s;
    const char *status;

    engine_status(vm->engine, &s);
    status = migrate_status_name(&s);
    if (strcmp(atomic_exchange(&vm->migration, status), status) && strcmp(status, "none"))
        event_queue_put(vm->events, "MIGRATION", json_pack("{s:s}", "status", status));
    if (pass)
        event_queue_put(vm->events, "MIGRATION_PASS",
                        json_pack("{s:I}", "pass", (json_int_t)s.migration.passes + 1));
}

static void on_engine_event(void *opaque, const char *name, const char *text)
{
    Vm *vm = opaque;
    bool migration = !strncmp(name, "MIGRATION", strlen("MIGRATION"));

    if (!migration)
        event_queue_put(vm->events, name, json_pack("{s:s}", "text", text));
    if (migration || !strcmp(name, "PERDURE_STATE"))
        tell_migration(vm, !strcmp(name, "MIGRATION_PASS"));
}

static void on_guest_ended(void *opaque, enum guest_request how)
{
    Vm *vm = opaque;

    on_machine_event(vm, how == GUEST_REQUEST_PANIC ? MACHINE_PANICKED : MACHINE_POWEROFF);
}

static void on_promoted(void *opaque, Guest *g)
{
    Vm *vm = opaque;

    (void)g;
    event_queue_put(vm->events, "RESUME", NULL);
}

static void on_migrated(void *opaque)
{
    end_process(opaque, VM_END_MIGRATED);
}

static Guest *create_guest(struct guest_factory *gf, VMStream *f, Error **errp)
{
    Vm *vm = gf->opaque;
    Machine *m;

    if (!disk_gate_standby(&vm->options.machine, vm->options.force_stale, errp))
        return NULL;
    m = machine_new_from_stream(f, &vm->options.machine, errp);
    if (!m)
        return NULL;
    machine_set_listener(m, on_machine_event, vm);
    vm_lock(vm);
    vm->machine = m;
    vm_unlock(vm);
    return machine_guest(m);
}

static void destroy_guest(struct guest_factory *gf, Guest *g)
{
    Vm *vm = gf->opaque;
    Machine *m = NULL;

    vm_lock(vm);
    if (vm->machine && machine_guest(vm->machine) == g) {
        m = vm->machine;
        vm->machine = NULL;
    }
    vm_unlock(vm);
    machine_free(m);
}

/* --- building --- */

/* Before the first thread: every one inherits the mask, so that signals arrive at the main task alone. */
static bool take_signals(Vm *vm, Error **errp)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    vm->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (vm->signal_fd < 0)
        error_setg_errno(errp, errno, "signals");
    return vm->signal_fd >= 0;
}

static bool build_machine(Vm *vm, Error **errp)
{
    if (vm->options.standby)
        return disk_gate_standby(&vm->options.machine, vm->options.force_stale, errp);
    if (!disk_gate_run(&vm->options.machine, vm->options.force_stale, errp))
        return false;
    if (vm->options.restore[0])
        vm->machine = state_file_restore(vm->options.restore, &vm->options.machine, errp);
    else
        vm->machine = machine_new(&vm->options.machine, errp);
    if (!vm->machine)
        return false;
    machine_set_listener(vm->machine, on_machine_event, vm);
    return vm->options.restore[0] || machine_boot(vm->machine, errp);
}

static bool build_engine(Vm *vm, Error **errp)
{
    struct engine_owner owner = {
        .opaque = vm,
        .factory = &vm->factory,
        .event = on_engine_event,
        .guest_ended = on_guest_ended,
        .promoted = on_promoted,
        .migrated = on_migrated,
    };

    vm->factory = (struct guest_factory){.create = create_guest, .destroy = destroy_guest, .opaque = vm};
    vm->transport = transport_socket_new(vm->options.machine.name, errp);
    if (!vm->transport)
        return false;
    vm->migration = "none";
    vm->engine = engine_new(vm->options.machine.name, vm->machine ? machine_guest(vm->machine) : NULL,
                            vm->transport, &owner, errp);
    if (!vm->engine)
        return false;
    return !vm->options.listen.address[0] || vm_start_listening(vm, &vm->options.listen, errp);
}

static bool build(Vm *vm, Error **errp)
{
    char socket_path[256];

    if (!run_dir_socket(vm->options.machine.name, true, socket_path, sizeof(socket_path), errp) ||
        !take_signals(vm, errp))
        return false;
    net_output_buffer_register();
    console_gate_register();
    vm->events = event_queue_new(errp);
    if (!vm->events || !build_machine(vm, errp) || !build_engine(vm, errp))
        return false;
    vm->server = qmp_server_new(socket_path, qmp_commands, vm, errp);
    return vm->server && (!vm->machine || vm->options.paused || machine_start(vm->machine, errp));
}

Vm *vm_new(const struct vm_options *options, Error **errp)
{
    Vm *vm = calloc(1, sizeof(*vm));

    if (!vm) {
        error_setg_errno(errp, ENOMEM, "%s", options->machine.name);
        return NULL;
    }
    vm->options = *options;
    vm->signal_fd = -1;
    task_mutex_init(&vm->lock);
    if (!build(vm, errp)) {
        vm_free(vm);
        return NULL;
    }
    return vm;
}

/* The engine is told first: commands that wait for it return. Then the socket goes, so that no other one
 * comes in half way; then the engine, which may still call the machine. */
void vm_free(Vm *vm)
{
    if (!vm)
        return;
    last_resort_limit(vm->last_resort);
    if (vm->engine)
        engine_quit(vm->engine);
    qmp_server_free(vm->server);
    engine_free(vm->engine);
    machine_free(vm->machine);
    transport_socket_free(vm->transport);
    event_queue_free(vm->events);
    last_resort_free(vm->last_resort);
    if (vm->signal_fd >= 0)
        close(vm->signal_fd);
    task_mutex_destroy(&vm->lock);
    free(vm);
}

/* --- running --- */

static void broadcast(void *opaque, const char *event, json_t *data)
{
    Vm *vm = opaque;

    qmp_server_event(vm->server, event, json_incref(data));
}

static void handle_machine_events(Vm *vm)
{
    static const struct {
        enum machine_event ev;
        const char *event, *text;
        enum vm_end end;
    } table[] = {
        {MACHINE_STOPPED, "STOP", NULL, VM_END_NONE},
        {MACHINE_RUNNING, "RESUME", NULL, VM_END_NONE},
        {MACHINE_RESET, "RESET", "the guest was reset", VM_END_NONE},
        {MACHINE_POWEROFF, "SHUTDOWN", "the guest powered off", VM_END_POWEROFF},
        {MACHINE_PANICKED, "GUEST_PANICKED", "the guest panicked", VM_END_PANIC},
        {MACHINE_ERROR, "PERDURE_MACHINE_ERROR", "the machine failed", VM_END_ERROR},
    };
    unsigned seen = atomic_exchange(&vm->machine_events, 0);

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (!(seen & 1u << table[i].ev))
            continue;
        if (table[i].text)
            log_info("%s: %s", vm->options.machine.name, table[i].text);
        qmp_server_event(vm->server, table[i].event,
                         table[i].text ? json_pack("{s:s}", "text", table[i].text) : NULL);
        if (table[i].end != VM_END_NONE)
            end_process(vm, table[i].end);
    }
}

static void handle_signals(Vm *vm)
{
    struct signalfd_siginfo info;

    while (read(vm->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        log_info("%s: signal %s: ending", vm->options.machine.name, sigabbrev_np(info.ssi_signo));
        vm->signalled = true;
        end_process(vm, VM_END_QUIT);
    }
}

/* Of a protected guest, or one that the other side runs, the state is not ours to keep: the guest goes on
 * there. Its engine may also hold it still for good. */
static Machine *machine_to_save(Vm *vm, Error **errp)
{
    struct engine_status status;

    engine_status(vm->engine, &status);
    if (status.role == ENGINE_BACKUP || status.state == ENGINE_UNPROTECTED)
        return vm_machine(vm, errp);
    error_setg(errp, "not saved: the guest is %s, and goes on at %s", engine_state_name(status.state),
               status.peer);
    return NULL;
}

/* What is only on its way to another side stays here. */
static void keep_guest(Vm *vm)
{
    struct engine_status status;

    engine_status(vm->engine, &status);
    if (status.role == ENGINE_PRIMARY && status.state == ENGINE_SYNCING)
        engine_unprotect(vm->engine, false, NULL);
    if (status.role == ENGINE_PRIMARY && status.state == ENGINE_MIGRATING)
        engine_migrate_cancel(vm->engine, false, NULL);
}

static bool save_on_exit(Vm *vm)
{
    Machine *m;
    Error *err = NULL;

    if (!vm->options.save_on_exit[0] || vm->end != VM_END_QUIT)
        return true;
    keep_guest(vm);
    vm_lock(vm);
    m = machine_to_save(vm, &err);
    if (m) {
        machine_stop(m);
        state_file_save(m, vm->options.save_on_exit, &err);
    }
    vm_unlock(vm);
    if (!err)
        return true;
    log_warn("%s: --save-on-exit: %s", vm->options.machine.name, error_get_pretty(err));
    error_free(err);
    return false;
}

/* A standby that the dispatcher started goes when nobody has use for it; *since: when it last had. */
static void end_if_idle(Vm *vm, int64_t *since)
{
    struct engine_status s;

    engine_status(vm->engine, &s);
    if (s.role != ENGINE_BACKUP || s.state != ENGINE_LISTENING)
        *since = clock_now();
    if (clock_now() - *since < vm->options.idle_ns)
        return;
    log_info("%s: no primary came: ending", vm->options.machine.name);
    end_process(vm, VM_END_QUIT);
}

/* Whoever moved the machine away wants to hear how that went. */
static void wait_for_clients(Vm *vm)
{
    int64_t until = clock_now() + ANSWER_LIMIT;

    while (qmp_server_has_clients(vm->server) && clock_now() < until)
        task_sleep_until(clock_now() + 5 * NS_PER_MS);
}

int vm_run(Vm *vm)
{
    struct pollfd fds[2] = {{.fd = event_queue_fd(vm->events), .events = POLLIN},
                            {.fd = vm->signal_fd, .events = POLLIN}};
    int64_t since = clock_now();
    bool saved;

    notify_service("READY=1");
    while (vm->end == VM_END_NONE) {
        if (poll(fds, 2, vm->options.idle_ns ? IDLE_LOOK_MS : -1) < 0 && errno != EINTR)
            break;
        if (vm->options.idle_ns)
            end_if_idle(vm, &since);
        event_queue_drain(vm->events, broadcast, vm);
        handle_machine_events(vm);
        handle_signals(vm);
    }
    vm->last_resort = last_resort_new(vm->signal_fd, vm->signalled, vm->options.machine.name);
    notify_service("STOPPING=1");
    saved = save_on_exit(vm);
    event_queue_drain(vm->events, broadcast, vm);
    if (vm->end == VM_END_MIGRATED)
        wait_for_clients(vm);
    return saved && (vm->end == VM_END_QUIT || vm->end == VM_END_POWEROFF || vm->end == VM_END_MIGRATED) ? 0
                                                                                                         : 1;
}

/* --- for the commands --- */

Engine *vm_engine(Vm *vm)
{
    return vm->engine;
}

Machine *vm_machine(Vm *vm, Error **errp)
{
    struct engine_status status;

    engine_status(vm->engine, &status);
    if (status.role == ENGINE_BACKUP || !vm->machine) {
        error_setg(errp, "%s is a backup here (%s): its guest runs on the other side",
                   vm->options.machine.name, engine_state_name(status.state));
        return NULL;
    }
    if (status.unstarted) {
        error_setg(errp, "%s has come here by a swap, and its guest does not run yet (%s)",
                   vm->options.machine.name, engine_state_name(status.state));
        return NULL;
    }
    return vm->machine;
}

static bool listen_address(Vm *vm, const char *wanted, char *buf, size_t size, Error **errp)
{
    char path[256];

    if (strcmp(wanted, "shared")) {
        snprintf(buf, size, "%s", wanted);
        return true;
    }
    if (!run_dir_handover(vm->options.machine.name, true, path, sizeof(path), errp))
        return false;
    snprintf(buf, size, "handover:%s", path);
    return true;
}

bool vm_start_listening(Vm *vm, const struct vm_listen *l, Error **errp)
{
    char where[300];
    const char *address;
    bool ok = false;

    vm_lock(vm);
    if (vm->listens_at)
        error_setg(errp, "%s listens on %s already", vm->options.machine.name, vm->listens_at);
    else
        ok = listen_address(vm, l->address, where, sizeof(where), errp) &&
             transport_socket_listen(vm->transport, where, l->psk, l->insecure, &address, errp) &&
             engine_listen(vm->engine, listen_arbiter(l), errp);
    if (ok)
        vm->listens_at = address;
    vm_unlock(vm);
    if (ok)
        log_info("%s: listening on %s", vm->options.machine.name, address);
    return ok;
}

const char *vm_listens_at(Vm *vm)
{
    const char *address;

    vm_lock(vm);
    address = vm->listens_at;
    vm_unlock(vm);
    return address ? address : "";
}

void vm_lock(Vm *vm)
{
    task_lock(&vm->lock);
}

void vm_unlock(Vm *vm)
{
    task_unlock(&vm->lock);
}

struct transport *vm_transport(Vm *vm)
{
    return vm->transport;
}

const struct vm_options *vm_get_options(const Vm *vm)
{
    return &vm->options;
}

const char *vm_run_state(Vm *vm)
{
    const char *state = "inmigrate";
    struct engine_status s;
    Machine *m;

    switch (atomic_load(&vm->end)) {
    case VM_END_POWEROFF:
        return "shutdown";
    case VM_END_PANIC:
        return "guest-panicked";
    case VM_END_ERROR:
        return "internal-error";
    case VM_END_MIGRATED:
        return "postmigrate";
    }
    engine_status(vm->engine, &s);
    vm_lock(vm);
    m = vm_machine(vm, NULL);
    if (m) /* FENCED: it stands still for good, whatever its own run state says */
        state = machine_running(m) && !s.elsewhere ? "running" : "paused";
    vm_unlock(vm);
    return state;
}

void vm_quit(Vm *vm)
{
    end_process(vm, VM_END_QUIT);
}

void vm_event(Vm *vm, const char *event, json_t *data)
{
    event_queue_put(vm->events, event, data);
}
