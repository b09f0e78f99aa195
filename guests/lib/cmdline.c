/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/cmdline.h"
#include "lib/io.h"
#include "lib/string.h"

#define START_INFO_MAGIC 0x336ec578u
#define LINE_MAX         1024

#define FW_CFG      0x510
#define FW_CFG_DATA 0x511
#define FW_CFG_DIR  0x19
#define FW_CFG_NAME "opt/perdure.cmdline"

/* The beginning of Xen's struct hvm_start_info. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t modules_address, cmdline_address;
};

extern uint32_t boot_info; /* start.S; 0: started by our own -bios image */

static char line[LINE_MAX];

static uint32_t fw_cfg_number(unsigned bytes)
{
    uint32_t v = 0;

    while (bytes--)
        v = v << 8 | inb(FW_CFG_DATA);
    return v;
}

/* Reads the file of that name into line. Port by port: a few milliseconds, and only under -bios. */
static void read_fw_cfg(void)
{
    char name[56];
    uint32_t files, size;
    uint16_t select;

    outw(FW_CFG, FW_CFG_DIR);
    for (files = fw_cfg_number(4); files > 0 && files < 256; files--) {
        size = fw_cfg_number(4);
        select = fw_cfg_number(4) >> 16;
        for (unsigned i = 0; i < sizeof(name); i++)
            name[i] = inb(FW_CFG_DATA);
        if (memcmp(name, FW_CFG_NAME, sizeof(FW_CFG_NAME)) != 0)
            continue;
        outw(FW_CFG, select);
        for (unsigned i = 0; i < size && i < LINE_MAX - 1; i++)
            line[i] = inb(FW_CFG_DATA);
        return;
    }
}

void cmdline_init(void)
{
    const struct start_info *info = (const void *)(uintptr_t)boot_info;
    const char *from;

    if (!info) {
        read_fw_cfg();
        return;
    }
    if (info->magic != START_INFO_MAGIC || info->cmdline_address == 0 || info->cmdline_address >> 32)
        return;
    from = (const char *)(uintptr_t)info->cmdline_address;
    for (unsigned i = 0; i < LINE_MAX - 1 && from[i]; i++)
        line[i] = from[i];
}

const char *cmdline(void)
{
    return line;
}

static bool ends(char c)
{
    return c == 0 || c == ' ' || c == '\n';
}

const char *option(const char *key)
{
    size_t n = strlen(key);

    for (const char *p = line; *p; p++)
        if ((p == line || p[-1] == ' ') && starts_with(p, key) && p[n] == '=')
            return p + n + 1;
    return NULL;
}

static int digit(char c, unsigned base)
{
    int v = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;

    return v < (int)base ? v : -1;
}

uint64_t option_number(const char *key, uint64_t otherwise)
{
    const char *p = option(key);
    unsigned base = 10;
    uint64_t v = 0;

    if (!p)
        return otherwise;
    if (starts_with(p, "0x")) {
        base = 16;
        p += 2;
    }
    for (; digit(*p, base) >= 0; p++)
        v = v * base + digit(*p, base);
    switch (*p) {
    case 'G':
        v <<= 10;
        __attribute__((fallthrough));
    case 'M':
        v <<= 10;
        __attribute__((fallthrough));
    case 'K':
        v <<= 10;
    }
    return v;
}

bool option_is(const char *key, const char *value)
{
    const char *p = option(key);

    return p && starts_with(p, value) && ends(p[strlen(value)]);
}

bool option_ipv4(const char *key, uint8_t ip[4])
{
    const char *p = option(key);
    unsigned v;

    if (!p)
        return false;
    for (int i = 0; i < 4; i++) {
        if (digit(*p, 10) < 0)
            return false;
        for (v = 0; digit(*p, 10) >= 0; p++)
            v = v * 10 + digit(*p, 10);
        if (v > 255 || (i < 3 && *p++ != '.'))
            return false;
        ip[i] = v;
    }
    return true;
}
