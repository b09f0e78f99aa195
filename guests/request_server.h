/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A bare machine that answers numbered requests (requests.h) until it finds an error: what `count` and `log` have in
 * common. The options start=, pages= and dirty= are the ring's; with cpus=2 the second processor counts turns.
 *
 *     request_server_start();
 *     if (!service_start(answer, -1, false)) ...
 *     request_server_run();
 */
#ifndef GUESTS_REQUEST_SERVER_H
#define GUESTS_REQUEST_SERVER_H

void request_server_start(void);
/* Returns when there was an error. */
void request_server_run(void);

#endif
