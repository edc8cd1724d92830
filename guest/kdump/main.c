/*
 * The crash path's two ends, for our own initramfs: `kdump load` puts a capture kernel in place, and in that kernel
 * `kdump copy` takes the memory of the one that crashed to a disk. The last line that it prints says how it went.
 */
#include "kdump.h"

long program(uint64_t *stack)
{
	char **argv = (char **)(stack + 1);
	uint64_t argc = stack[0];

	if (argc == 2 && same(argv[1], "load"))
		return load();
	if (argc == 2 && same(argv[1], "copy"))
		return copy();
	say("usage: kdump load | copy");
	return 2;
}
