/* What the agent has of Linux: system calls by number, for it has no C library. Errors are negative numbers. */
#ifndef AGENT_LINUX_H
#define AGENT_LINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SYS_DUP3 = 24, SYS_FCNTL = 25, SYS_IOCTL = 29, SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_PIPE2 = 59, SYS_READ = 63,
	SYS_WRITE = 64, SYS_PPOLL = 73, SYS_EXIT_GROUP = 94, SYS_CLOCK_GETTIME = 113, SYS_KILL = 129, SYS_SIGACTION = 134,
	SYS_SIGPROCMASK = 135, SYS_SETSID = 157, SYS_GETPID = 172, SYS_CLONE = 220, SYS_EXECVE = 221, SYS_WAIT4 = 260,
};
enum { AT_FDCWD = -100, O_RDWR = 2, O_NOCTTY = 0400, O_NONBLOCK = 04000, O_ASYNC = 020000, O_CLOEXEC = 02000000 };
enum { F_SETFL = 4, F_SETOWN = 8 };
enum { EINTR = 4, EIO = 5, EAGAIN = 11 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
enum { SIGHUP = 1, SIGKILL = 9, SIGPIPE = 13, SIGCHLD = 17, SIGIO = 29 };
enum { WNOHANG = 1, CLOCK_MONOTONIC = 1, SIG_SETMASK = 2 };
enum { TIOCSCTTY = 0x540e, TIOCSWINSZ = 0x5414, TIOCGPTN = (int)0x80045430, TIOCSPTLCK = 0x40045431 };

struct pollfd {
	int fd;
	short events, revents;
};

struct timespec {
	int64_t seconds, nanoseconds;
};

struct sigaction {
	void (*handler)(int signal);
	uint64_t flags;
	void *restorer;
	uint64_t mask;
};

struct winsize {
	uint16_t rows, columns, x, y;
};

static inline long call(long number, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}

static inline long read_fd(int fd, void *to, size_t room)
{
	return call(SYS_READ, fd, (long)to, (long)room, 0, 0);
}

static inline long write_fd(int fd, const void *from, size_t size)
{
	return call(SYS_WRITE, fd, (long)from, (long)size, 0, 0);
}

static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		call(SYS_CLOSE, *fd, 0, 0, 0, 0);
	*fd = -1;
}

/* The compiler calls these. */
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#endif
