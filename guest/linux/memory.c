/* What a C library would have, and the compiler takes for granted. */
#include "linux.h"

void *memcpy(void *to, const void *from, size_t size)
{
	uint8_t *out = to;
	const uint8_t *in = from;

	if (!(((uintptr_t)out ^ (uintptr_t)in) & 7)) {
		for (; size && ((uintptr_t)out & 7); size--)
			*out++ = *in++;
		for (; size >= 8; size -= 8, out += 8, in += 8)
			*(uint64_t *)(void *)out = *(const uint64_t *)(const void *)in;
	}
	while (size--)
		*out++ = *in++;
	return to;
}

void *memmove(void *to, const void *from, size_t size)
{
	uint8_t *out = to;
	const uint8_t *in = from;

	if (out <= in || out >= in + size)
		return memcpy(to, from, size);
	while (size--)
		out[size] = in[size];
	return to;
}

void *memset(void *to, int value, size_t size)
{
	uint8_t *out = to;

	while (size--)
		*out++ = (uint8_t)value;
	return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *one = a, *other = b;

	for (; size; size--, one++, other++)
		if (*one != *other)
			return *one - *other;
	return 0;
}
