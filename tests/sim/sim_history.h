/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's true history, and the outside observer who compares it with what he sees.
 *
 * A lineage is one uninterrupted execution of the guest on one host. A takeover begins a new one that forks
 * from another at a step. At every pause the true state of that step is written down; a takeover must begin
 * at such a state, whole. Everything that leaves a host carries its lineage, its step and its number; from
 * these alone the observer knows whether two executions both had effects (invariant 3), and whether something
 * came out twice, or was lost or exchanged within one execution (invariant 1).
 */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include "sim_runtime.h"

enum effect_kind { EFFECT_FRAME, EFFECT_CONSOLE, EFFECT_ANNOUNCE };
#define EFFECT_KINDS 3

struct effect {
    enum effect_kind kind;
    uint32_t lineage;
    uint64_t step;
    uint64_t number; /* of its kind, from 1; console: of the byte; announcements have none */
};

/* The guest's first power-on: lineage 1. */
void history_begin(void);
/* The guest stands still in this state. */
void history_paused(uint32_t lineage, uint64_t step, uint64_t digest);
/* Fails unless the guest once was paused in this state. */
void history_check(uint32_t lineage, uint64_t step, uint64_t digest);
/* A takeover from this state, checked: the new lineage. */
uint32_t history_take_over(uint32_t lineage, uint64_t step, uint64_t digest);
/* The same, where part of the state is still to come: history_check() follows. */
uint32_t history_take_over_early(uint32_t lineage, uint64_t step);
/* A power-on from the disks that this lineage left, which ran there to its end: the new lineage. Whatever of
 * the old one was not on them is forgotten; it must not be heard of any more. */
uint32_t history_boot(uint32_t from);
/* What it forked from; 0: none. */
uint32_t history_parent(uint32_t lineage);
/* The newest lineage. */
uint32_t history_latest(void);
/* Something left a host. */
void history_effect(const struct effect *e);
/* The power-off or panic of this lineage took effect outside at that step: nothing may come after it. */
void history_ended(uint32_t lineage, uint64_t step);
bool history_has_ended(void);
/* Somebody took over from that lineage. */
bool history_forked(uint32_t lineage);
uint64_t history_takeovers(void);
uint64_t history_boots(void); /* from disks */
uint64_t history_effects(void);

#endif
