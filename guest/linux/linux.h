/*
 * What a program for arm64 Linux has without a C library: system calls by their numbers
 * (include/uapi/asm-generic/unistd.h), and the few functions that it needs. Errors are negative numbers, as the kernel
 * returns them.
 */
#ifndef LINUX_H
#define LINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SYS_DUP3 = 24, SYS_FCNTL = 25, SYS_IOCTL = 29, SYS_FTRUNCATE = 46, SYS_OPENAT = 56, SYS_CLOSE = 57,
	SYS_PIPE2 = 59, SYS_LSEEK = 62, SYS_READ = 63, SYS_WRITE = 64, SYS_PREAD = 67, SYS_PWRITE = 68, SYS_PPOLL = 73,
	SYS_FSYNC = 82, SYS_EXIT_GROUP = 94, SYS_NANOSLEEP = 101, SYS_KEXEC_LOAD = 104, SYS_CLOCK_GETTIME = 113,
	SYS_KILL = 129, SYS_SIGACTION = 134, SYS_SIGPROCMASK = 135, SYS_SETSID = 157, SYS_PRCTL = 167, SYS_GETPID = 172,
	SYS_MUNMAP = 215, SYS_CLONE = 220, SYS_EXECVE = 221, SYS_MMAP = 222, SYS_WAIT4 = 260,
};
/* O_DIRECT is arm64's own number. */
enum {
	AT_FDCWD = -100, O_RDONLY = 0, O_RDWR = 2, O_CREAT = 0100, O_NOCTTY = 0400, O_NONBLOCK = 04000, O_ASYNC = 020000,
	O_DIRECT = 0200000, O_CLOEXEC = 02000000,
};
enum { F_SETFL = 4, F_SETOWN = 8, SEEK_END = 2 };
enum { ENOENT = 2, EINTR = 4, EIO = 5, EAGAIN = 11, ENOSYS = 38, MOST_ERRNO = 4095 };
enum { POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
enum { PROT_READ = 1, PROT_WRITE = 2, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
enum { SIGHUP = 1, SIGBUS = 7, SIGKILL = 9, SIGPIPE = 13, SIGCHLD = 17, SIGIO = 29, SA_SIGINFO = 4 };
enum { WNOHANG = 1, CLOCK_MONOTONIC = 1, SIG_SETMASK = 2 };
enum { TIOCSCTTY = 0x540e, TIOCSWINSZ = 0x5414, TIOCGPTN = (int)0x80045430, TIOCSPTLCK = 0x40045431 };

struct pollfd {
	int fd;
	short events, revents;
};

struct timespec {
	int64_t seconds, nanoseconds;
};

struct siginfo {
	int signal, error, code, padding;
	uint64_t address;
	int16_t lsb;
};

/* With SA_SIGINFO the handler gets more: struct siginfo * and the context. */
struct sigaction {
	void (*handler)(int signal, struct siginfo *info, void *context);
	uint64_t flags;
	void *restorer;
	uint64_t mask;
};

struct winsize {
	uint16_t rows, columns, x, y;
};

static inline long linux_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

/* A system call: its number and up to six arguments; those that are left out are 0. */
#define call(...) call_of_six(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define call_of_six(number, a, b, c, d, e, f, ...) linux_call(number, a, b, c, d, e, f)

/* Whether what mmap(2) returned is an error. */
static inline bool failed(long result)
{
	return result < 0 && result >= -MOST_ERRNO;
}

static inline long read_fd(int fd, void *to, size_t room)
{
	return call(SYS_READ, fd, (long)to, (long)room);
}

static inline long write_fd(int fd, const void *from, size_t size)
{
	return call(SYS_WRITE, fd, (long)from, (long)size);
}

static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		call(SYS_CLOSE, *fd);
	*fd = -1;
}

static inline _Noreturn void end(long status)
{
	call(SYS_EXIT_GROUP, status);
	__builtin_unreachable();
}

/* What each program has: `stack` points to argc, argv and the environment. Its result is the exit status. */
long program(uint64_t *stack);

/* The compiler calls these. */
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

/* A line to standard output, in one write: %s, %u (uint64_t), %x (uint64_t), %d (long). */
void say(const char *format, ...);
size_t length(const char *text);
bool same(const char *a, const char *b);
/* Whether `text` begins with `word`: what follows it; else NULL. */
const char *behind(const char *text, const char *word);
/* The number that `*text` begins with (of base 16: with 0x or without), which it leaves behind it. */
uint64_t number(const char **text, unsigned base);

#endif
