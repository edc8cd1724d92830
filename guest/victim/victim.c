/*
 * A process whose memory is to fail: it has one page, says where, touches it again and again, and says which SIGBUS comes
 * of that. A program for Linux without a C library, because the initramfs has none.
 *
 *     victim [early] [still] [file=PATH]
 *
 * early: it wants to be told at once (PR_MCE_KILL_EARLY). still: it touches the page no more. file: the page is that of a
 * file, shared, and not anonymous memory.
 *
 *     ready pid=123 virtual=0xffff80001000
 *     sigbus code=4 address=0xffff80001000 lsb=12
 */
#include <stddef.h>
#include <stdint.h>

enum { OPENAT = 56, WRITE = 64, EXIT_GROUP = 94, NANOSLEEP = 101, SIGACTION = 134, PRCTL = 167, GETPID = 172, MMAP = 222 };
enum { FTRUNCATE = 46 };
enum { AT_FDCWD = -100, CREATE_READ_WRITE = 0102, READ_WRITE = 3, SHARED = 1, PRIVATE_ANONYMOUS = 0x22 };
enum { SIGBUS = 7, SA_SIGINFO = 4, MCE_KILL = 33, MCE_KILL_SET = 1, MCE_KILL_EARLY = 1 };
enum { PAGE = 4096, FAILED = 2, DIED = 7 };

struct siginfo {
	int signal, error, code, padding;
	uint64_t address;
	int16_t lsb;
};

struct action {
	void (*handler)(int signal, struct siginfo *info, void *context);
	uint64_t flags;
	void *restorer;
	uint64_t mask;
};

static long call(long number, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = 0;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

/* A line, written at once: several words with a number behind each. */
struct line {
	char text[120];
	size_t length;
};

static void put(struct line *line, const char *text)
{
	while (*text && line->length < sizeof(line->text))
		line->text[line->length++] = *text++;
}

static void number(struct line *line, uint64_t value, unsigned int base)
{
	char digits[24];
	int at = sizeof(digits) - 1;

	digits[at] = 0;
	do
		digits[--at] = "0123456789abcdef"[value % base];
	while (value /= base);
	put(line, digits + at);
}

static void say(struct line *line)
{
	put(line, "\n");
	call(WRITE, 1, (long)line->text, (long)line->length, 0, 0);
}

static void killed(int signal, struct siginfo *info, void *context)
{
	struct line line;

	(void)signal;
	(void)context;
	line.length = 0;
	put(&line, "sigbus code=");
	number(&line, (uint64_t)info->code, 10);
	put(&line, " address=0x");
	number(&line, info->address, 16);
	put(&line, " lsb=");
	number(&line, (uint64_t)info->lsb, 10);
	say(&line);
	call(EXIT_GROUP, DIED, 0, 0, 0, 0);
}

static struct action on_sigbus = { killed, SA_SIGINFO, NULL, 0 };

/* Whether `text` begins with `word`; what follows it goes into `*rest`. */
static int begins(const char *text, const char *word, const char **rest)
{
	while (*word)
		if (*text++ != *word++)
			return 0;
	*rest = text;
	return 1;
}

static long page_of(const char *path)
{
	long file = -1, flags = PRIVATE_ANONYMOUS;

	if (path) {
		file = call(OPENAT, AT_FDCWD, (long)path, CREATE_READ_WRITE, 0600, 0);
		if (file < 0 || call(FTRUNCATE, file, PAGE, 0, 0, 0) < 0)
			return -1;
		flags = SHARED;
	}
	/* The sixth argument, the offset in the file, is 0. */
	return call(MMAP, 0, PAGE, READ_WRITE, flags, file);
}

void victim(uint64_t *stack)
{
	const struct { int64_t seconds, nanoseconds; } pause = { 0, 10000000 };
	const char *path = NULL, *rest;
	int still = 0;
	struct line line;
	volatile uint64_t *page;
	long address;
	uint64_t n;

	for (n = 1; n < stack[0]; n++) {
		const char *word = (const char *)stack[1 + n];

		if (begins(word, "early", &rest))
			call(PRCTL, MCE_KILL, MCE_KILL_SET, MCE_KILL_EARLY, 0, 0);
		else if (begins(word, "still", &rest))
			still = 1;
		else if (begins(word, "file=", &rest))
			path = rest;
	}
	address = page_of(path);
	if (address < 0 && address > -PAGE)
		call(EXIT_GROUP, FAILED, 0, 0, 0, 0);
	page = (volatile uint64_t *)address;
	*page = 0x5ca1ab1e;
	call(SIGACTION, SIGBUS, (long)&on_sigbus, 0, sizeof(on_sigbus.mask), 0);
	line.length = 0;
	put(&line, "ready pid=");
	number(&line, (uint64_t)call(GETPID, 0, 0, 0, 0, 0), 10);
	put(&line, " virtual=0x");
	number(&line, (uint64_t)address, 16);
	say(&line);
	for (;;) {
		call(NANOSLEEP, (long)&pause, 0, 0, 0, 0);
		if (!still)
			(void)*page;
	}
}
