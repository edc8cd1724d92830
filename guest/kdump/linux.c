/* What a C library would have: see linux.h. */
#include "linux.h"

#define AT_FDCWD -100

/* The compiler calls these. */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

void *memcpy(void *to, const void *from, size_t size)
{
	uint8_t *out = to;
	const uint8_t *in = from;

	if (!(((uintptr_t)to | (uintptr_t)from) & 7)) {
		for (; size >= 8; size -= 8, out += 8, in += 8)
			*(uint64_t *)out = *(const uint64_t *)in;
	}
	while (size--)
		*out++ = *in++;
	return to;
}

void *memset(void *to, int value, size_t size)
{
	uint8_t *out = to;

	while (size--)
		*out++ = value;
	return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;

	for (; size--; x++, y++) {
		if (*x != *y)
			return *x - *y;
	}
	return 0;
}

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

long open_file(const char *path, int flags)
{
	return call(SYS_OPENAT, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

void close_file(long fd)
{
	call(SYS_CLOSE, fd, 0, 0, 0, 0, 0);
}

long read_file(const char *path, void *to, size_t room)
{
	long fd = open_file(path, O_RDONLY);
	size_t got = 0;

	if (fd < 0)
		return fd;
	while (got < room) {
		long n = call(SYS_READ, fd, (long)((char *)to + got), room - got, 0, 0, 0);

		if (n < 0) {
			close_file(fd);
			return n;
		}
		if (!n)
			break;
		got += n;
	}
	close_file(fd);
	return got;
}

const void *map_file(const char *path, size_t *size)
{
	long fd = open_file(path, O_RDONLY);
	long end = fd < 0 ? fd : call(SYS_LSEEK, fd, 0, SEEK_END, 0, 0, 0);
	long at = -1;

	if (end > 0)
		at = call(SYS_MMAP, 0, end, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close_file(fd);
	if (at < 0 && at > -4096)
		return NULL;
	*size = end;
	return (const void *)at;
}

void *get_memory(size_t size)
{
	long at = call(SYS_MMAP, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at < 0 && at > -4096 ? NULL : (void *)at;
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
	call(SYS_WRITE, 1, (long)line, used, 0, 0, 0);
}
