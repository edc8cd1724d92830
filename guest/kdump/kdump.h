/* What the two halves of the program share. */
#ifndef KDUMP_H
#define KDUMP_H

#include "linux.h"

/* The largest page that an arm64 kernel is built for: what is aligned to it suits each. */
#define PAGE 0x10000ul

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

int load(void);
int copy(void);

#endif
