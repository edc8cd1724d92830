/*
 * Gives the kernel new random numbers, and has it use them at once: a guest that goes on from a file would otherwise have
 * the same as each other one from that file. A program for Linux without a C library, because the initramfs has none.
 *
 *     reseed HEX
 *
 * HEX: up to 64 bytes, two digits each. Exit status: 0; 1: the kernel does not take them; 2: no such argument.
 */
#include <stddef.h>
#include <stdint.h>

enum { IOCTL = 29, OPENAT = 56, EXIT_GROUP = 94 };
enum { AT_FDCWD = -100, READ_WRITE = 2, MOST = 64 };
/* Requests of random(4). */
enum { ADD_ENTROPY = 0x40085203, RESEED = 0x5207 };

static long call(long number, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}

static void end(long status)
{
	call(EXIT_GROUP, status, 0, 0, 0);
	__builtin_unreachable();
}

static uint8_t digit(char text)
{
	if (text >= '0' && text <= '9')
		return (uint8_t)(text - '0');
	if (text < 'a' || text > 'f')
		end(2);
	return (uint8_t)(text - 'a' + 10);
}

void reseed(uint64_t *stack)
{
	static struct { int bits, size; uint8_t bytes[MOST]; } entropy;
	const char *text = (const char *)stack[2];
	long file;

	if (stack[0] != 2)
		end(2);
	for (; text[0]; text += 2) {
		if (entropy.size == MOST || !text[1])
			end(2);
		entropy.bytes[entropy.size++] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
	}
	entropy.bits = entropy.size * 8;
	file = call(OPENAT, AT_FDCWD, (long)"/dev/urandom", READ_WRITE, 0);
	if (file < 0 || call(IOCTL, file, ADD_ENTROPY, (long)&entropy, 0) < 0 || call(IOCTL, file, RESEED, 0, 0) < 0)
		end(1);
	end(0);
}
