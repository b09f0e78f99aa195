/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a backup's journal lies, and when its file may go; and the whole chain on files. */
#include "block/raw.h"
#include "disk_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (3 << 20)

static char dir[64], journal[80], image[2][80];

/* Takes the image. */
static void put_side(struct pair_side *s, Block *disk, const char *journal_path)
{
    struct replication_group_options o = {.journal_size = 1 << 20, .queue_limit = 256 << 10};

    *s = (struct pair_side){.context = registry_context_new(), .count = 1};
    pair_enter(s);
    snprintf(o.journal, sizeof(o.journal), "%s", journal_path);
    s->group = replication_group_new(&o, NULL);
    replication_group_set_pair(s->group, "0b54ff2a-1c63-4a40-9d0c-3a3a0f0d7d11", 1);
    s->top[0] = replication_filter_new(s->group, disk, NULL);
    assert_non_null(s->top[0]);
    replication_group_register();
    assert_true(checkpoint_devices_setup_wait(NULL));
}

static Block *open_image(unsigned i)
{
    Block *b;

    snprintf(image[i], sizeof(image[i]), "%s/image%u", dir, i);
    if (access(image[i], F_OK))
        assert_true(block_raw_create(image[i], SIZE, NULL));
    b = block_raw_open(&(struct block_raw_options){.id = "root", .path = image[i]}, NULL);
    assert_non_null(b);
    return b;
}

static void open_files(void)
{
    fault_disarm_all();
    pair.epoch = 0;
    put_side(&pair.a, open_image(0), "");
    put_side(&pair.b, open_image(1), journal);
    pair.out = perdure_stream_open_memory(0);
    pair.reply = perdure_stream_open_memory(0);
}

static int begin(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/perdure-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(journal, sizeof(journal), "%s/journal", dir);
    open_files();
    return 0;
}

static int end(void **state)
{
    (void)state;
    pair_close();
    unlink(journal);
    unlink(image[0]);
    unlink(image[1]);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static bool exists(const char *path)
{
    return !access(path, F_OK);
}

static void expect_bytes(const char *path, uint64_t offset, uint8_t value, size_t n)
{
    uint8_t bytes[5000];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(n <= sizeof(bytes));
    assert_int_equal(pread(fd, bytes, n, (off_t)offset), n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bytes[i], value);
    close(fd);
}

static void test_on_files(void **state)
{
    (void)state;
    pair_fill(pair.a.top[0], 100, 1, 5000);
    pair_protect();
    expect_bytes(image[1], 100, 1, 5000);
    pair_fill(pair.a.top[0], 200, 2, 3000);
    assert_true(block_zero(pair.a.top[0], 150, 100, true, NULL));
    pair_checkpoint();
    pair_fill(pair.a.top[0], 0, 3, 5000);
    assert_true(pair_stop(&pair.b, true, NULL));
    expect_bytes(image[1], 100, 1, 50);
    expect_bytes(image[1], 150, 0, 100);
    expect_bytes(image[1], 250, 2, 2950);
    expect_bytes(image[1], 3200, 1, 1900);
}

/* The records still name it when everything is in place: it goes when somebody says so, or with the next
 * start. */
static void test_journal_file(void **state)
{
    struct stat st;

    (void)state;
    assert_true(replication_group_remove_journal(pair.b.group, NULL)); /* there is none */
    pair_protect();
    assert_int_equal(stat(journal, &st), 0);
    assert_int_equal(st.st_size, 1 << 20);
    pair_fill(pair.a.top[0], 100, 1, 5000);
    pair_checkpoint();
    assert_true(pair_stop(&pair.b, true, NULL));
    assert_true(exists(journal));
    assert_true(replication_group_remove_journal(pair.b.group, NULL));
    assert_false(exists(journal));

    assert_true(pair_stop(&pair.a, false, NULL));
    for (int i = 0; i < 2; i++) {
        pair.epoch = 0;
        pair_protect();
        assert_true(pair_stop(&pair.b, false, NULL));
        assert_true(pair_stop(&pair.a, false, NULL));
        assert_true(exists(journal));
    }
}

/* From before this process, perhaps never replayed. */
static void test_foreign_journal(void **state)
{
    Error *err = NULL;

    (void)state;
    pair_protect();
    pair_fill(pair.a.top[0], 100, 1, 5000);
    pair_checkpoint();
    assert_true(pair_stop(&pair.b, false, NULL));
    pair_close();
    open_files();
    assert_false(replication_group_remove_journal(pair.b.group, NULL));
    assert_false(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, &err));
    pair_expect_error(err, "may hold epochs that the disks lack");
    assert_true(exists(journal));
    assert_int_equal(unlink(journal), 0);
    pair_protect();
}

static void test_no_journal_is_given(void **state)
{
    Error *err = NULL;

    (void)state;
    assert_false(pair_start_side(&pair.a, REPLICATION_MODE_SECONDARY, &err));
    pair_expect_error(err, "disks: no journal was given");
}

static void test_journal_cannot_be_made(void **state)
{
    Error *err = NULL;

    (void)state;
    pair_side_close(&pair.b);
    put_side(&pair.b, open_image(1), "/nonexistent/journal");
    pair_start();
    assert_false(pair_try_sync(&err));
    pair_expect_error(err, "/nonexistent/journal");
}

/* The acknowledged epoch lies in the journal alone: nothing may forget it. */
static void test_journal_stays_when_the_disk_fails(void **state)
{
    struct memory_block *disk = memory_block_new("root", SIZE);
    Error *err = NULL;

    (void)state;
    pair_side_close(&pair.b);
    put_side(&pair.b, &disk->block, journal);
    pair_protect();
    disk->errors[BLOCK_WRITE] = EIO;
    pair_fill(pair.a.top[0], 100, 1, 5000);
    pair_end_epoch();
    pair_try_finish_epoch(NULL);
    assert_false(pair_stop(&pair.b, true, &err));
    pair_expect_error(err, "disk root: cannot write");
    disk->errors[BLOCK_WRITE] = 0;
    assert_false(replication_group_remove_journal(pair.b.group, NULL));
    assert_false(pair_start_side(&pair.b, REPLICATION_MODE_SECONDARY, NULL));
    assert_true(exists(journal));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_on_files),
        TEST(test_journal_file),
        TEST(test_foreign_journal),
        TEST(test_no_journal_is_given),
        TEST(test_journal_cannot_be_made),
        TEST(test_journal_stays_when_the_disk_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
