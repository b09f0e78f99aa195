/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tap on the link: follows the frames of every connection, writes the records into the history, and tells
 * of each acknowledgement when its last byte has been read, and of a backup's move.
 */
#ifndef SIM_SNIFFER_H
#define SIM_SNIFFER_H

#include "sim_runtime.h"

#include "engine/wire.h"

void sniffer_init(void (*acknowledged)(SimHost *reader, uint64_t epoch), void (*pages_sent)(SimHost *writer));
/* fn is told of every record of a backup's move, when its last byte is sent, and again when it is read. */
void sniffer_watch_moves(void (*fn)(enum wire_record type, bool read, SimHost *from, SimHost *to));

#endif
