/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells the service manager that started this process how it is (systemd's Type=notify; sd_notify(3) has the
 * words): "READY=1", "STOPPING=1", "STATUS=...". Without one (no NOTIFY_SOCKET in the environment) nothing
 * happens, and nothing can go wrong that the caller could do anything about.
 */
#ifndef CONTROL_NOTIFY_H
#define CONTROL_NOTIFY_H

void notify_service(const char *state);

#endif
