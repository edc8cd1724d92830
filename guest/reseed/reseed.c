/*
 * Gives the kernel new random numbers, and has it use them at once: a guest that goes on from a file would otherwise have
 * the same as each other one from that file. A program for Linux without a C library, because the initramfs has none.
 *
 *     reseed HEX
 *
 * HEX: up to 64 bytes, two digits each. Exit status: 0; 1: the kernel does not take them; 2: no such argument.
 */
#include "linux.h"

enum { MOST = 64 };
/* Requests of random(4). */
enum { ADD_ENTROPY = 0x40085203, RESEED = 0x5207 };

static uint8_t digit(char text)
{
	if (text >= '0' && text <= '9')
		return (uint8_t)(text - '0');
	if (text < 'a' || text > 'f')
		end(2);
	return (uint8_t)(text - 'a' + 10);
}

long program(uint64_t *stack)
{
	static struct { int bits, size; uint8_t bytes[MOST]; } entropy;
	const char *text = (const char *)stack[2];
	long file;

	if (stack[0] != 2)
		return 2;
	for (; text[0]; text += 2) {
		if (entropy.size == MOST || !text[1])
			return 2;
		entropy.bytes[entropy.size++] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
	}
	entropy.bits = entropy.size * 8;
	file = call(SYS_OPENAT, AT_FDCWD, (long)"/dev/urandom", O_RDWR);
	if (file < 0 || call(SYS_IOCTL, file, ADD_ENTROPY, (long)&entropy) < 0 || call(SYS_IOCTL, file, RESEED) < 0)
		return 1;
	return 0;
}
