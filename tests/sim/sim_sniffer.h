/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tap on the link: follows the frames of every connection, writes the records into the history, and tells
 * of each acknowledgement when its last byte has been read.
 */
#ifndef SIM_SNIFFER_H
#define SIM_SNIFFER_H

#include "sim_runtime.h"

void sniffer_init(void (*acknowledged)(SimHost *reader, uint64_t epoch), void (*pages_sent)(SimHost *writer));

#endif
