/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/task.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/top_poll.h"
#include "cli/top_view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REDRAW_MS    200
#define INTERVAL_MIN (100 * NS_PER_MS)

struct top {
    struct top_poll *poll;
    struct top_row rows[TOP_ROWS_MAX];
    int count;
    char selected[64]; /* by name: others come and go */
    bool detail;
    struct top_page page;
};

/* The selected machine's index; if it is gone, the one that took its place. */
static int selected_index(struct top *t)
{
    int i = 0;

    while (i < t->count && strcmp(t->rows[i].name, t->selected) < 0)
        i++;
    return i < t->count ? i : t->count ? t->count - 1 : 0;
}

static void select_row(struct top *t, int i)
{
    if (i >= 0 && i < t->count)
        memcpy(t->selected, t->rows[i].name, sizeof(t->selected));
}

static void draw(struct top *t)
{
    int i;

    t->count = top_poll_rows(t->poll, t->rows, TOP_ROWS_MAX);
    i = selected_index(t);
    select_row(t, i);
    top_view_size(&t->page.height, &t->page.width);
    if (t->detail && i < t->count)
        top_page_detail(&t->page, &t->rows[i]);
    else
        top_page_list(&t->page, t->rows, t->count, i);
    top_view_draw(&t->page);
}

static void run(struct top *t)
{
    enum top_key key;

    do {
        top_poll_scan(t->poll);
        draw(t);
        key = top_view_key(REDRAW_MS);
        if (key == TOP_KEY_UP)
            select_row(t, selected_index(t) - 1);
        else if (key == TOP_KEY_DOWN)
            select_row(t, selected_index(t) + 1);
        else if (key == TOP_KEY_MORE || key == TOP_KEY_BACK)
            t->detail = key == TOP_KEY_MORE;
    } while (key != TOP_KEY_QUIT);
}

static bool top(const char *name, int64_t interval, Error **errp)
{
    struct top *t = calloc(1, sizeof(*t));
    bool ok = false;

    if (!t) {
        error_setg_errno(errp, ENOMEM, "top");
        return false;
    }
    t->poll = top_poll_new(name, interval, errp);
    if (t->poll)
        ok = top_view_open(errp);
    if (ok) {
        t->detail = name != NULL;
        run(t);
        top_view_close();
    }
    top_poll_free(t->poll);
    free(t);
    return ok;
}

int cmd_top(int argc, char **argv)
{
    char name[64] = "";
    int64_t interval = NS_PER_S;
    const struct option_spec specs[] = {
        {"interval", "TIME", OPTION_DURATION, &interval, 0, "from one look to the next (1s)"},
        {"[NAME]", NULL, OPTION_STRING, name, sizeof(name), "the machine; without it, all of this host"},
        {0},
    };
    Error *err = NULL;
    int status = options_begin("Shows the machines of this host as they run.", specs, argc, argv);

    if (status >= 0)
        return status;
    if (interval < INTERVAL_MIN) {
        error_setg(&err, "--interval: at least 100ms");
        client_fail(argv[0], err);
        return 2;
    }
    return top(name[0] ? name : NULL, interval, &err) ? 0 : client_fail(argv[0], err);
}
