/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The terminal of `perdure top`: ncurses, and nothing else knows it.
 */
#ifndef CLI_TOP_VIEW_H
#define CLI_TOP_VIEW_H

#include "cli/top_page.h"
#include <perdure/error.h>

enum top_key {
    TOP_KEY_NONE,
    TOP_KEY_QUIT,
    TOP_KEY_UP,
    TOP_KEY_DOWN,
    TOP_KEY_MORE,
    TOP_KEY_BACK,
    TOP_KEY_SIZE
};

/* False: there is no terminal, or none that can be drawn on. */
bool top_view_open(Error **errp);
void top_view_size(int *ret_height, int *ret_width);
void top_view_draw(const struct top_page *page);
/* Waits for a key at most that long. */
enum top_key top_view_key(int timeout_ms);
void top_view_close(void);

#endif
