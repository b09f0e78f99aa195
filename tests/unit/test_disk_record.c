/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk records: their text, octet by octet, and what is refused; where they lie; the order in which a new one
 * gets there.
 */
#include "base/crc32c.h"
#include "block/disk_record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

/* --- what the record asks of the system, in order: these stand before those of libc --- */

static char asked[4096];
static const char *fail_at; /* this one fails, and all of its kind */
static char pretend_device[PATH_MAX];

static int note(const char *what)
{
    size_t n = strlen(asked);

    snprintf(asked + n, sizeof(asked) - n, "%s; ", what);
    errno = EIO;
    return fail_at && strstr(what, fail_at) ? -1 : 0;
}

int fsync(int fd)
{
    char link[64], target[PATH_MAX] = "", what[2 * PATH_MAX];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (readlink(link, target, sizeof(target) - 1) < 0)
        return -1;
    snprintf(what, sizeof(what), "sync %s", strrchr(target, '/') + 1);
    return note(what);
}

int rename(const char *from, const char *to)
{
    return note("rename") ? -1 : (int)syscall(SYS_rename, from, to);
}

int mkdir(const char *path, mode_t mode)
{
    char what[PATH_MAX];

    (void)mode;
    snprintf(what, sizeof(what), "mkdir %s", path);
    note(what);
    errno = EEXIST;
    return -1;
}

int stat(const char *restrict path, struct stat *restrict st)
{
    int r = fstatat(AT_FDCWD, path, st, 0);

    if (r == 0 && !strcmp(path, pretend_device))
        st->st_mode = S_IFBLK | 0600;
    return r;
}

/* --- a directory for each test --- */

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/perdure-record-XXXXXX");
    asked[0] = 0;
    fail_at = NULL;
    pretend_device[0] = 0;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[100];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static const char *in_dir(const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* --- text --- */

static const struct disk_record full = {
    .role = DISK_STANDBY,
    .vm = "web",
    .disk = "root",
    .pair = "0f8e2f9e-1b1c-4a7e-9f63-2d1f5f3c7a11",
    .generation = 3,
    .epoch = UINT64_MAX,
    .arbiter = "command:/usr/local/bin/ask \\ two  words",
    .peer = "tcp:[2001:db8::1]:7700",
    .journal = "/srv/a\nb\x7f/\xc3\xa9.journal",
};

static const char full_text[] = "perdure-disk-record 1\n"
                                "role standby\n"
                                "vm web\n"
                                "disk root\n"
                                "pair 0f8e2f9e-1b1c-4a7e-9f63-2d1f5f3c7a11\n"
                                "generation 3\n"
                                "epoch 18446744073709551615\n"
                                "arbiter command:/usr/local/bin/ask \\x5c two  words\n"
                                "peer tcp:[2001:db8::1]:7700\n"
                                "journal /srv/a\\x0ab\\x7f/\xc3\xa9.journal\n"
                                "crc32c 8d7e597e\n";

static void assert_same(const struct disk_record *a, const struct disk_record *b)
{
    assert_int_equal(a->role, b->role);
    assert_string_equal(a->vm, b->vm);
    assert_string_equal(a->disk, b->disk);
    assert_string_equal(a->pair, b->pair);
    assert_true(a->generation == b->generation && a->epoch == b->epoch);
    assert_string_equal(a->arbiter, b->arbiter);
    assert_string_equal(a->peer, b->peer);
    assert_string_equal(a->journal, b->journal);
}

static void assert_refused(const char *text, size_t n, const char *why)
{
    struct disk_record r = {.epoch = 42};
    Error *err = NULL;

    if (disk_record_parse(text, n, "/srv/web.img.perdure", &r, &err))
        fail_msg("accepted: %.*s", (int)n, text);
    assert_int_equal(r.epoch, 42);
    assert_non_null(strstr(error_get_pretty(err), "disk record /srv/web.img.perdure: "));
    if (!strstr(error_get_pretty(err), why))
        fail_msg("\"%s\" instead of \"%s\"", error_get_pretty(err), why);
    error_free(err);
}

static void test_golden_text(void **state)
{
    char text[DISK_RECORD_TEXT_SIZE];
    struct disk_record r;

    (void)state;
    assert_int_equal(disk_record_format(&full, text), strlen(full_text));
    assert_string_equal(text, full_text);
    assert_true(disk_record_parse(full_text, strlen(full_text), "x", &r, NULL));
    assert_same(&r, &full);
}

static void test_roles(void **state)
{
    static const char *const names[] = {"none", "clean", "primary", "standby", "sync-target", "superseded"};
    char text[DISK_RECORD_TEXT_SIZE];

    (void)state;
    for (int i = DISK_NO_RECORD; i <= DISK_SUPERSEDED; i++)
        assert_string_equal(disk_role_name(i), names[i]);
    for (int i = DISK_CLEAN; i <= DISK_SUPERSEDED; i++) {
        struct disk_record r = {.role = i}, again = {.generation = 1};

        assert_true(disk_record_parse(text, disk_record_format(&r, text), "x", &again, NULL));
        assert_same(&r, &again);
    }
}

/* The longest possible: every field full of what takes most room. */
static void test_longest(void **state)
{
    static struct disk_record r, again;
    static char text[DISK_RECORD_TEXT_SIZE];

    (void)state;
    r = (struct disk_record){.role = DISK_SUPERSEDED, .generation = UINT64_MAX, .epoch = UINT64_MAX};
    memset(r.vm, 1, sizeof(r.vm) - 1);
    memset(r.disk, '\\', sizeof(r.disk) - 1);
    memset(r.pair, '\n', sizeof(r.pair) - 1);
    memset(r.arbiter, 0x7f, sizeof(r.arbiter) - 1);
    memset(r.peer, '\r', sizeof(r.peer) - 1);
    memset(r.journal, '\t', sizeof(r.journal) - 1);
    assert_true(disk_record_parse(text, disk_record_format(&r, text), "x", &again, NULL));
    assert_same(&r, &again);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < strlen(full_text); n++)
        assert_refused(full_text, n, "damaged");
}

static void test_every_flipped_bit_is_refused(void **state)
{
    char text[sizeof(full_text)];

    (void)state;
    for (size_t i = 0; i < 8 * strlen(full_text); i++) {
        memcpy(text, full_text, sizeof(text));
        text[i / 8] ^= 1 << i % 8;
        assert_refused(text, strlen(full_text), ""); /* another version's number among them */
    }
}

/* Lines with a right checksum, that nobody who follows the rules has written. */
static void test_hostile_lines(void **state)
{
    static const char *const lines[] = {
        "",
        "role none\n",
        "role \n",
        "role",
        "role clean",
        "role clean \ngeneration 1\nepoch 1\n",
        "role clean\ngeneration 1\n",
        "role clean\nepoch 1\ngeneration 1\n",
        "role clean\nrole clean\ngeneration 1\nepoch 1\n",
        "role clean\ngeneration 1\ngeneration 1\nepoch 1\n",
        "role clean\nvm \ngeneration 1\nepoch 1\n",
        "role clean\nvm \\x5\ngeneration 1\nepoch 1\n",
        "role clean\nvm \\x41\ngeneration 1\nepoch 1\n",
        "role clean\nvm \\\ngeneration 1\nepoch 1\n",
        "role clean\nvm \\x0A\ngeneration 1\nepoch 1\n",
        "role clean\nvm \\x+1\ngeneration 1\nepoch 1\n",
        "role clean\nvm \\x00\ngeneration 1\nepoch 1\n",
        "role clean\nvm \x01\ngeneration 1\nepoch 1\n",
        "role clean\ngeneration 01\nepoch 1\n",
        "role clean\ngeneration -1\nepoch 1\n",
        "role clean\ngeneration 18446744073709551616\nepoch 1\n",
        "role clean\ngeneration \nepoch 1\n",
        "role clean\ngeneration 1\nepoch 1\ncolour red\n",
        "role clean\ngeneration 1\nepoch 1\n\n",
        "role clean\ndisk 12345678901234567890123456789012\ngeneration 1\nepoch 1\n",
        "Role clean\ngeneration 1\nepoch 1\n",
    };

    (void)state;
    for (size_t i = 0; i <= sizeof(lines) / sizeof(lines[0]); i++) {
        const char *line = i ? lines[i - 1] : "role clean\ngeneration 1\nepoch 1\n"; /* is this test right? */
        char text[1000];
        struct disk_record r;
        int n = snprintf(text, sizeof(text), "perdure-disk-record 1\n%s", line);

        n += snprintf(text + n, sizeof(text) - n, "crc32c %08x\n", crc32c(0, text, n));
        if (i)
            assert_refused(text, n, "damaged");
        else
            assert_true(disk_record_parse(text, n, "x", &r, NULL));
    }
}

static void test_versions(void **state)
{
    static const char newer[] = "perdure-disk-record 2\nwhatever\n", none[] = "perdure-disk-record\n",
                      zero[] = "perdure-disk-record 01\n";

    (void)state;
    assert_refused(newer, sizeof(newer) - 1, "it has version 2, this build knows 1");
    assert_refused(none, sizeof(none) - 1, "damaged");
    assert_refused(zero, sizeof(zero) - 1, "damaged");
}

/* --- files --- */

static void test_store_and_load(void **state)
{
    const char *path = in_dir("web.img.perdure");
    struct disk_record r = full, got;

    (void)state;
    got.role = DISK_CLEAN;
    assert_true(disk_record_load(path, &got, NULL));
    assert_int_equal(got.role, DISK_NO_RECORD);
    write_bytes(in_dir("web.img.perdure.new"), "half of a record", 16); /* a crash left it */
    assert_true(disk_record_load(in_dir("web.img.perdure"), &got, NULL));
    assert_int_equal(got.role, DISK_NO_RECORD);
    for (int i = 0; i < 2; i++) {
        assert_true(disk_record_store(path, &r, NULL));
        assert_true(disk_record_load(path, &got, NULL));
        assert_same(&got, &r);
        assert_int_equal(access(in_dir("web.img.perdure.new"), F_OK), -1);
        path = in_dir("web.img.perdure");
        r.role = DISK_CLEAN;
        r.arbiter[0] = 0;
    }
}

/* The new file is on the medium before it has the old one's name, and the name before store() returns. */
static void test_order_of_a_store(void **state)
{
    const char *name = strrchr(dir, '/') + 1;
    char expected[200];

    (void)state;
    assert_true(disk_record_store(in_dir("r"), &full, NULL));
    snprintf(expected, sizeof(expected), "sync r.new; rename; sync %s; ", name);
    assert_string_equal(asked, expected);
}

static void assert_store_fails(const char *at, const struct disk_record *now, const char *text)
{
    struct disk_record r = full, got;
    Error *err = NULL;

    r.role = DISK_SUPERSEDED;
    fail_at = at;
    assert_false(disk_record_store(in_dir("r"), &r, &err));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("\"%s\" instead of \"%s\"", error_get_pretty(err), text);
    assert_int_equal(error_get_errno(err), EIO);
    error_free(err);
    assert_true(disk_record_load(in_dir("r"), &got, NULL));
    assert_same(&got, now ? now : &r);
    assert_int_equal(access(in_dir("r.new"), F_OK), -1);
}

static void test_a_store_that_fails(void **state)
{
    const char *name = strrchr(dir, '/') + 1;

    (void)state;
    assert_true(disk_record_store(in_dir("r"), &full, NULL));
    assert_store_fails("sync r.new", &full, "cannot write it");
    assert_store_fails("rename", &full, "cannot replace it");
    assert_store_fails(name, NULL, "cannot sync its directory");
    fail_at = NULL;
    assert_false(disk_record_store("/nowhere/at/all", &full, NULL));
}

static void assert_load_fails(const char *text)
{
    struct disk_record r;
    Error *err = NULL;

    assert_false(disk_record_load(in_dir("r"), &r, &err));
    assert_non_null(strstr(error_get_pretty(err), in_dir("r")));
    if (!strstr(error_get_pretty(err), text))
        fail_msg("\"%s\" instead of \"%s\"", error_get_pretty(err), text);
    error_free(err);
    syscall(SYS_unlink, in_dir("r"));
    rmdir(in_dir("r"));
}

static void test_what_is_no_record(void **state)
{
    static char large[100000];

    (void)state;
    write_bytes(in_dir("r"), "", 0);
    assert_load_fails("damaged");
    memset(large, 'x', sizeof(large));
    write_bytes(in_dir("r"), large, sizeof(large));
    assert_load_fails("damaged");
    memcpy(large, full_text, strlen(full_text));
    write_bytes(in_dir("r"), large, sizeof(large));
    assert_load_fails("damaged");
    assert_int_equal(symlink("nothing", in_dir("r")), 0); /* not "there is none" */
    assert_load_fails("cannot open it");
    assert_int_equal(mkfifo(in_dir("r"), 0600), 0);
    assert_load_fails("this is no file");
    assert_int_equal(syscall(SYS_mkdir, in_dir("r"), 0700), 0);
    assert_load_fails("this is no file");
}

/* --- where --- */

static void assert_path(const char *image, const char *expected)
{
    char path[DISK_RECORD_PATH_SIZE];

    assert_true(disk_record_path(image, path, sizeof(path), NULL));
    assert_string_equal(path, expected);
}

static void test_beside_the_image(void **state)
{
    static const char odd[] = "a b\n%s\\\xff.img";
    char expected[PATH_MAX], path[DISK_RECORD_PATH_SIZE], cwd[PATH_MAX];
    Error *err = NULL;

    (void)state;
    write_bytes(in_dir(odd), "", 0);
    snprintf(expected, sizeof(expected), "%s/%s.perdure", dir, odd);
    assert_path(in_dir(odd), expected);
    assert_int_equal(symlink(odd, in_dir("link")), 0);
    assert_path(in_dir("link"), expected);
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    assert_int_equal(chdir(dir), 0);
    assert_path("./link", expected);
    assert_int_equal(chdir(cwd), 0);
    assert_true(disk_record_store(expected, &full, NULL));
    assert_false(disk_record_path(in_dir("no.img"), path, sizeof(path), &err));
    assert_non_null(strstr(error_get_pretty(err), "no.img: cannot find it"));
    error_free(err);
    assert_false(disk_record_path(in_dir("link"), path, 20, NULL));
}

static void pretend(const char *name)
{
    write_bytes(in_dir(name), "", 0);
    snprintf(pretend_device, sizeof(pretend_device), "%s", in_dir(name));
}

static void assert_device(const char *name, const char *escaped)
{
    char expected[PATH_MAX];

    pretend(name);
    snprintf(expected, sizeof(expected), "%s/tmp-perdure\\x2drecord\\x2d%s-%s.perdure", DISK_RECORD_DEVICES,
             dir + strlen("/tmp/perdure-record-"), escaped);
    assert_path(pretend_device, expected);
}

static void test_of_a_device(void **state)
{
    char path[DISK_RECORD_PATH_SIZE], name[NAME_MAX + 1];

    (void)state;
    assert_device("web", "web");
    assert_device("web-1.x_Y", "web\\x2d1.x_Y");
    assert_device("a b\xff", "a\\x20b\\xff");
    assert_int_equal(symlink("web", in_dir("by-name")), 0);
    snprintf(pretend_device, sizeof(pretend_device), "%s", in_dir("by-name"));
    assert_true(disk_record_path(pretend_device, path, sizeof(path), NULL));
    assert_non_null(strstr(path, "by\\x2dname.perdure")); /* its own name, not where it leads today */
    memset(name, '-', 80);
    name[80] = 0;
    pretend(name);
    assert_false(disk_record_path(pretend_device, path, sizeof(path), NULL));
}

static void test_directory_of_the_devices(void **state)
{
    char path[PATH_MAX];

    (void)state;
    fail_at = ".new"; /* nothing shall be left there */
    snprintf(path, sizeof(path), "%s/perdure-test", DISK_RECORD_DEVICES);
    assert_false(disk_record_store(path, &full, NULL));
    assert_non_null(strstr(asked, "mkdir /var/lib/perdure; mkdir /var/lib/perdure/disks; "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
        TEST(test_golden_text),
        TEST(test_roles),
        TEST(test_longest),
        TEST(test_every_truncation_is_refused),
        TEST(test_every_flipped_bit_is_refused),
        TEST(test_hostile_lines),
        TEST(test_versions),
        TEST(test_store_and_load),
        TEST(test_order_of_a_store),
        TEST(test_a_store_that_fails),
        TEST(test_what_is_no_record),
        TEST(test_beside_the_image),
        TEST(test_of_a_device),
        TEST(test_directory_of_the_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
