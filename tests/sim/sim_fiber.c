/* SPDX-License-Identifier: GPL-2.0-or-later */
#undef _FORTIFY_SOURCE /* its longjmp goes nowhere but up the same stack */
#include "sim_fiber.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif

#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FIBER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define STACK_SIZE (512 * 1024)
#define GUARD_SIZE 4096
#define POOL_MAX   64

struct context {
    ucontext_t begin;
    jmp_buf here; /* once it has begun: going on costs no system call, as swapcontext() does */
    bool begun;
};

struct Fiber {
    struct context context;
    char *stack; /* with the guard page below */
    void (*fn)(void *arg);
    void *arg;
    void *fake_stack; /* ASan's, while the fiber does not run */
    void *tsan;
};

static struct context scheduler = {.begun = true};
static Fiber *starting;
static char *pool[POOL_MAX];
static int pool_count;
#ifdef FIBER_ASAN
static void *scheduler_fake;
static const void *scheduler_bottom;
static size_t scheduler_size;
#endif
#ifdef FIBER_TSAN
static void *scheduler_tsan;
#endif

static char *stack_new(void)
{
    char *p;

    if (pool_count) {
        p = pool[--pool_count];
#ifdef FIBER_ASAN
        __asan_unpoison_memory_region(p + GUARD_SIZE, STACK_SIZE); /* frames that nobody returned from */
#endif
        return p;
    }
    p = mmap(NULL, STACK_SIZE + GUARD_SIZE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, GUARD_SIZE, PROT_NONE)) {
        perror("sim: a fiber's stack");
        abort();
    }
    return p;
}

static void stack_free(char *p)
{
    if (pool_count < POOL_MAX)
        pool[pool_count++] = p;
    else
        munmap(p, STACK_SIZE + GUARD_SIZE);
}

static void entered(Fiber *f)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, &scheduler_bottom, &scheduler_size);
#else
    (void)f;
#endif
}

static void trampoline(void)
{
    Fiber *f = starting;

    entered(f);
    f->fn(f->arg);
    abort();
}

Fiber *fiber_new(void (*fn)(void *arg), void *arg)
{
    Fiber *f = calloc(1, sizeof(*f));

    if (!f)
        abort();
    f->stack = stack_new();
    f->fn = fn;
    f->arg = arg;
    getcontext(&f->context.begin);
    f->context.begin.uc_stack.ss_sp = f->stack + GUARD_SIZE;
    f->context.begin.uc_stack.ss_size = STACK_SIZE;
    makecontext(&f->context.begin, trampoline, 0);
#ifdef FIBER_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    return f;
}

void fiber_free(Fiber *f)
{
    if (!f)
        return;
#ifdef FIBER_TSAN
    __tsan_destroy_fiber(f->tsan);
#endif
    stack_free(f->stack);
    free(f);
}

#if defined(FIBER_ASAN) || defined(FIBER_TSAN)
/* They have a longjmp of their own, for one stack. */
static void switch_context(struct context *from, struct context *to)
{
    swapcontext(&from->begin, &to->begin);
}
#else
static void switch_context(struct context *from, struct context *to)
{
    if (_setjmp(from->here))
        return;
    if (to->begun)
        _longjmp(to->here, 1);
    to->begun = true;
    setcontext(&to->begin);
}
#endif

void fiber_enter(Fiber *f)
{
    starting = f;
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&scheduler_fake, f->stack + GUARD_SIZE, STACK_SIZE);
#endif
#ifdef FIBER_TSAN
    scheduler_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->tsan, 0);
#endif
    switch_context(&scheduler, &f->context);
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
#endif
}

void fiber_leave(Fiber *f, int last)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &f->fake_stack, scheduler_bottom, scheduler_size);
#else
    (void)last;
#endif
#ifdef FIBER_TSAN
    __tsan_switch_to_fiber(scheduler_tsan, 0);
#endif
    switch_context(&f->context, &scheduler);
    entered(f);
}
