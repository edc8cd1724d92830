/* Text: what there is to read in arguments and files, and what is said. */
#include <stdarg.h>

#include "linux.h"

size_t length(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	return n;
}

bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

uint64_t number(const char **text, unsigned base)
{
	uint64_t value = 0;

	if (base == 16 && (*text)[0] == '0' && (*text)[1] == 'x')
		*text += 2;
	for (;; ++*text) {
		char c = **text;
		unsigned digit = c >= '0' && c <= '9' ? c - '0' + 0u : c >= 'a' && c <= 'f' ? c - 'a' + 10u : 99u;

		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}

const char *behind(const char *text, const char *word)
{
	while (*word) {
		if (*text++ != *word++)
			return NULL;
	}
	return text;
}

static char line[512];
static size_t used;

static void put(char c)
{
	if (used < sizeof(line))
		line[used++] = c;
}

static void put_number(uint64_t value, unsigned base)
{
	char digits[24];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
	} while (value /= base);
	while (n)
		put(digits[--n]);
}

void say(const char *format, ...)
{
	va_list more;

	used = 0;
	va_start(more, format);
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		switch (*++format) {
		case 's':
			for (const char *text = va_arg(more, const char *); *text; text++)
				put(*text);
			break;
		case 'u':
			put_number(va_arg(more, uint64_t), 10);
			break;
		case 'x':
			put_number(va_arg(more, uint64_t), 16);
			break;
		case 'd': {
			long value = va_arg(more, long);

			if (value < 0)
				put('-');
			put_number(value < 0 ? -value : value, 10);
			break;
		}
		}
	}
	va_end(more);
	put('\n');
	call(SYS_WRITE, 1, (long)line, used);
}
