/*
 * What the program has of Linux: system calls by their numbers (include/uapi/asm-generic/unistd.h), and the few
 * functions of a C library that it needs. Errors are negative numbers, as the kernel returns them.
 */
#ifndef KDUMP_LINUX_H
#define KDUMP_LINUX_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYS_IOCTL 29
#define SYS_OPENAT 56
#define SYS_CLOSE 57
#define SYS_LSEEK 62
#define SYS_READ 63
#define SYS_WRITE 64
#define SYS_PREAD 67
#define SYS_PWRITE 68
#define SYS_FSYNC 82
#define SYS_NANOSLEEP 101
#define SYS_KEXEC_LOAD 104
#define SYS_MUNMAP 215
#define SYS_MMAP 222

#define O_RDONLY 0
#define O_RDWR 2
#define O_DIRECT 0x10000	/* arm64's own number */
#define O_CLOEXEC 0x80000
#define SEEK_END 2
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20

#define ENOENT 2
#define EIO 5
#define ENOSYS 38

/* The largest page that an arm64 kernel is built for: what is aligned to it suits each. */
#define PAGE 0x10000ul

static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	register long x8 __asm__("x8") = number;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8) : "memory");
	return x0;
}

static inline uint64_t align_up(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) & -alignment;
}

static inline uint64_t align_down(uint64_t value, uint64_t alignment)
{
	return value & -alignment;
}

long open_file(const char *path, int flags);
void close_file(long fd);
/* As much of a file as fits into `room` bytes; how much that was, or an error. */
long read_file(const char *path, void *to, size_t room);
/* A file in memory, to be read; its size in `size`. NULL: it cannot be had, or is empty. */
const void *map_file(const char *path, size_t *size);
/* Zeroes, `size` bytes of them, aligned to the kernel's page. NULL: there is no memory. */
void *get_memory(size_t size);

/* A line to standard output, in one write: %s, %u (uint64_t), %x (uint64_t), %d (long). */
void say(const char *format, ...);
size_t length(const char *text);
bool same(const char *a, const char *b);
/* The number that `*text` begins with (of base 16: with 0x or without), which it leaves behind it. */
uint64_t number(const char **text, unsigned base);

int load(void);
int copy(void);

#endif
