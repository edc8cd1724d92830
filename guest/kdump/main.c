/*
 * The crash path's two ends, for our own initramfs: `kdump load` puts a capture kernel in place, and in that kernel
 * `kdump copy` takes the memory of the one that crashed to a disk. The last line that it prints says how it went.
 */
#include "linux.h"

int run(int argc, char **argv);

int run(int argc, char **argv)
{
	if (argc == 2 && same(argv[1], "load"))
		return load();
	if (argc == 2 && same(argv[1], "copy"))
		return copy();
	say("usage: kdump load | copy");
	return 2;
}
