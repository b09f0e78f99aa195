/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `perdure top` shows, as lines of text: pure functions of the rows and of the size of the terminal,
 * which may be any. top_view.c puts them on the screen.
 */
#ifndef CLI_TOP_PAGE_H
#define CLI_TOP_PAGE_H

#include "cli/top_model.h"

#define TOP_LINES_MAX 200
#define TOP_LINE_SIZE 256

struct top_page {
    int height, width; /* of the terminal */
    int count;
    int marked; /* the line that is selected; -1: none */
    char lines[TOP_LINES_MAX][TOP_LINE_SIZE];
};

/* All machines, a line each, then the newest events of the selected one. selected: its index. */
void top_page_list(struct top_page *page, const struct top_row *rows, int n, int selected);
/* Everything of one. */
void top_page_detail(struct top_page *page, const struct top_row *row);

#endif
