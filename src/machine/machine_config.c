/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/machine_config.h"
#include "base/crc32c.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_DISK_SLOT 1u
#define FIRST_NET_SLOT  (FIRST_DISK_SLOT + MACHINE_DISKS_MAX)
#define RNG_SLOT        (FIRST_NET_SLOT + MACHINE_NETS_MAX)
#define CONSOLE_SLOT    (RNG_SLOT + 1)

/* Everything that has an id, one after the other: disks, NICs, channels. */
static int item_count(const struct machine_config *c)
{
    return c->disk_count + c->net_count + c->channel_count;
}

/* *ret_option: how the user calls its kind. */
static const char *item_id(const struct machine_config *c, int i, const char **ret_option)
{
    if (i < c->disk_count) {
        *ret_option = "disk";
        return c->disks[i].id;
    }
    i -= c->disk_count;
    if (i < c->net_count) {
        *ret_option = "net";
        return c->nets[i].id;
    }
    *ret_option = "channel";
    return c->channels[i - c->net_count].id;
}

void machine_config_free(struct machine_config *c)
{
    free(c->kernel);
    free(c->initrd);
    c->kernel = c->initrd = NULL;
    c->kernel_size = c->initrd_size = 0;
}

void machine_setup_free(struct machine_setup *s)
{
    machine_config_free(&s->config);
}

static bool name_is_good(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
            return false;
    return true;
}

static bool id_is_used_before(const struct machine_config *c, int i, const char *id)
{
    const char *option;

    for (int j = 0; j < i; j++)
        if (!strcmp(item_id(c, j, &option), id))
            return true;
    return !strcmp(id, "console"); /* the serial line's output */
}

/* Ids share one space: they name sections of the state, objects of the control socket, what holds output. */
static bool check_ids(const struct machine_config *c, Error **errp)
{
    const char *id, *option;

    for (int i = 0; i < item_count(c); i++) {
        id = item_id(c, i, &option);
        if (!name_is_good(id)) {
            error_setg(errp, "id=%s: an id has letters, digits, '-', '_' and '.' only, and at least one", id);
            return false;
        }
        if (id_is_used_before(c, i, id)) {
            error_setg(errp, "id=%s is used twice", id);
            return false;
        }
    }
    return true;
}

static bool check_disks(const struct machine_config *c, Error **errp)
{
    for (int i = 0; i < c->disk_count; i++) {
        if (!c->disks[i].readonly || !c->disks[i].shared)
            continue;
        error_setg(errp, "disk %s: readonly=on needs no shared=on: any number may read an image",
                   c->disks[i].id);
        return false;
    }
    return true;
}

static bool channel_name_is_used_before(const struct machine_config *c, int i)
{
    for (int j = 0; j < i; j++)
        if (c->channels[i].name[0] && !strcmp(c->channels[j].name, c->channels[i].name))
            return true;
    return false;
}

static bool check_channels(const struct machine_config *c, Error **errp)
{
    int consoles = 0;

    for (int i = 0; i < c->channel_count; i++) {
        const struct machine_channel *ch = &c->channels[i];

        if (!(ch->console && !ch->name[0]) && !name_is_good(ch->name)) {
            error_setg(errp, "channel %s: name=%s: letters, digits, '-', '_' and '.' only, and at least one",
                       ch->id, ch->name);
            return false;
        }
        consoles += ch->console;
        if (consoles > 1 || channel_name_is_used_before(c, i)) {
            error_setg(errp, "channel %s: %s is there twice", ch->id, consoles > 1 ? "console=on" : ch->name);
            return false;
        }
    }
    return true;
}

static bool check_config(const struct machine_config *c, Error **errp)
{
    if (!name_is_good(c->name)) {
        error_setg(errp, "--name '%s': a name has letters, digits, '-', '_' and '.' only, and at least one",
                   c->name);
        return false;
    }
    if (c->cpus < 1 || c->cpus > MACHINE_CPUS_MAX) {
        error_setg(errp, "--cpus %d: 1 to %d", c->cpus, MACHINE_CPUS_MAX);
        return false;
    }
    if (c->memory < MACHINE_MEMORY_MIN || c->memory > MACHINE_MEMORY_MAX || c->memory % GUEST_PAGE_SIZE) {
        error_setg(errp, "--memory %" PRIu64 ": 16M to 1T, in whole pages", c->memory);
        return false;
    }
    if (c->disk_count < 0 || c->disk_count > MACHINE_DISKS_MAX || c->net_count < 0 ||
        c->net_count > MACHINE_NETS_MAX || c->channel_count < 0 || c->channel_count > MACHINE_CHANNELS_MAX) {
        error_setg(errp, "at most %d disks, %d NICs and %d channels", MACHINE_DISKS_MAX, MACHINE_NETS_MAX,
                   MACHINE_CHANNELS_MAX);
        return false;
    }
    if (!c->kernel_size || c->kernel_size > MACHINE_KERNEL_MAX || c->initrd_size > MACHINE_INITRD_MAX) {
        error_setg(errp, "--kernel and --initrd: a kernel of up to 256 MiB and an initrd of up to 2 GiB");
        return false;
    }
    return check_ids(c, errp) && check_disks(c, errp) && check_channels(c, errp);
}

static void *copy_of(const void *data, size_t size)
{
    void *copy = size ? malloc(size) : NULL;

    return copy ? memcpy(copy, data, size) : NULL;
}

/* Locally administered, the same whenever the same machine is started again. */
static void choose_mac(const struct machine_config *c, struct machine_net *n)
{
    static const uint8_t none[6];
    uint32_t hash;

    if (memcmp(n->mac, none, sizeof(none)))
        return;
    hash = crc32c(crc32c(0, c->name, strlen(c->name) + 1), n->id, strlen(n->id));
    memcpy(n->mac,
           (uint8_t[]){0x52, 0x54, (uint8_t)(hash >> 24), (uint8_t)(hash >> 16), (uint8_t)(hash >> 8),
                       (uint8_t)hash},
           sizeof(n->mac));
}

bool machine_setup_new(struct machine_setup *ret, const struct machine_config *c, Error **errp)
{
    struct machine_setup s = {
        .config = *c, .rng_slot = RNG_SLOT, .console_slot = c->channel_count ? CONSOLE_SLOT : 0};

    if (!check_config(c, errp))
        return false;
    for (int i = 0; i < c->disk_count; i++) {
        s.disk_slot[i] = FIRST_DISK_SLOT + (unsigned)i;
        if (!machine_disk_size(c->disks[i].path, &s.disk_size[i], errp)) {
            error_prepend(errp, "disk %s: ", c->disks[i].id);
            return false;
        }
    }
    for (int i = 0; i < c->net_count; i++) {
        s.net_slot[i] = FIRST_NET_SLOT + (unsigned)i;
        choose_mac(c, &s.config.nets[i]);
    }
    s.config.kernel = copy_of(c->kernel, c->kernel_size);
    s.config.initrd = copy_of(c->initrd, c->initrd_size);
    if (!s.config.kernel || (c->initrd_size && !s.config.initrd)) {
        error_setg_errno(errp, ENOMEM, "kernel and initrd");
        machine_setup_free(&s);
        return false;
    }
    *ret = s;
    return true;
}

bool machine_disk_size(const char *path, uint64_t *ret, Error **errp)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    bool ok;

    if (fd < 0) {
        error_setg_errno(errp, errno, "%s", path);
        return false;
    }
    ok = !fstat(fd, &st);
    if (ok && S_ISBLK(st.st_mode))
        ok = !ioctl(fd, BLKGETSIZE64, ret);
    else if (ok)
        *ret = (uint64_t)st.st_size;
    if (!ok)
        error_setg_errno(errp, errno, "%s: cannot tell its size", path);
    close(fd);
    return ok;
}

/* A copy would be made of what is the machine's own image, or none where one is needed. */
static bool agree_on_sharing(const struct machine_disk *d, const struct machine_disk *host, Error **errp)
{
    if (d->shared == host->shared)
        return true;
    error_setg(errp,
               d->shared ? "disk %s: the machine's image is shared (shared=on), and %s is not: say shared=on "
                           "here, too, if "
                           "it is the same image"
                         : "disk %s: the machine's image is not shared, and %s is (shared=on): give a path "
                           "to write a copy "
                           "to, or start the machine with shared=on",
               d->id, host->path);
    return false;
}

static bool map_disk(struct machine_setup *s, int i, const struct machine_config *host, Error **errp)
{
    struct machine_disk *d = &s->config.disks[i];
    uint64_t size;

    for (int j = 0; j < host->disk_count; j++) {
        if (strcmp(host->disks[j].id, d->id))
            continue;
        memcpy(d->path, host->disks[j].path, sizeof(d->path));
        if (!agree_on_sharing(d, &host->disks[j], errp))
            return false;
        if (!machine_disk_size(d->path, &size, errp)) {
            error_prepend(errp, "disk %s: ", d->id);
            return false;
        }
        if (s->disk_size[i] && size != s->disk_size[i]) {
            error_setg(errp, "disk %s: %s has %" PRIu64 " bytes, the guest's disk has %" PRIu64, d->id,
                       d->path, size, s->disk_size[i]);
            return false;
        }
        return true;
    }
    error_setg(errp, "the machine has a disk %s: say where it is on this host with --disk id=%s,path=...",
               d->id, d->id);
    return false;
}

static bool map_net(struct machine_setup *s, int i, const struct machine_config *host, Error **errp)
{
    struct machine_net *n = &s->config.nets[i];

    for (int j = 0; j < host->net_count; j++)
        if (!strcmp(host->nets[j].id, n->id)) {
            memcpy(n->tap, host->nets[j].tap, sizeof(n->tap));
            memcpy(n->bridge, host->nets[j].bridge, sizeof(n->bridge));
            return true;
        }
    error_setg(errp,
               "the machine has a NIC %s: say which tap it uses on this host with --net id=%s,tap=..., or on "
               "which bridge with bridge=...",
               n->id, n->id);
    return false;
}

static bool map_channel(struct machine_setup *s, int i, const struct machine_config *host, Error **errp)
{
    struct machine_channel *ch = &s->config.channels[i];

    for (int j = 0; j < host->channel_count; j++)
        if (!strcmp(host->channels[j].id, ch->id)) {
            memcpy(ch->socket, host->channels[j].socket, sizeof(ch->socket));
            return true;
        }
    error_setg(errp,
               "the machine has a channel %s: say which socket it is on this host with --channel "
               "id=%s,unix=...",
               ch->id, ch->id);
    return false;
}

/* The i-th of everything that has an id. */
static bool map_item(struct machine_setup *s, int i, const struct machine_config *host, Error **errp)
{
    const struct machine_config *c = &s->config;

    if (i < c->disk_count)
        return map_disk(s, i, host, errp);
    i -= c->disk_count;
    return i < c->net_count ? map_net(s, i, host, errp) : map_channel(s, i - c->net_count, host, errp);
}

/* One of that kind and id. */
static bool machine_has(const struct machine_config *c, const char *option, const char *id)
{
    const char *o;

    for (int i = 0; i < item_count(c); i++)
        if (!strcmp(item_id(c, i, &o), id) && !strcmp(o, option))
            return true;
    return false;
}

/* Takes err: one line more of *all. */
static void add_reason(Error **all, Error *err)
{
    if (*all)
        error_prepend(&err, "%s\n", error_get_pretty(*all));
    error_free(*all);
    *all = err;
}

/* The user's whole list: whoever mends the first line should not meet the second one on the next try. */
static Error *find_reasons(struct machine_setup *s, const struct machine_config *host)
{
    const struct machine_config *c = &s->config;
    Error *all = NULL, *err = NULL;
    const char *id, *option;

    for (int i = 0; i < item_count(c); i++) {
        if (!map_item(s, i, host, &err))
            add_reason(&all, err);
        err = NULL;
    }
    for (int i = 0; i < item_count(host); i++) {
        id = item_id(host, i, &option);
        if (machine_has(c, option, id))
            continue;
        error_setg(&err, "--%s id=%s: the machine %s has none of that id", option, id, c->name);
        add_reason(&all, err);
        err = NULL;
    }
    return all;
}

bool machine_setup_map(struct machine_setup *s, const struct machine_config *host, Error **errp)
{
    Error *all = find_reasons(s, host);

    if (all) {
        error_propagate(errp, all);
        return false;
    }
    memcpy(s->config.console, host->console, sizeof(s->config.console));
    s->config.dirty_ring = host->dirty_ring;
    return check_config(&s->config, errp);
}
