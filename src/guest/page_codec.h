/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page codec: a page as zero, as 64-byte-line delta against the last copy that the other side has, in full, or packed
 * by LZ4, where the link is slower than that and the page has something to give (docs/wire-format.md).
 *
 * The encoder keeps a shadow of what the other side holds (RAM-sized, given by the kernel page by page as it
 * is used); both begin as all zero, or nothing is known of what the other side holds, and a page's first copy is no
 * delta. The decoder's shadow is the other side's RAM itself. An encoded page: u64
 * (page << 2 | kind), then nothing | u64 line mask and the lines | 4096 bytes | u16 size and as many bytes.
 */
#ifndef GUEST_PAGE_CODEC_H
#define GUEST_PAGE_CODEC_H

#include "guest/missing.h"
#include <perdure/stream.h>

typedef struct PageEncoder PageEncoder;

enum page_kind { PAGE_ZERO, PAGE_DELTA, PAGE_FULL, PAGE_PACKED };
#define PAGE_KINDS 4

/* delta false: no shadow, zero and full only. blank: the other side's RAM is all zero; else nothing is known of it. */
PageEncoder *page_encoder_new(uint64_t page_count, bool delta, bool blank, Error **errp);
void page_encoder_free(PageEncoder *e);
/* Pages that would go in full are packed from now on, or not any more. Where packing gains nothing, page after page, it
 * is tried less and less often. */
void page_encoder_set_packing(PageEncoder *e, bool on);
/* The other side starts again from zero RAM. */
void page_encoder_reset(PageEncoder *e);
/* Puts one page into the open record, and into the shadow. Returns what it became. Without a shadow data may be the page of a guest that
 * runs: what it writes meanwhile is there or not, and counts as changed after this. */
enum page_kind page_encode(PageEncoder *e, VMStream *f, uint64_t page, const uint8_t *data);
/* Reads pages to the end of the open record; each is checked, then applied to RAM. Returns their number, -1
 * on a bad one (sticky error). */
int64_t page_decode_all(VMStream *f, GuestMemory *m);
/* The same into pages that are missing: whole ones only, and no other is touched. */
int64_t page_decode_missing(VMStream *f, MissingPages *mp);
/* The same checks, applying nothing. */
int64_t page_check_all(VMStream *f, uint64_t page_count);
/* The same; each page's bit is set in map. */
int64_t page_list_all(VMStream *f, uint64_t page_count, uint64_t *map);

#endif
