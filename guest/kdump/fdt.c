/* The flattened device tree format: Devicetree Specification v0.4, chapter 5. */
#include "fdt.h"
#include "kdump.h"

#define MAGIC 0xd00dfeed
#define BEGIN_NODE 1
#define END_NODE 2
#define PROP 3
#define NOP 4
#define END 9

struct header {
	uint32_t magic, size, structure, strings, reserved, version, compatible, boot_cpu, strings_size, structure_size;
};

static const char *const ours[] = {
	"bootargs", "linux,usable-memory-range", "linux,elfcorehdr", "linux,initrd-start", "linux,initrd-end",
	/* Seeds are for one boot; without one the kernel is where it was put. */
	"kaslr-seed", "rng-seed",
};
enum { BOOTARGS, MEMORY, CORE, INITRD_START, INITRD_END, COUNT };

static uint8_t *out;
static size_t at, limit;
static uint32_t names[COUNT];

static uint32_t swap(uint32_t value)
{
	return __builtin_bswap32(value);
}

static void put(const void *data, size_t size)
{
	if (at + size > limit) {
		at = limit + 1;
		return;
	}
	__builtin_memcpy(out + at, data, size);
	at += size;
	while (at % 4 && at < limit)
		out[at++] = 0;
}

static void put_word(uint32_t value)
{
	value = swap(value);
	put(&value, 4);
}

static void put_property(unsigned which, const void *value, size_t size)
{
	put_word(PROP);
	put_word(size);
	put_word(names[which]);
	put(value, size);
}

static void put_numbers(unsigned which, const uint64_t *values, unsigned count)
{
	uint64_t swapped[2];

	for (unsigned n = 0; n < count; n++)
		swapped[n] = __builtin_bswap64(values[n]);
	put_property(which, swapped, 8 * count);
}

static void put_chosen(const struct chosen *chosen)
{
	put_property(BOOTARGS, chosen->bootargs, length(chosen->bootargs) + 1);
	put_numbers(MEMORY, chosen->memory, 2);
	put_numbers(CORE, chosen->core, 2);
	put_numbers(INITRD_START, &chosen->initrd[0], 1);
	put_numbers(INITRD_END, &chosen->initrd[1], 1);
}

static bool is_ours(const char *name)
{
	for (unsigned n = 0; n < sizeof(ours) / sizeof(ours[0]); n++) {
		if (same(name, ours[n]))
			return true;
	}
	return false;
}

/* Copies the structure block; whether /chosen was in it, and its end. */
static bool copy_structure(const uint8_t *block, size_t size, const char *strings, size_t strings_size,
			   const struct chosen *chosen)
{
	unsigned depth = 0;
	bool inside = false, found = false;

	for (size_t pos = 0; pos + 4 <= size;) {
		const uint8_t *token = block + pos;
		uint32_t kind = swap(*(const uint32_t *)token);
		size_t bytes = 4;

		switch (kind) {
		case BEGIN_NODE: {
			size_t name = 0;

			while (pos + 4 + name < size && token[4 + name])
				name++;
			bytes = align_up(4 + name + 1, 4);
			if (pos + bytes > size)
				return false;
			put(token, bytes);
			inside = ++depth == 2 && same((const char *)token + 4, "chosen");
			if (inside) {
				put_chosen(chosen);
				found = true;
			}
			break;
		}
		case END_NODE:
			if (!depth--)
				return false;
			inside = false;
			put(token, 4);
			break;
		case PROP: {
			uint32_t name, value;

			if (pos + 12 > size)
				return false;
			value = swap(((const uint32_t *)token)[1]);
			name = swap(((const uint32_t *)token)[2]);
			bytes = align_up(12 + (size_t)value, 4);
			if (pos + bytes > size || name >= strings_size)
				return false;
			if (!inside || !is_ours(strings + name))
				put(token, bytes);
			break;
		}
		case NOP:
			break;
		case END:
			put_word(END);
			return found && !depth;
		default:
			return false;
		}
		pos += bytes;
	}
	return false;
}

size_t with_chosen(const void *tree, size_t size, const struct chosen *chosen, void *to, size_t room)
{
	const struct header *old = tree;
	const uint8_t *bytes = tree;
	struct header new = { .magic = swap(MAGIC), .version = swap(17), .compatible = swap(16) };
	size_t strings, strings_size, structure, structure_size, reserved, added;

	if (size < sizeof(*old) || swap(old->magic) != MAGIC || swap(old->version) < 17)
		return 0;
	strings = swap(old->strings);
	strings_size = swap(old->strings_size);
	structure = swap(old->structure);
	structure_size = swap(old->structure_size);
	reserved = swap(old->reserved);
	if (strings + strings_size > size || structure + structure_size > size || reserved % 8 || structure % 4)
		return 0;
	if (!strings_size || bytes[strings + strings_size - 1])
		return 0;

	out = to;
	limit = room;
	at = sizeof(new);
	new.reserved = swap(at);
	for (;; reserved += 16) {
		const uint64_t *entry = (const uint64_t *)(bytes + reserved);

		if (reserved + 16 > size)
			return 0;
		put(entry, 16);
		if (!entry[0] && !entry[1])
			break;
	}
	added = strings_size;
	for (unsigned n = 0; n < COUNT; n++) {
		names[n] = added;
		added += length(ours[n]) + 1;
	}
	new.structure = swap(at);
	new.boot_cpu = old->boot_cpu;
	structure_size = copy_structure(bytes + structure, structure_size, (const char *)bytes + strings, strings_size,
					chosen) ? at - swap(new.structure) : 0;
	if (!structure_size || at + added > limit)
		return 0;
	new.structure_size = swap(structure_size);
	new.strings = swap(at);
	new.strings_size = swap(added);
	__builtin_memcpy(out + at, bytes + strings, strings_size);
	at += strings_size;
	for (unsigned n = 0; n < COUNT; n++) {
		__builtin_memcpy(out + at, ours[n], length(ours[n]) + 1);
		at += length(ours[n]) + 1;
	}
	new.size = swap(at);
	__builtin_memcpy(out, &new, sizeof(new));
	return at;
}
