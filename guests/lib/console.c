/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdarg.h>
#include "lib/console.h"
#include "lib/io.h"

#define COM1     0x3f8
#define COM1_FCR (COM1 + 2)
#define COM1_LCR (COM1 + 3)
#define COM1_LSR (COM1 + 5)
#define LSR_THRE 0x20
#define FIFO     16

static unsigned room; /* bytes that the transmit FIFO surely takes */
static volatile int lock;

void console_init(void)
{
    outb(COM1 + 1, 0); /* no interrupts */
    outb(COM1_LCR, 0x83);
    outb(COM1, 1); /* 115200 */
    outb(COM1 + 1, 0);
    outb(COM1_LCR, 3); /* 8n1 */
    outb(COM1_FCR, 7);
    outb(COM1 + 4, 3);
}

static void put(char c)
{
    if (c == '\n')
        put('\r');
    if (room == 0) {
        while (!(inb(COM1_LSR) & LSR_THRE))
            cpu_relax();
        room = FIFO;
    }
    outb(COM1, c);
    room--;
}

static void put_number(uint64_t v, unsigned base)
{
    char digits[20];
    int n = 0;

    do
        digits[n++] = "0123456789abcdef"[v % base];
    while (v /= base);
    while (n)
        put(digits[--n]);
}

static void put_signed(int64_t v)
{
    if (v < 0)
        put('-');
    put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
}

static void put_argument(char kind, va_list *args)
{
    const char *s;

    switch (kind) {
    case 's':
        for (s = va_arg(*args, const char *); *s; s++)
            put(*s);
        break;
    case 'u':
        put_number(va_arg(*args, uint64_t), 10);
        break;
    case 'x':
        put_number(va_arg(*args, uint64_t), 16);
        break;
    case 'd':
        put_signed(va_arg(*args, int64_t));
        break;
    case 'c':
        put(va_arg(*args, int));
        break;
    default:
        put(kind);
    }
}

void print(const char *format, ...)
{
    va_list args;

    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        cpu_relax();
    va_start(args, format);
    for (; *format; format++) {
        if (*format != '%')
            put(*format);
        else
            put_argument(*++format, &args);
    }
    va_end(args);
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}
