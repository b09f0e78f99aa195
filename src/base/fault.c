/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fault.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define MAX_ARMED 16

struct armed {
    char name[64];
    uint64_t nth;
    uint64_t hits;
    bool fired;
};

int fault_armed_count;
static struct armed table[MAX_ARMED]; /* the first fault_armed_count are in use */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct armed *find(const char *name)
{
    for (int i = 0; i < fault_armed_count; i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

bool fault_check(const char *name)
{
    bool fail = false;
    struct armed *a;

    pthread_mutex_lock(&lock);
    a = find(name);
    if (a) {
        a->hits++;
        fail = !a->nth || a->hits == a->nth;
        a->fired |= fail;
    }
    pthread_mutex_unlock(&lock);
    return fail;
}

void fault_arm(const char *name, uint64_t nth)
{
    struct armed *a;

    pthread_mutex_lock(&lock);
    a = find(name);
    if (!a) {
        assert(fault_armed_count < MAX_ARMED);
        a = &table[fault_armed_count];
    }
    *a = (struct armed){.nth = nth};
    assert(strlen(name) < sizeof(a->name));
    snprintf(a->name, sizeof(a->name), "%s", name);
    if (a == &table[fault_armed_count])
        __atomic_store_n(&fault_armed_count, fault_armed_count + 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
}

bool fault_fired(const char *name)
{
    struct armed *a;
    bool fired;

    pthread_mutex_lock(&lock);
    a = find(name);
    fired = a && a->fired;
    pthread_mutex_unlock(&lock);
    return fired;
}

void fault_disarm_all(void)
{
    pthread_mutex_lock(&lock);
    __atomic_store_n(&fault_armed_count, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
}
