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
#include "linux.h"

enum { MCE_KILL = 33, MCE_KILL_SET = 1, MCE_KILL_EARLY = 1 };
enum { PAGE = 4096, FAILED = 2, DIED = 7 };

static void killed(int signal, struct siginfo *info, void *context)
{
	(void)signal;
	(void)context;
	say("sigbus code=%d address=0x%x lsb=%d", (long)info->code, info->address, (long)info->lsb);
	end(DIED);
}

static const struct sigaction on_sigbus = { killed, SA_SIGINFO, NULL, 0 };

static long page_of(const char *path)
{
	long file = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS;

	if (path) {
		file = call(SYS_OPENAT, AT_FDCWD, (long)path, O_RDWR | O_CREAT, 0600);
		if (file < 0 || call(SYS_FTRUNCATE, file, PAGE) < 0)
			return -1;
		flags = MAP_SHARED;
	}
	return call(SYS_MMAP, 0, PAGE, PROT_READ | PROT_WRITE, flags, file);
}

long program(uint64_t *stack)
{
	const struct timespec pause = { 0, 10000000 };
	const char *path = NULL;
	bool still = false;
	volatile uint64_t *page;
	long address;
	uint64_t n;

	for (n = 1; n < stack[0]; n++) {
		const char *word = (const char *)stack[1 + n];

		if (same(word, "early"))
			call(SYS_PRCTL, MCE_KILL, MCE_KILL_SET, MCE_KILL_EARLY);
		else if (same(word, "still"))
			still = true;
		else if (behind(word, "file="))
			path = behind(word, "file=");
	}
	address = page_of(path);
	if (failed(address))
		return FAILED;
	page = (volatile uint64_t *)address;
	*page = 0x5ca1ab1e;
	call(SYS_SIGACTION, SIGBUS, (long)&on_sigbus, 0, sizeof(on_sigbus.mask));
	say("ready pid=%u virtual=0x%x", (uint64_t)call(SYS_GETPID), (uint64_t)address);
	for (;;) {
		call(SYS_NANOSLEEP, (long)&pause);
		if (!still)
			(void)*page;
	}
}
