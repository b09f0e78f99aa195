/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control/addressee.h"
#include "base/endian.h"
#include "base/task.h"
#include "engine/wire.h"
#include "stream/channel_psk.h"
#include "stream/frame.h"
#include "stream/tls_hello.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TLS_FIRST_BYTE 0x16
#define LOOK_AGAIN     (5 * NS_PER_MS)
/* Of HELLO's body: magic, version, kind, length of the name. */
#define NAME_LENGTH_AT 7
#define NAME_AT        9

static enum addressee copy_name(const void *name, size_t n, char *ret_name)
{
    if (!n || n >= ADDRESSEE_NAME_MAX || memchr(name, 0, n))
        return ADDRESSEE_NONE;
    memcpy(ret_name, name, n);
    ret_name[n] = 0;
    return ADDRESSEE_KNOWN;
}

static enum addressee of_tls(const uint8_t *p, size_t n, char *ret_name)
{
    char identity[sizeof(CHANNEL_PSK_IDENTITY) + 1 + ADDRESSEE_NAME_MAX];
    size_t prefix = strlen(CHANNEL_PSK_IDENTITY) + 1;

    switch (tls_hello_identity(p, n, identity, sizeof(identity))) {
    case TLS_HELLO_MORE:
        return ADDRESSEE_MORE;
    case TLS_HELLO_FOUND:
        if (!strncmp(identity, CHANNEL_PSK_IDENTITY ":", prefix))
            return copy_name(identity + prefix, strlen(identity + prefix), ret_name);
        break;
    case TLS_HELLO_NONE:
        break;
    }
    return ADDRESSEE_NONE;
}

static enum addressee of_hello(const uint8_t *p, size_t n, char *ret_name)
{
    const uint8_t *body = p + FRAME_HEADER_SIZE;
    struct frame f;
    size_t length;

    if (n < FRAME_HEADER_SIZE)
        return ADDRESSEE_MORE;
    if (frame_decode(p, &f) || f.type != WIRE_HELLO || f.length < NAME_AT)
        return ADDRESSEE_NONE;
    if (n < FRAME_HEADER_SIZE + NAME_AT)
        return ADDRESSEE_MORE;
    length = le16_get(body + NAME_LENGTH_AT);
    if (le32_get(body) != WIRE_MAGIC || length >= ADDRESSEE_NAME_MAX || NAME_AT + length > f.length)
        return ADDRESSEE_NONE;
    if (n < FRAME_HEADER_SIZE + NAME_AT + length)
        return ADDRESSEE_MORE;
    return copy_name(body + NAME_AT, length, ret_name);
}

enum addressee addressee_of(const uint8_t *p, size_t n, char ret_name[ADDRESSEE_NAME_MAX])
{
    if (!n)
        return ADDRESSEE_MORE;
    return p[0] == TLS_FIRST_BYTE ? of_tls(p, n, ret_name) : of_hello(p, n, ret_name);
}

/* The bytes stay where they are, so that the kernel cannot say when there are more of them: looked for again
 * and again, which takes one or two looks. */
static enum addressee look(int fd, uint8_t *buf, int64_t deadline, char *ret_name)
{
    enum addressee answer = ADDRESSEE_MORE;

    while (answer == ADDRESSEE_MORE && clock_now() < deadline) {
        ssize_t n = recv(fd, buf, TLS_HELLO_MAX, MSG_PEEK | MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return ADDRESSEE_NONE;
        if (n > 0)
            answer = addressee_of(buf, (size_t)n, ret_name);
        if (answer == ADDRESSEE_MORE)
            task_sleep_until(clock_now() + LOOK_AGAIN);
    }
    return answer;
}

bool addressee_find(int fd, const char *peer, int64_t deadline, char ret_name[ADDRESSEE_NAME_MAX],
                    Error **errp)
{
    uint8_t *buf = malloc(TLS_HELLO_MAX);
    enum addressee answer = buf ? look(fd, buf, deadline, ret_name) : ADDRESSEE_NONE;

    free(buf);
    if (answer == ADDRESSEE_MORE)
        error_setg_errno(errp, ETIMEDOUT, "%s did not say in time for which machine it comes", peer);
    else if (answer == ADDRESSEE_NONE)
        error_setg(errp, "%s does not say for which machine it comes", peer);
    return answer == ADDRESSEE_KNOWN;
}
