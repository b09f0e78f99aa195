/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile sources of a migration whose frames are in order: what is inside of the records is at its limits and beyond.
 * Names, instances, versions, ids, lengths, pages, blocks, the configuration, the disks' messages.
 */
#include "hostile_fixture.h"

struct head {
    uint8_t bytes[70000];
    size_t size;
};

static void put(struct head *h, const void *data, size_t n)
{
    memcpy(h->bytes + h->size, data, n);
    h->size += n;
}

static void put_number(struct head *h, uint64_t v, size_t n)
{
    uint8_t bytes[8];

    le64_put(bytes, v);
    put(h, bytes, n);
}

/* The head of a section, and behind it what the record i has behind its own. */
static void with_head(unsigned i, const char *name, size_t name_size, uint32_t instance, uint32_t version,
                      const char *why)
{
    struct head *h = calloc(1, sizeof(*h));
    const struct record *r = &parts.r[i];
    size_t old = 2 + le16_get(r->body) + 8u;

    put_number(h, name_size, 2);
    put(h, name, name_size);
    put_number(h, instance, 4);
    put_number(h, version, 4);
    put(h, r->body + old, r->size - old);
    with_body(i, h->bytes, h->size, why, "a head");
    free(h);
}

static void test_heads(void **state)
{
    unsigned ram = find(PERDURE_RECORD_SECTION_START);
    char *name = malloc(65535);

    (void)state;
    memset(name, 'x', 65535);
    for (unsigned i = ram; i < parts.count; i++) {
        const struct record *r = &parts.r[i];
        uint32_t instance;
        char own[256];
        size_t n;

        if (r->type != PERDURE_RECORD_SECTION_FULL && r->type != PERDURE_RECORD_SECTION_START)
            continue;
        n = le16_get(r->body);
        memcpy(own, r->body + 2, n);
        own[n] = 0;
        instance = le32_get(r->body + 2 + n);
        with_head(i, "ghost", 5, 0, 1, "unknown savevm section or instance 'ghost.0'");
        with_head(i, own, n, instance + 1, 1, "unknown savevm section or instance");
        with_head(i, own, n, UINT32_MAX, 1, "unknown savevm section or instance");
        with_head(i, own, n, instance, 99, "stream has version 99, this build knows");
        with_head(i, own, n, instance, UINT32_MAX, "stream has version 4294967295, this build knows");
        with_head(i, name, 255, 0, 1, "unknown savevm section or instance");
        with_head(i, name, 256, 0, 1, "a string in it is too long");
        with_head(i, name, 65535, 0, 1, "a string in it is too long");
        with_head(i, "", 0, 0, 1, "unknown savevm section or instance '.0'");
        with_head(i, "ram\0", 4, 0, 1, "a string in it has a NUL inside");
        with_head(i, i == ram ? "rtc" : "ram", 3, 0, 1,
                  i == ram ? "no such live component" : "no such device");
        with_body(i, NULL, 0, "it ends too early", "an empty section");
        with_body(i, r->body, 2 + n + 7, "it ends too early", "half a head");
        if (i != ram)
            with_head(i, own, n, instance, 0, own);
    }
    free(name);
}

/* Each device with an octet too few, one too many. */
static void test_lengths(void **state)
{
    (void)state;
    for (unsigned i = 0; i < parts.count; i++) {
        const struct record *r = &parts.r[i];
        uint8_t *longer = calloc(1, r->size + 1);

        memcpy(longer, r->body, r->size);
        if (r->type >= PERDURE_RECORD_SECTION_START && r->type <= PERDURE_RECORD_SECTION_FULL) {
            with_body(i, longer, r->size - 1, "it ends too early", "an octet too few");
            if (r->type == PERDURE_RECORD_SECTION_FULL)
                with_body(i, longer, r->size + 1, "bytes are left over at its end", "an octet too many");
            else
                with_body(i, longer, r->size + 1,
                          r->type == PERDURE_RECORD_SECTION_START ? "left over" : "early",
                          "an octet too many");
        } else if (r->type == WIRE_START || r->type == PERDURE_RECORD_STATE_END || r->type == WIRE_RUN) {
            with_body(i, longer, r->size + 1, "bytes are left over at its end", "an octet too many");
        }
        free(longer);
    }
}

static void test_ids(void **state)
{
    static const uint64_t ids[] = {1, 1000, UINT64_MAX, UINT64_MAX - 1, INT64_MAX};
    unsigned part = find(PERDURE_RECORD_SECTION_PART), end = find(PERDURE_RECORD_SECTION_END);
    unsigned start = find(PERDURE_RECORD_SECTION_START);
    struct rig_bytes b;
    struct rig_result r;
    struct records *rs;

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        uint64_t id = parts.r[start].id + ids[i];

        rs = change();
        rs->r[part].id = id;
        refused_records(rs, "goes on without having started", "id of PART", i);
        rs = change();
        rs->r[end].id = id;
        refused_records(rs, "goes on without having started", "id of END", i);
        rs = change();
        rs->r[start].id = id;
        refused_records(rs, "goes on without having started", "id of START", i);
        /* The writer chose it, and any will do. */
        rs = change();
        for (unsigned k = start; k < parts.count; k++)
            if (rs->r[k].type >= PERDURE_RECORD_SECTION_START && rs->r[k].type <= PERDURE_RECORD_SECTION_FULL)
                rs->r[k].id = id;
        b = records_join(rs);
        rig_offer(&good, b.data, b.size, false, &r, NULL);
        check_good(&r, "another id", i);
        free(b.data);
    }
}

/* --- pages --- */

static void with_part(const uint64_t *words, size_t count, const char *why)
{
    struct head *h = calloc(1, sizeof(*h));

    put_number(h, 2, 1);
    for (size_t i = 0; i < count; i++)
        put_number(h, words[i], 8);
    with_body(find(PERDURE_RECORD_SECTION_PART), h->bytes, h->size, why, "pages");
    free(h);
}

/* *ret_pages: of the recorded machine. */
static size_t block_body(struct head *h, uint32_t count, uint64_t gpa, uint64_t size)
{
    const struct record *r = &parts.r[find(PERDURE_RECORD_SECTION_START)];

    put(h, r->body, 2 + le16_get(r->body) + 8u);
    put_number(h, 1, 1);
    put_number(h, count, 4);
    for (uint32_t i = 0; i < count && i < 3; i++) {
        put_number(h, gpa, 8);
        put_number(h, size, 8);
    }
    return h->size;
}

static void with_blocks(uint32_t count, uint64_t gpa, uint64_t size, const char *why)
{
    struct head *h = calloc(1, sizeof(*h));

    block_body(h, count, gpa, size);
    with_body(find(PERDURE_RECORD_SECTION_START), h->bytes, h->size, why, "blocks");
    free(h);
}

static uint64_t ram_size(void)
{
    const struct record *r = &parts.r[find(PERDURE_RECORD_SECTION_START)];

    return le64_get(r->body + r->size - 8);
}

static void test_pages(void **state)
{
    uint64_t pages = ram_size() / GUEST_PAGE_SIZE;
    const uint64_t full = 2, delta = 1;

    (void)state;
    with_part((uint64_t[]){pages << 2}, 1, "RAM has 256 pages");
    with_part((uint64_t[]){pages << 2 | full}, 1, "RAM has 256 pages");
    with_part((uint64_t[]){UINT64_MAX << 2}, 1, "RAM has 256 pages");
    with_part((uint64_t[]){UINT64_MAX << 2 | delta}, 1, "RAM has 256 pages");
    with_part((uint64_t[]){3}, 1, "it ends too early");
    with_part((uint64_t[]){3, 0}, 2, "packed content is damaged"); /* of no size */
    with_part((uint64_t[]){3, 0x0201030202010006, 0}, 3, "packed content is damaged");
    with_part((uint64_t[]){(pages - 1) << 2 | full, 1, 2, 3}, 4, "it ends too early");
    with_part((uint64_t[]){delta}, 1, "it ends too early");
    with_part((uint64_t[]){delta, 0}, 2, "an empty delta");
    with_part((uint64_t[]){delta, UINT64_MAX, 1}, 3, "it ends too early");
    with_body(find(PERDURE_RECORD_SECTION_PART), "\2\0\0", 3, "it ends too early", "half a page");
    with_body(find(PERDURE_RECORD_SECTION_PART), "", 0, "it ends too early", "an empty part");
    with_body(find(PERDURE_RECORD_SECTION_PART), "\1", 1, "unexpected contents of kind 1", "blocks again");
    with_body(find(PERDURE_RECORD_SECTION_PART), "\377", 1, "unexpected contents of kind 255",
              "nothing known");
}

static void test_blocks(void **state)
{
    uint64_t size = ram_size();

    (void)state;
    with_blocks(0, 0, 0, "they must be the same");
    with_blocks(2, 0, size / 2, "they must be the same");
    with_blocks(1, 4096, size, "they must be the same");
    with_blocks(1, 0, size + 4096, "they must be the same");
    with_blocks(1, 0, UINT64_MAX, "they must be the same");
    with_blocks(1, UINT64_MAX, UINT64_MAX, "they must be the same");
    with_blocks(UINT32_MAX, 0, size, "it ends too early");
}

/* A delta is a page like any other. */
static void test_delta(void **state)
{
    struct records *rs = change();
    struct head *h = calloc(1, sizeof(*h));
    struct rig_result r;
    struct rig_bytes b;

    (void)state;
    put_number(h, 2, 1);
    put_number(h, (ram_size() / GUEST_PAGE_SIZE - 1) << 2 | 1, 8); /* the last one */
    put_number(h, UINT64_C(1) << 63, 8);                           /* its last line */
    h->size += 63;
    put_number(h, 0xee, 1);
    records_insert(rs, find(PERDURE_RECORD_SECTION_END), PERDURE_RECORD_SECTION_PART,
                   parts.r[find(PERDURE_RECORD_SECTION_START)].id, h->bytes, h->size);
    b = records_join(rs);
    rig_offer(&good, b.data, b.size, false, &r, NULL);
    check_result(&r, "a delta", 0);
    assert_true(r.ran);
    assert_int_not_equal(r.memory_hash, good.memory_hash);
    free(b.data);
    free(h);
}

/* --- the configuration, the disks --- */

static void test_config(void **state)
{
    unsigned i = find(WIRE_CONFIG);
    struct head *h = calloc(1, sizeof(*h));

    (void)state;
    put_number(h, UINT64_MAX, 8);
    with_body(i, h->bytes, 8, "is too large", "a configuration");
    h->size = 0;
    put_number(h, 1u << 20, 8);
    with_body(i, h->bytes, 8, "it ends too early", "a configuration");
    h->size = 0;
    put_number(h, 0, 8);
    with_body(i, h->bytes, 8, "the stream ends in the middle of it", "an empty configuration");
    with_body(i, "", 0, "it ends too early", "no configuration");
    free(h);
}

static void test_feeds(void **state)
{
    unsigned layout = find(WIRE_FEED);
    struct records *rs;

    (void)state;
    for (uint64_t epoch = 0; epoch < 3; epoch += 2) {
        rs = change();
        rs->r[layout].id = epoch;
        refused_records(rs, "came after epoch 0", "a message of another epoch", epoch);
    }
    with_body(layout, "\5\0ghost", 7, "ghost", "a feed that is not there");
    with_body(layout, "\5\0disks", 7, "it ends too early", "an empty message");
    with_body(layout, "\5\0disks\2", 8, "the first message is not LAYOUT (2)", "no layout");
    with_body(layout, "\377\377", 2, "too long", "a feed's name");
    with_body(find_last(WIRE_FEED), "\5\0disks\0", 8, "there is no message of kind 0",
              "a message of no kind");
    with_body(find_last(WIRE_FEED), "\5\0disks\377", 8, "there is no message of kind 255",
              "a message of no kind");
    with_body(find_last(WIRE_FEED), "\5\0disks\3", 8, "QUESTION came after the sync was over",
              "a late question");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),  cmocka_unit_test(test_lengths), cmocka_unit_test(test_ids),
        cmocka_unit_test(test_pages),  cmocka_unit_test(test_blocks),  cmocka_unit_test(test_delta),
        cmocka_unit_test(test_config), cmocka_unit_test(test_feeds),
    };

    return hostile_main(tests, sizeof(tests) / sizeof(tests[0]));
}
