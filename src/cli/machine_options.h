/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The options that describe a machine, or what it is made of on this host: shared by `run` and `standby`.
 */
#ifndef CLI_MACHINE_OPTIONS_H
#define CLI_MACHINE_OPTIONS_H

#include "machine/machine.h"

/* --disk path=F,id=NAME[,format=raw][,readonly=on|off][,shared=on|off]: config is the struct machine_config. */
bool machine_option_disk(void *config, const char *text, Error **errp);
/* --net tap=T|bridge=B,id=NAME[,mac=M] */
bool machine_option_net(void *config, const char *text, Error **errp);
/* --channel unix=PATH,id=NAME[,name=NAME][,console=on|off] */
bool machine_option_channel(void *config, const char *text, Error **errp);
/* Gives every NIC without a MAC one made from the names of machine and NIC: the same on every start. */
void machine_options_default_macs(struct machine_config *config);
/* --kernel: a file, or builtin:NAME. *ret_data is the caller's (malloc). */
bool machine_option_kernel(const char *path, void **ret_data, size_t *ret_size, Error **errp);
/* The contents of a file; what is "--initrd". */
bool machine_option_file(const char *what, const char *path, void **ret_data, size_t *ret_size, Error **errp);

#endif
