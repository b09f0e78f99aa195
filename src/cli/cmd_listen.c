/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"

#include <stdio.h>

struct listen_options {
    char name[64], listen[256], psk[1024], arbiter[1100];
    bool insecure;
};

static json_t *arguments(const struct listen_options *o)
{
    json_t *args =
        json_pack("{s:s, s:s, s:b}", "listen", o->listen, "arbiter", o->arbiter, "insecure", o->insecure);

    if (o->psk[0])
        client_set_path(args, "psk", o->psk);
    return args;
}

int cmd_listen(int argc, char **argv)
{
    struct listen_options o = {0};
    const struct option_spec specs[] = {
        {"NAME", NULL, OPTION_STRING, o.name, sizeof(o.name), "the machine"},
        {"listen", "ADDRESS", OPTION_STRING, o.listen, sizeof(o.listen),
         "tcp:HOST:PORT or unix:PATH (required)"},
        {"psk", "FILE", OPTION_STRING, o.psk, sizeof(o.psk), "the pair's key (perdure keygen)"},
        {"arbiter", "KIND", OPTION_STRING, o.arbiter, sizeof(o.arbiter),
         "accept only this arbiter from a primary"},
        {"insecure", NULL, OPTION_FLAG, &o.insecure, 0, "listen to other hosts without a key"},
        {0},
    };
    Error *err = NULL;
    int status = options_begin(
        "Lets a machine's process be reached as a standby: for one that was not started with --listen "
        "and became the backup by a swap.",
        specs, argc, argv);
    json_t *result;

    if (status >= 0)
        return status;
    if (!o.listen[0]) {
        fprintf(stderr, "perdure listen: --listen is missing: tcp:HOST:PORT or unix:PATH\n");
        return 2;
    }
    result = client_command(o.name, "perdure-listen", arguments(&o), &err);
    if (!result)
        return client_fail(argv[0], err);
    printf("%s\n", json_string_value(json_object_get(result, "listen")));
    json_decref(result);
    return 0;
}
