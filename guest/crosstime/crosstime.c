/*
 * Asks the kernel COUNT times for a cross timestamp of /dev/ptp0 (PTP_SYS_OFFSET_PRECISE), and prints a line for each: the
 * device's time, the system's real time and its raw monotonic time, in nanoseconds. A program for Linux without a C library.
 *
 *     crosstime COUNT
 *
 * Exit status: 0; 1: there is no such device, or the kernel has refused; 2: no such argument.
 */
#include "linux.h"

enum { MOST = 10000 };
#define PTP_SYS_OFFSET_PRECISE 0xc0403d08ul
#define SECOND 1000000000ul

struct moment {
	int64_t seconds;
	uint32_t ns, reserved;
};

static uint64_t ns_of(struct moment moment)
{
	return (uint64_t)moment.seconds * SECOND + moment.ns;
}

long program(uint64_t *stack)
{
	struct { struct moment device, real, raw; uint32_t reserved[4]; } stamp;
	const char *text = (const char *)stack[2];
	uint64_t count;
	long file;

	if (stack[0] != 2)
		return 2;
	count = number(&text, 10);
	if (*text || count > MOST)
		return 2;
	file = call(SYS_OPENAT, AT_FDCWD, (long)"/dev/ptp0", O_RDONLY);
	if (file < 0)
		return 1;
	while (count--) {
		memset(&stamp, 0, sizeof(stamp));
		if (call(SYS_IOCTL, file, (long)PTP_SYS_OFFSET_PRECISE, (long)&stamp) < 0)
			return 1;
		say("%u %u %u", ns_of(stamp.device), ns_of(stamp.real), ns_of(stamp.raw));
	}
	return 0;
}
