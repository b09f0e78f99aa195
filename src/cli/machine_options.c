/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/machine_options.h"
#include "base/crc32c.h"
#include "cli/options.h"
#include "machine/guest_images.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUILTIN_PREFIX "builtin:"
#define FILE_SIZE_MAX  (1024 * 1024 * 1024)

static bool id_is_taken(const struct machine_config *c, const char *id, Error **errp)
{
    bool taken = false;

    for (int i = 0; i < c->disk_count; i++)
        taken |= !strcmp(c->disks[i].id, id);
    for (int i = 0; i < c->net_count; i++)
        taken |= !strcmp(c->nets[i].id, id);
    for (int i = 0; i < c->channel_count; i++)
        taken |= !strcmp(c->channels[i].id, id);
    if (taken)
        error_setg(errp, "id=%s is there twice", id);
    return taken;
}

bool machine_option_disk(void *config, const char *text, Error **errp)
{
    struct machine_config *c = config;
    struct machine_disk d = {0};
    char format[32] = "raw", readonly[32] = "off", shared[32] = "off";
    const struct suboption subs[] = {
        {"path", d.path, sizeof(d.path)},   {"id", d.id, sizeof(d.id)},
        {"format", format, sizeof(format)}, {"readonly", readonly, sizeof(readonly)},
        {"shared", shared, sizeof(shared)}, {NULL, NULL, 0},
    };

    if (!suboptions_parse("--disk", text, subs, errp) ||
        !parse_on_off("readonly", readonly, &d.readonly, errp) ||
        !parse_on_off("shared", shared, &d.shared, errp))
        return false;
    if (c->disk_count == MACHINE_DISKS_MAX) {
        error_setg(errp, "more than %d disks", MACHINE_DISKS_MAX);
        return false;
    }
    if (!d.path[0] || strcmp(format, "raw")) {
        error_setg(errp, !d.path[0] ? "path= is missing" : "format=%s is not supported; raw is", format);
        return false;
    }
    if (d.readonly && d.shared) {
        error_setg(errp, "readonly=on needs no shared=on: any number may read an image");
        return false;
    }
    if (!d.id[0])
        snprintf(d.id, sizeof(d.id), "disk%d", c->disk_count);
    if (id_is_taken(c, d.id, errp))
        return false;
    c->disks[c->disk_count++] = d;
    return true;
}

static bool parse_mac(const char *text, uint8_t mac[6], Error **errp)
{
    int used = 0;

    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
               &mac[5], &used) == 6 &&
        !text[used] && !(mac[0] & 1))
        return true;
    error_setg(errp, "mac=%s is not a unicast MAC address (52:54:00:12:34:56)", text);
    return false;
}

bool machine_option_net(void *config, const char *text, Error **errp)
{
    struct machine_config *c = config;
    struct machine_net n = {0};
    char mac[20] = "";
    const struct suboption subs[] = {
        {"tap", n.tap, sizeof(n.tap)},
        {"bridge", n.bridge, sizeof(n.bridge)},
        {"id", n.id, sizeof(n.id)},
        {"mac", mac, sizeof(mac)},
        {NULL, NULL, 0},
    };

    if (!suboptions_parse("--net", text, subs, errp) || (mac[0] && !parse_mac(mac, n.mac, errp)))
        return false;
    if (c->net_count == MACHINE_NETS_MAX) {
        error_setg(errp, "more than %d NICs", MACHINE_NETS_MAX);
        return false;
    }
    if (!n.tap[0] == !n.bridge[0]) {
        error_setg(errp, n.tap[0]
                             ? "give either tap= or bridge="
                             : "tap= is missing: the name of a tap device (ip tuntap add mode tap NAME), or "
                               "bridge=, a bridge on which one is made");
        return false;
    }
    if (!n.id[0])
        snprintf(n.id, sizeof(n.id), "net%d", c->net_count);
    if (id_is_taken(c, n.id, errp))
        return false;
    c->nets[c->net_count++] = n;
    return true;
}

bool machine_option_channel(void *config, const char *text, Error **errp)
{
    struct machine_config *c = config;
    struct machine_channel ch = {0};
    char console[8] = "off";
    const struct suboption subs[] = {
        {"unix", ch.socket, sizeof(ch.socket)},
        {"id", ch.id, sizeof(ch.id)},
        {"name", ch.name, sizeof(ch.name)},
        {"console", console, sizeof(console)},
        {NULL, NULL, 0},
    };

    if (!suboptions_parse("--channel", text, subs, errp) ||
        !parse_on_off("console", console, &ch.console, errp))
        return false;
    if (c->channel_count == MACHINE_CHANNELS_MAX) {
        error_setg(errp, "more than %d channels", MACHINE_CHANNELS_MAX);
        return false;
    }
    if (!ch.socket[0]) {
        error_setg(errp, "unix= is missing: the path of the socket that is the channel's end on this host");
        return false;
    }
    if (!ch.id[0])
        snprintf(ch.id, sizeof(ch.id), "channel%d", c->channel_count);
    if (!ch.name[0] && !ch.console)
        snprintf(ch.name, sizeof(ch.name), "%s", ch.id);
    if (id_is_taken(c, ch.id, errp))
        return false;
    c->channels[c->channel_count++] = ch;
    return true;
}

void machine_options_default_macs(struct machine_config *c)
{
    static const uint8_t none[6];

    for (int i = 0; i < c->net_count; i++) {
        uint8_t *mac = c->nets[i].mac;
        uint32_t hash = crc32c(crc32c(0, c->name, strlen(c->name)), c->nets[i].id, strlen(c->nets[i].id));

        if (memcmp(mac, none, sizeof(none)))
            continue;
        mac[0] = 0x52;
        mac[1] = 0x54;
        memcpy(mac + 2, &hash, sizeof(hash));
    }
}

static bool read_all(int fd, void *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(fd, (char *)data + done, size - done);
        if (n <= 0)
            return false;
        done += n;
    }
    return true;
}

static bool copy_builtin(const char *name, void **ret_data, size_t *ret_size, Error **errp)
{
    const struct guest_image *image = guest_image_find(name);
    char names[100] = "";

    for (const struct guest_image *g = guest_images; !image && g->name; g++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), " %s", g->name);
    if (!image) {
        error_setg(errp, "--kernel " BUILTIN_PREFIX "%s: no such guest is built in; there are:%s", name,
                   names);
        return false;
    }
    *ret_size = guest_image_size(image);
    *ret_data = malloc(*ret_size);
    if (!*ret_data) {
        error_setg_errno(errp, ENOMEM, "%s", name);
        return false;
    }
    memcpy(*ret_data, image->start, *ret_size);
    return true;
}

bool machine_option_kernel(const char *path, void **ret_data, size_t *ret_size, Error **errp)
{
    if (!strncmp(path, BUILTIN_PREFIX, strlen(BUILTIN_PREFIX)))
        return copy_builtin(path + strlen(BUILTIN_PREFIX), ret_data, ret_size, errp);
    return machine_option_file("--kernel", path, ret_data, ret_size, errp);
}

bool machine_option_file(const char *what, const char *path, void **ret_data, size_t *ret_size, Error **errp)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *data = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "%s %s", what, path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > FILE_SIZE_MAX) {
        error_setg(errp, "%s %s: not a file of 1 byte to 1 GiB", what, path);
        goto fail;
    }
    data = malloc(st.st_size);
    if (!data || !read_all(fd, data, st.st_size)) {
        error_setg_errno(errp, data ? EIO : ENOMEM, "%s %s: cannot read it", what, path);
        goto fail;
    }
    close(fd);
    *ret_data = data;
    *ret_size = st.st_size;
    return true;

fail:
    free(data);
    if (fd >= 0)
        close(fd);
    return false;
}
