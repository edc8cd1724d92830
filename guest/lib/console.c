/* PL011 and a small printf. */
#include <stdarg.h>

#include "console.h"

#define UART_DR (UART + 0x00)
#define UART_FR (UART + 0x18)
#define UART_LCRH (UART + 0x2c)
#define UART_CR (UART + 0x30)
#define FR_BUSY (1 << 3)
#define FR_RXFE (1 << 4)
#define FR_TXFF (1 << 5)

/* A console that takes nothing must not stop the guest. */
#define CONSOLE_US 1000000ul

static uint32_t lock; /* the CPU that prints, plus 1 */
static char *text_at, *text_end; /* set by who has the lock: characters go there */

static uint32_t mmio_read(u64 address)
{
	return *(volatile uint32_t *)address;
}

static void mmio_write(u64 address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

static void wait_clear(uint32_t flags)
{
	u64 deadline = ticks() + ticks_of_us(CONSOLE_US);

	while (mmio_read(UART_FR) & flags && ticks() < deadline)
		;
}

void console_init(void)
{
	mmio_write(UART_LCRH, 0x70); /* 8 bits, FIFO */
	mmio_write(UART_CR, 0x301);  /* UARTEN, TXE, RXE */
}

void console_flush(void)
{
	wait_clear(FR_BUSY);
}

static void put_char(char c)
{
	if (text_at) {
		if (text_at < text_end)
			*text_at++ = c;
		return;
	}
	wait_clear(FR_TXFF);
	mmio_write(UART_DR, (unsigned char)c);
}

int console_read(u64 us)
{
	u64 deadline = ticks() + ticks_of_us(us);

	while (mmio_read(UART_FR) & FR_RXFE) {
		if (ticks() > deadline)
			return -1;
	}
	return (int)(mmio_read(UART_DR) & 0xff);
}

static void put_number(u64 value, unsigned base, bool negative, char pad, unsigned width)
{
	char digits[20];
	unsigned n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	if (negative && pad == '0')
		put_char('-');
	for (unsigned used = n + negative; used < width; used++)
		put_char(pad);
	if (negative && pad != '0')
		put_char('-');
	while (n)
		put_char(digits[--n]);
}

static void put_string(const char *s, unsigned width)
{
	unsigned used = 0;

	for (; *s; s++, used++)
		put_char(*s);
	for (; used < width; used++)
		put_char(' ');
}

/*
 * The lock is for looks and is waited for only so long; not at all by a handler that prints over the code which it
 * interrupted. Returns whether it is to be released.
 */
static bool acquire(void)
{
	u64 deadline = ticks() + ticks_of_us(CONSOLE_US);
	uint32_t me = this_cpu() + 1, owner;

	do {
		owner = 0;
		if (__atomic_compare_exchange_n(&lock, &owner, me, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
		if (owner == me)
			return false;
	} while (ticks() < deadline);
	return true;
}

static void put_format(const char *format, va_list args)
{
	for (const char *p = format; *p; p++) {
		char pad = ' ';
		unsigned width = 0;
		bool wide = false;

		if (*p != '%') {
			put_char(*p);
			continue;
		}
		if (*++p == '0')
			pad = *p++;
		while (*p >= '0' && *p <= '9')
			width = width * 10 + (unsigned)(*p++ - '0');
		if (*p == 'l') {
			wide = true;
			p++;
		}
		if (*p == 's') {
			put_string(va_arg(args, const char *), width);
		} else if (*p == 'c') {
			put_char((char)va_arg(args, int));
		} else if (*p == 'd') {
			int64_t v = wide ? va_arg(args, int64_t) : va_arg(args, int);

			put_number(v < 0 ? -(u64)v : (u64)v, 10, v < 0, pad, width);
		} else if (*p == 'u' || *p == 'x') {
			u64 v = wide ? va_arg(args, u64) : va_arg(args, unsigned);

			put_number(v, *p == 'u' ? 10 : 16, false, pad, width);
		} else if (*p) {
			put_char(*p);
		} else {
			break;
		}
	}
}

void console_text(char *to, size_t size, const char *format, va_list args)
{
	bool release = acquire();

	text_at = to;
	text_end = to + size - 1;
	put_format(format, args);
	*text_at = 0;
	text_at = NULL;
	if (release)
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

void console_print(const char *prefix, unsigned cpu, const char *format, va_list args, const char *suffix)
{
	bool release = acquire();

	if (prefix) {
		put_string(prefix, 0);
		put_number(cpu, 10, false, ' ', 0);
		put_string(": ", 0);
	}
	put_format(format, args);
	if (suffix)
		put_string(suffix, 0);
	if (release)
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

void printf(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	console_print(NULL, 0, format, args, NULL);
	va_end(args);
}
