/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine's transport over sockets: tcp:HOST:PORT and unix:PATH, with TLS by pre-shared key, which beyond
 * loopback and unix sockets is required unless the user said --insecure.
 */
#ifndef ENGINE_TRANSPORT_SOCKET_H
#define ENGINE_TRANSPORT_SOCKET_H

#include "engine/engine.h"

/* Not listening yet. vm: the machine's name, which connections by TLS say in clear. */
struct transport *transport_socket_new(const char *vm, Error **errp);
/* Of the connections made from now on. psk_path empty: plain, which a peer beyond this host then needs
 * insecure for. The key is loaded here. Without a call a standby connects as it listens: it is the pair's key. */
bool transport_socket_set_security(struct transport *t, const char *psk_path, bool insecure, Error **errp);
/* Begins to listen, once, with a key and an insecure of its own: what a protect says of the way out does not
 * open the way in. accept works from now on. *ret_address (borrowed): with the port really bound. */
bool transport_socket_listen(struct transport *t, const char *address, const char *psk_path, bool insecure,
                             const char **ret_address, Error **errp);
void transport_socket_free(struct transport *t);

#endif
