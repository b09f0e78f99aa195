/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cli/top_view.h"

#include <curses.h>
#include <locale.h>
#include <stdlib.h>
#include <unistd.h>

#define ESCAPE 27

static SCREEN *screen;

bool top_view_open(Error **errp)
{
    const char *term = getenv("TERM");

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        error_setg(errp, "needs a terminal; for programs there is `perdure status --json`");
        return false;
    }
    setlocale(LC_CTYPE, "");
    screen = newterm(NULL, stdout, stdin);
    if (!screen) {
        error_setg(errp, "cannot draw on a terminal of type '%s' (TERM)", term ? term : "");
        return false;
    }
    set_escdelay(25);
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    return true;
}

void top_view_size(int *ret_height, int *ret_width)
{
    getmaxyx(stdscr, *ret_height, *ret_width);
}

void top_view_draw(const struct top_page *page)
{
    erase();
    for (int y = 0; y < page->count; y++) {
        if (y == page->marked)
            attron(A_REVERSE);
        mvaddnstr(y, 0, page->lines[y], page->width);
        if (y == page->marked)
            attroff(A_REVERSE);
    }
    refresh();
}

enum top_key top_view_key(int timeout_ms)
{
    timeout(timeout_ms);
    switch (getch()) {
    case 'q':
    case 'Q':
        return TOP_KEY_QUIT;
    case KEY_UP:
    case 'k':
        return TOP_KEY_UP;
    case KEY_DOWN:
    case 'j':
        return TOP_KEY_DOWN;
    case KEY_ENTER:
    case KEY_RIGHT:
    case '\n':
    case '\r':
        return TOP_KEY_MORE;
    case KEY_LEFT:
    case KEY_BACKSPACE:
    case ESCAPE:
        return TOP_KEY_BACK;
    case KEY_RESIZE:
        return TOP_KEY_SIZE;
    }
    return TOP_KEY_NONE;
}

void top_view_close(void)
{
    if (!screen)
        return;
    endwin();
    delscreen(screen);
    screen = NULL;
}
