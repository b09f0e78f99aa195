/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "stream/channel.h"

int cmd_keygen(int argc, char **argv)
{
    char path[1024];
    const struct option_spec specs[] = {
        {"FILE", NULL, OPTION_STRING, path, sizeof(path),
         "the new key's file; copy it to the other host by a safe way"},
        {0},
    };
    Error *err = NULL;
    int status = options_begin("Makes a pre-shared key for --psk.", specs, argc, argv);

    if (status >= 0)
        return status;
    return channel_psk_generate(path, &err) ? 0 : client_fail(argv[0], err);
}
