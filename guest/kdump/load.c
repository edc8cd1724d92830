/*
 * Puts a capture kernel into the memory that crashkernel= has reserved, by kexec_load(2): stock arm64 kernels have no
 * kexec_file_load(2), and busybox has no kexec.
 *
 * What goes where (addresses go up): the kernel, room for its .bss; the initrd; code that enters the kernel with the
 * device tree in x0; the ELF header of /proc/vmcore; the device tree, in 2 MiB of its own.
 */
#include "fdt.h"
#include "kdump.h"

#define FOLDER "/qemu-sdei/kdump/"
#define MIB (1ul << 20)
#define BLOCK (2 * MIB)
#define MAX_RANGES 64
#define MAX_CPUS 512
#define IOMEM_ROOM (1 * MIB)
#define KEXEC_ON_CRASH 1
#define KEXEC_ARCH_AARCH64 (183 << 16)
/* Bytes that the capture kernel wants beyond what is loaded, the unpacked initrd aside (boot/load_addresses.py). */
#define HEADROOM (24 * MIB)

struct range {
	uint64_t start, end;
};

struct segment {
	const void *buffer;
	size_t size;
	uint64_t address;
	size_t room;
};

struct elf_header {
	uint8_t ident[16];
	uint16_t type, machine;
	uint32_t version;
	uint64_t entry, segments_at, sections_at;
	uint32_t flags;
	uint16_t size, segment_size, segments, section_size, sections, names;
};

struct elf_segment {
	uint32_t type, flags;
	uint64_t offset, virtual, physical, size, room, align;
};

static struct range ram[MAX_RANGES], crash[MAX_RANGES];
static unsigned rams, crashes;

static int give_up(const char *what, long error)
{
	say("failed %s %d", what, error < 0 ? -error : error);
	return 1;
}

static void add(struct range *ranges, unsigned *count, uint64_t start, uint64_t end)
{
	if (start < end && *count < MAX_RANGES)
		ranges[(*count)++] = (struct range){ start, end };
}

/* Lines such as "  60000000-7fffffff : Crash kernel". */
static long read_iomem(void)
{
	char *text = get_memory(IOMEM_ROOM);
	long size = text ? read_file("/proc/iomem", text, IOMEM_ROOM - 1) : -EIO;

	for (const char *line = text; size > 0 && *line;) {
		bool top = *line != ' ';
		uint64_t start, end;
		char name[16];
		unsigned n = 0;

		while (*line == ' ')
			line++;
		start = number(&line, 16);
		if (*line == '-')
			line++;
		end = number(&line, 16) + 1;
		while (*line == ' ' || *line == ':')
			line++;
		for (; *line && *line != '\n'; line++) {
			if (n < sizeof(name) - 1)
				name[n++] = *line;
		}
		name[n] = 0;
		if (*line)
			line++;
		if (top && same(name, "System RAM"))
			add(ram, &rams, start, end);
		else if (same(name, "Crash kernel"))
			add(crash, &crashes, start, end);
	}
	return size;
}

/* RAM without what was reserved: the capture kernel's own is no part of the memory that crashed. */
static void leave_out(const struct range *hole)
{
	unsigned count = rams;

	for (unsigned n = 0; n < count; n++) {
		struct range whole = ram[n];

		if (hole->start >= whole.end || hole->end <= whole.start)
			continue;
		ram[n].end = hole->start > whole.start ? hole->start : whole.start;
		add(ram, &rams, hole->end, whole.end);
	}
}

static uint64_t sysfs_number(const char *before, unsigned cpu, const char *behind, unsigned base)
{
	char path[128], digits[8], text[64];
	unsigned n = 0, count = 0;
	const char *at = text;
	long size;

	do {
		digits[count++] = '0' + cpu % 10;
	} while (cpu /= 10);
	for (; *before; before++)
		path[n++] = *before;
	while (count)
		path[n++] = digits[--count];
	for (; *behind; behind++)
		path[n++] = *behind;
	path[n] = 0;
	size = read_file(path, text, sizeof(text) - 1);
	if (size < 0)
		return 0;
	text[size] = 0;
	return number(&at, base);
}

/* The header of /proc/vmcore: where each CPU's registers will be, where vmcoreinfo is, and RAM. */
static long make_core(uint8_t *to, size_t room)
{
	struct elf_header *header = (struct elf_header *)to;
	struct elf_segment *segment = (struct elf_segment *)(to + sizeof(*header));
	char text[64];
	const char *at = text;
	long size = read_file("/sys/kernel/vmcoreinfo", text, sizeof(text) - 1);
	uint64_t address;

	if (size < 0)
		return size;
	text[size] = 0;
	for (unsigned cpu = 0; cpu < MAX_CPUS; cpu++) {
		uint64_t notes = sysfs_number("/sys/devices/system/cpu/cpu", cpu, "/crash_notes", 16);
		uint64_t bytes = sysfs_number("/sys/devices/system/cpu/cpu", cpu, "/crash_notes_size", 10);

		if (!notes || !bytes)
			break;
		*segment++ = (struct elf_segment){ 4, 0, notes, 0, notes, bytes, bytes, 0 };
	}
	address = number(&at, 16);
	while (*at == ' ')
		at++;
	size = number(&at, 16);
	*segment++ = (struct elf_segment){ 4, 0, address, 0, address, size, size, 0 };
	for (unsigned n = 0; n < rams; n++) {
		uint64_t bytes = ram[n].end - ram[n].start;

		if (bytes)
			*segment++ = (struct elf_segment){ 1, 7, ram[n].start, 0, ram[n].start, bytes, bytes, 0 };
	}
	*header = (struct elf_header){
		.ident = { 0x7f, 'E', 'L', 'F', 2, 1, 1 }, .type = 4, .machine = 183, .version = 1,
		.segments_at = sizeof(*header), .size = sizeof(*header), .segment_size = sizeof(*segment),
		.segments = segment - (struct elf_segment *)(to + sizeof(*header)),
	};
	size = (uint8_t *)segment - to;
	return (size_t)size > room ? -EIO : size;
}

static void constant(uint32_t **word, unsigned reg, uint64_t value)
{
	*(*word)++ = 0xd2800000 | (value & 0xffff) << 5 | reg;			/* movz */
	for (unsigned n = 1; n < 4; n++)
		*(*word)++ = 0xf2800000 | n << 21 | (value >> (16 * n) & 0xffff) << 5 | reg;	/* movk */
}

int load(void)
{
	static char bootargs[4096];
	uint8_t *core = get_memory(PAGE), *tree = get_memory(BLOCK);
	uint32_t *code = get_memory(PAGE), *word = code;
	size_t image_size, initrd_size, old_size, tree_size;
	const uint8_t *image = map_file(FOLDER "Image", &image_size);
	const void *initrd = map_file(FOLDER "initrd", &initrd_size);
	uint8_t *old = get_memory(BLOCK);
	uint64_t kernel_at, kernel_room, initrd_at, code_at, core_at, tree_at, need;
	struct range *where = &crash[0];
	struct chosen chosen;
	long size, error;

	if (!image || !initrd || image_size < 64)
		return give_up("files", 2);
	if (!core || !tree || !code || !old)
		return give_up("memory", 12);
	size = read_file(FOLDER "cmdline", bootargs, sizeof(bootargs) - 1);
	if (size < 0)
		return give_up("cmdline", size);
	error = read_iomem();
	if (error < 0)
		return give_up("iomem", error);
	for (unsigned n = 1; n < crashes; n++) {
		if (crash[n].end - crash[n].start > where->end - where->start)
			where = &crash[n];
	}
	if (!crashes || !where->end) {
		long loaded = open_file("/sys/kernel/kexec_crash_loaded", O_RDONLY);

		return loaded < 0 ? give_up("kexec", ENOSYS) : give_up("reservation", 0);
	}
	for (unsigned n = 0; n < crashes; n++)
		leave_out(&crash[n]);
	size = make_core(core, PAGE);
	if (size < 0)
		return give_up("vmcoreinfo", size);
	error = read_file("/sys/firmware/fdt", old, BLOCK);
	if (error <= 0)
		return give_up("fdt", error);
	old_size = error;

	kernel_at = align_up(where->start, BLOCK) + *(const uint64_t *)(image + 8);
	kernel_room = *(const uint64_t *)(image + 16);
	if (kernel_room < image_size)
		kernel_room = image_size;
	need = kernel_at - where->start + align_up(kernel_room, PAGE) + 2 * initrd_size + 2 * PAGE + 2 * BLOCK + HEADROOM;
	if (need > where->end - where->start) {
		say("failed small %u %u", align_up(need, MIB) / MIB, (where->end - where->start) / MIB);
		return 1;
	}
	tree_at = align_down(where->end, BLOCK) - BLOCK;
	core_at = tree_at - PAGE;
	code_at = core_at - PAGE;
	initrd_at = align_down(code_at - initrd_size, PAGE);
	chosen = (struct chosen){ bootargs, { where->start, where->end - where->start }, { core_at, size },
				  { initrd_at, initrd_at + initrd_size } };
	tree_size = with_chosen(old, old_size, &chosen, tree, BLOCK);
	if (!tree_size)
		return give_up("fdt", 0);
	constant(&word, 0, tree_at);
	constant(&word, 16, kernel_at);
	for (unsigned n = 1; n < 4; n++)
		constant(&word, n, 0);
	*word++ = 0xd61f0200;	/* br x16 */

	struct segment segments[] = {
		{ image, image_size, kernel_at, align_up(kernel_room, PAGE) },
		{ initrd, initrd_size, initrd_at, align_up(initrd_size, PAGE) },
		{ code, PAGE, code_at, PAGE },
		{ core, PAGE, core_at, PAGE },
		{ tree, tree_size, tree_at, align_up(tree_size, PAGE) },
	};
	error = call(SYS_KEXEC_LOAD, code_at, sizeof(segments) / sizeof(segments[0]), (long)segments,
		     KEXEC_ON_CRASH | KEXEC_ARCH_AARCH64);
	if (error < 0)
		return give_up("kexec", error);
	say("loaded %u", (where->end - where->start) / MIB);
	return 0;
}
