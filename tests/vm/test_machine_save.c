/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a save asks of KVM, in which order, what comes of it when KVM does not answer, and that it allocates
 * nothing. */
#include "vm.h"

#include "machine/machine_internal.h"
#include <perdure/savevm.h>

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- between the project and the kernel --- */

#define CALLS_MAX 1024

static struct {
    int fd;
    unsigned long request;
} calls[CALLS_MAX];
static atomic_uint call_count;
static atomic_bool recording;
static atomic_ulong refused; /* this request fails */

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (recording) {
        unsigned n = atomic_fetch_add(&call_count, 1);

        calls[n % CALLS_MAX].fd = fd;
        calls[n % CALLS_MAX].request = request;
    }
    if (request == refused) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, arg);
}

static void record(void)
{
    call_count = 0;
    recording = true;
}

static unsigned count_calls(unsigned long request)
{
    unsigned n = 0;

    recording = false;
    for (unsigned i = 0; i < call_count; i++)
        n += calls[i].request == request;
    return n;
}

/* Of the first (last: the last) such call, on any descriptor if fd is -1. It must be there. */
static unsigned place(unsigned long request, int fd, bool last)
{
    unsigned at = CALLS_MAX;

    for (unsigned i = 0; i < call_count; i++)
        if (calls[i].request == request && (fd < 0 || calls[i].fd == fd) && (last || at == CALLS_MAX))
            at = i;
    assert_in_range(at, 0, CALLS_MAX - 1);
    return at;
}

/* --- allocations, of all threads (vm.mk puts these in the place of malloc and its kin) --- */

static atomic_uint allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    allocations++;
    return __real_realloc(p, size);
}

/* --- tests --- */

struct subject {
    Machine *m;
    VMStream *out;
};

static struct subject begin(void)
{
    struct subject s = {vm_boot("walk", 2, "size=1M cpus=2"), perdure_stream_open_memory(1 << 20)};

    vm_wait_running(s.m);
    vm_pause(s.m);
    return s;
}

static void end(struct subject *s)
{
    vm_resume(s->m);
    vm_wait_progress(s->m);
    perdure_stream_close(s->out);
    vm_end(s->m);
}

static bool save(struct subject *s, Error **errp)
{
    perdure_stream_rewind(s->out);
    return perdure_savevm_devices(s->out, errp);
}

/* An interrupt that is on its way is found where it arrives, not where it no longer is; and KVM acts upon
 * INIT and SIPI before the registers are read. */
static void test_order(void **state)
{
    struct subject s = begin();
    Error *err = NULL;

    (void)state;
    record();
    VM_OK(save(&s, &err));
    recording = false;
    assert_true(place(KVM_GET_PIT2, -1, false) < place(KVM_GET_IRQCHIP, -1, false));
    for (int i = 0; i < 2; i++) {
        int fd = s.m->vcpus.cpu[i].fd;

        assert_true(place(KVM_GET_IRQCHIP, -1, true) < place(KVM_GET_LAPIC, fd, false));
        assert_true(place(KVM_GET_MP_STATE, fd, false) < place(KVM_RUN, fd, false));
        assert_true(place(KVM_GET_MP_STATE, fd, false) < place(KVM_GET_XSAVE, fd, false));
    }
    end(&s);
}

/* What was read belongs to one save in one pause. */
static void test_nothing_stale(void **state)
{
    struct subject s = begin();
    const struct guest_ops *ops = machine_guest(s.m)->ops;
    Error *err = NULL;

    (void)state;
    record();
    VM_OK(ops->begin_save(machine_guest(s.m), &err));
    VM_OK(save(&s, &err));
    assert_int_equal(count_calls(KVM_GET_LAPIC), 2);
    record();
    VM_OK(save(&s, &err));
    assert_int_equal(count_calls(KVM_GET_LAPIC), 2);

    VM_OK(ops->begin_save(machine_guest(s.m), &err)); /* and the epoch fails for another reason */
    vm_resume(s.m);
    vm_wait_progress(s.m);
    vm_pause(s.m);
    record();
    VM_OK(save(&s, &err));
    assert_int_equal(count_calls(KVM_GET_LAPIC), 2);

    VM_OK(ops->begin_save(machine_guest(s.m), &err));
    VM_OK(ops->reset(machine_guest(s.m), &err));
    record();
    VM_OK(save(&s, &err));
    assert_int_equal(count_calls(KVM_GET_LAPIC), 2);
    end(&s);
}

static void expect_failure(struct subject *s, unsigned long request, const char *text)
{
    Error *err = NULL;

    refused = request;
    assert_false(save(s, &err));
    refused = 0;
    assert_string_equal(error_get_pretty(err), text);
    error_free(err);
    err = NULL;
    VM_OK(save(s, &err)); /* as if nothing had been */
}

/* What KVM does not tell is not saved as if it had. */
static void test_kvm_fails(void **state)
{
    struct subject s = begin();

    (void)state;
    expect_failure(&s, KVM_GET_PIT2, "saving machine.0: KVM_GET_PIT2: Input/output error");
    expect_failure(&s, KVM_GET_CLOCK, "saving kvmclock.0: KVM_GET_CLOCK: Input/output error");
    expect_failure(&s, KVM_GET_MP_STATE, "saving vcpu.0: vCPU 0: KVM_GET_MP_STATE: Input/output error");
    expect_failure(&s, KVM_RUN, "saving vcpu.0: vCPU 0: KVM_RUN to read its registers: Input/output error");
    expect_failure(&s, KVM_GET_LAPIC, "saving vcpu.0: vCPU 0: KVM_GET_LAPIC: Input/output error");
    end(&s);
}

static bool plant(void *opaque, Error **errp)
{
    (void)errp;
    *(void **)opaque = malloc(64);
    return true;
}

/* From pause to resume as an engine does it, the allocations. */
static unsigned pause_allocates(struct subject *s, Staging *staging)
{
    Guest *g = machine_guest(s->m);
    Error *err = NULL;
    unsigned before;
    bool more;

    perdure_stream_rewind(s->out);
    staging_reset(staging);
    before = allocations;
    VM_OK(g->ops->pause(g, &err) && g->ops->begin_save(g, &err) &&
          g->ops->collect(g, staging, false, &more, &err) && save(s, &err));
    g->ops->resume(g);
    return allocations - before;
}

static void test_allocates_nothing(void **state)
{
    static const VMStateField none[] = {VMSTATE_END};
    static const VMStateDescription planted = {
        .name = "planted", .version = 1, .minimum_version = 1, .fields = none, .pre_save = plant};
    struct subject s = begin();
    Guest *g = machine_guest(s.m);
    Error *err = NULL;
    Staging *staging = staging_new(1024, &err);
    void *memory = NULL;

    (void)state;
    VM_OK(g->ops->tracking_start(g, false, &err));
    vm_resume(s.m);
    for (int i = 0; i < 50; i++)
        assert_int_equal(pause_allocates(&s, staging), 0);
    VM_OK(perdure_vmstate_register(&planted, 0, &memory, &err)); /* it would be seen */
    assert_int_equal(pause_allocates(&s, staging), 1);
    perdure_vmstate_unregister(&planted, &memory);
    free(memory);
    g->ops->tracking_stop(g);
    staging_free(staging);
    vm_pause(s.m);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_nothing_stale),
        cmocka_unit_test(test_kvm_fails),
        cmocka_unit_test(test_allocates_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
