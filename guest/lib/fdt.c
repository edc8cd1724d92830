/* A walk through a flattened device tree for one text. The blob is believed no further than its size. */
#include "guest.h"

#define FDT_MAGIC 0xd00dfeedu
#define FDT_MAX 0x200000u
#define FDT_BEGIN_NODE 1
#define FDT_END_NODE 2
#define FDT_PROP 3
#define FDT_NOP 4

static uint32_t word(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Length of the string at p with its NUL, rounded up to words; 0 if it does not end before `end`. */
static uint32_t string_words(const uint8_t *p, const uint8_t *end)
{
	for (uint32_t n = 0; p + n < end; n++) {
		if (!p[n])
			return (n + 4) & ~3u;
	}
	return 0;
}

const char *fdt_text(const void *fdt, const char *node, const char *property)
{
	const uint8_t *base = fdt, *p, *end;
	unsigned depth = 0;
	bool here = false;

	if (!fdt || (u64)fdt & 7 || word(base) != FDT_MAGIC)
		return NULL;
	uint32_t total = word(base + 4), structs = word(base + 8), strings = word(base + 12);

	if (total > FDT_MAX || structs >= total || strings >= total)
		return NULL;
	p = base + structs;
	end = base + total;
	while (end - p >= 4) {
		uint32_t token = word(p), size;

		p += 4;
		if (token == FDT_BEGIN_NODE) {
			size = string_words(p, end);
			if (!size)
				return NULL;
			here = depth == 1 && text_is((const char *)p, node);
			depth++;
			p += size;
		} else if (token == FDT_END_NODE) {
			if (here && depth == 2)
				return NULL; /* it has none */
			if (!depth--)
				return NULL;
		} else if (token == FDT_PROP) {
			if (end - p < 8)
				return NULL;
			uint32_t length = word(p), name = strings + word(p + 4);

			p += 8;
			size = (length + 3) & ~3u;
			if (length > FDT_MAX || size > (u64)(end - p) || name >= total || !string_words(base + name, end))
				return NULL;
			if (here && depth == 2 && length && !p[length - 1] && text_is((const char *)base + name, property))
				return (const char *)p;
			p += size;
		} else if (token != FDT_NOP) {
			return NULL; /* FDT_END, or damaged */
		}
	}
	return NULL;
}
