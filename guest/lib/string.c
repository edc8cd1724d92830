/* What the compiler may call even in freestanding code. */
#include <stddef.h>

void *memset(void *to, int value, size_t size)
{
	char *t = to;

	while (size--)
		*t++ = (char)value;
	return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
	char *t = to;
	const char *f = from;

	while (size--)
		*t++ = *f++;
	return to;
}
