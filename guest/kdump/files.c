/* Files and memory, as a whole. */
#include "kdump.h"

long open_file(const char *path, int flags)
{
	return call(SYS_OPENAT, AT_FDCWD, (long)path, flags | O_CLOEXEC);
}

void close_file(long fd)
{
	call(SYS_CLOSE, fd);
}

long read_file(const char *path, void *to, size_t room)
{
	long fd = open_file(path, O_RDONLY);
	size_t got = 0;

	if (fd < 0)
		return fd;
	while (got < room) {
		long n = call(SYS_READ, fd, (long)((char *)to + got), room - got);

		if (n < 0) {
			close_file(fd);
			return n;
		}
		if (!n)
			break;
		got += n;
	}
	close_file(fd);
	return got;
}

const void *map_file(const char *path, size_t *size)
{
	long fd = open_file(path, O_RDONLY);
	long end = fd < 0 ? fd : call(SYS_LSEEK, fd, 0, SEEK_END);
	long at = -1;

	if (end > 0)
		at = call(SYS_MMAP, 0, end, PROT_READ, MAP_PRIVATE, fd);
	if (fd >= 0)
		close_file(fd);
	if (failed(at))
		return NULL;
	*size = end;
	return (void *)at;
}

void *get_memory(size_t size)
{
	long at = call(SYS_MMAP, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	return failed(at) ? NULL : (void *)at;
}
