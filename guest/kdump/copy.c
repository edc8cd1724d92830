/*
 * Takes /proc/vmcore to the disk that is there for it, as it is: an ELF file. Pages of zeroes are left out, and are a
 * hole in the host's file. By mmap: to read it takes an emulated guest a minute for each GiB.
 */
#include "kdump.h"

#define SERIAL "qemu-sdei-vmcore"
#define CHUNK (4ul << 20)
#define BUFFER (1ul << 20)
#define UNIT 4096ul
#define TELL (32ul << 20)
#define MAX_HEADERS (4ul << 20)
#define BLKGETSIZE64 0x80081272
#define PT_LOAD 1
#define TRIES 50

static long core, disk;
static uint64_t total, done, told, written;
static uint8_t *buffer;

static int give_up(const char *what, long error)
{
	say("failed %s %d", what, error < 0 ? -error : error);
	return 1;
}

/* The disk, opened past the page cache: what cannot be written is told at once. An error otherwise. */
static long find_disk(void)
{
	static const struct { long seconds, nanoseconds; } pause = { 0, 100000000 };

	for (unsigned tries = 0; tries < TRIES; tries++) {
		for (char letter = 'a'; letter <= 'z'; letter++) {
			char path[] = "/sys/block/vd?/serial", device[] = "/dev/vd?", text[32];
			long size;

			path[13] = letter;
			device[7] = letter;
			size = read_file(path, text, sizeof(text) - 1);
			if (size <= 0)
				continue;
			text[size - (text[size - 1] == '\n')] = 0;
			if (same(text, SERIAL))
				return open_file(device, O_RDWR | O_DIRECT);
		}
		call(SYS_NANOSLEEP, (long)&pause);
	}
	return -ENOENT;
}

static long put(const uint8_t *data, uint64_t size, uint64_t offset)
{
	while (size) {
		uint64_t part = size < BUFFER ? size : BUFFER;
		long n;

		/* What is mapped of /proc/vmcore cannot be given to the disk itself. */
		__builtin_memcpy(buffer, data, part);
		n = call(SYS_PWRITE, disk, (long)buffer, part, offset);
		if (n <= 0)
			return n ? n : -EIO;
		data += n;
		offset += n;
		size -= n;
		written += n;
	}
	return 0;
}

static bool is_zero(const uint8_t *page)
{
	const uint64_t *word = (const uint64_t *)page;

	for (const uint64_t *end = word + UNIT / 8; word < end; word += 8) {
		if (word[0] | word[1] | word[2] | word[3] | word[4] | word[5] | word[6] | word[7])
			return false;
	}
	return true;
}

static long put_chunk(const uint8_t *data, uint64_t size, uint64_t offset)
{
	uint64_t start = 0, at;
	long error;

	for (at = 0; at + UNIT <= size; at += UNIT) {
		if (!is_zero(data + at))
			continue;
		error = put(data + start, at - start, offset + start);
		if (error)
			return error;
		start = at + UNIT;
	}
	return put(data + start, at - start, offset + start);
}

/* What begins at `offset`, a multiple of the kernel's page as each segment does. */
static long copy_segment(uint64_t offset, uint64_t size, const char **what)
{
	static uint8_t *spare;

	for (uint64_t at = 0; at < size; at += CHUNK) {
		uint64_t part = size - at < CHUNK ? size - at : CHUNK;
		long error, view = call(SYS_MMAP, 0, part, PROT_READ, MAP_PRIVATE, core, offset + at);

		*what = "read";
		if (view < 0 && view > -4096) {
			if (!spare && !(spare = get_memory(CHUNK)))
				return -EIO;
			for (uint64_t got = 0; got < part; got += error) {
				error = call(SYS_PREAD, core, (long)(spare + got), part - got, offset + at + got);
				if (error <= 0)
					return error ? error : -EIO;
			}
			view = (long)spare;
		}
		*what = "write";
		error = put_chunk((const uint8_t *)view, part, offset + at);
		if (view != (long)spare)
			call(SYS_MUNMAP, view, part);
		if (error)
			return error;
		done += part;
		if (done - told >= TELL) {
			told = done;
			say("copy %u %u %u", done, total, written);
		}
	}
	return 0;
}

int copy(void)
{
	uint8_t *headers = get_memory(MAX_HEADERS);
	const char *what = "write";
	uint64_t segments, size, first = MAX_HEADERS, end = 0, room = 0;
	unsigned count;
	long error;

	buffer = get_memory(BUFFER);
	if (!headers || !buffer)
		return give_up("memory", 12);
	core = open_file("/proc/vmcore", O_RDONLY);
	if (core < 0)
		return give_up("vmcore", core);
	disk = find_disk();
	if (disk < 0)
		return give_up("disk", disk);
	error = call(SYS_PREAD, core, (long)headers, UNIT);
	if (error < (long)UNIT)
		return give_up("read", error < 0 ? error : -EIO);
	segments = *(uint64_t *)(headers + 32);
	count = *(uint16_t *)(headers + 56);
	if (segments + count * 56ul > UNIT)
		return give_up("headers", count);
	for (unsigned n = 0; n < count; n++) {
		const uint64_t *segment = (const uint64_t *)(headers + segments + n * 56);

		if (*(const uint32_t *)segment == PT_LOAD) {
			first = segment[1] < first ? segment[1] : first;
			end = segment[1] + segment[4] > end ? segment[1] + segment[4] : end;
			total += segment[4];
		}
	}
	call(SYS_IOCTL, disk, BLKGETSIZE64, (long)&room);
	if (first >= MAX_HEADERS || end > room || total > room)
		return give_up("room", 28);
	for (size = 0; size < first; size += error) {
		error = call(SYS_PREAD, core, (long)(headers + size), first - size, size);
		if (error <= 0)
			return give_up("read", error ? error : -EIO);
	}
	say("copy 0 %u 0", total);
	for (unsigned n = 0; n < count; n++) {
		const uint64_t *segment = (const uint64_t *)(headers + segments + n * 56);

		error = *(const uint32_t *)segment == PT_LOAD ? copy_segment(segment[1], segment[4], &what) : 0;
		if (error)
			return give_up(what, error);
	}
	/* Last: a file without them is no vmcore. */
	error = put(headers, align_up(first, UNIT), 0);
	if (!error)
		error = call(SYS_FSYNC, disk);
	if (error)
		return give_up("write", error);
	say("copied %u %u", end, written);
	return 0;
}
