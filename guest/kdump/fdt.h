/* A device tree for the capture kernel, made of the one that the running kernel was given. */
#ifndef KDUMP_FDT_H
#define KDUMP_FDT_H

#include <stddef.h>
#include <stdint.h>

/* What /chosen of the capture kernel says. */
struct chosen {
	const char *bootargs;
	uint64_t memory[2];	/* start and size: all that it may use */
	uint64_t core[2];	/* start and size of the ELF header of /proc/vmcore */
	uint64_t initrd[2];	/* start and end */
};

/*
 * `tree` of `size` bytes with that in /chosen, written to `to`; its size, or 0: it is damaged, has no /chosen, or there
 * is no room.
 */
size_t with_chosen(const void *tree, size_t size, const struct chosen *chosen, void *to, size_t room);

#endif
