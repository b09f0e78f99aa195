/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The runtime of task.h that the product uses: one pthread a task, CLOCK_BOOTTIME. Only task.c looks in here.
 */
#ifndef BASE_TASK_THREADS_H
#define BASE_TASK_THREADS_H

#include "base/task.h"

extern const struct task_runtime task_runtime_threads;

/* Does the calling thread hold m? */
bool task_threads_holds(struct task_mutex *m);

#endif
