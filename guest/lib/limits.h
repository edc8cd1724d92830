/* Sizes that C and assembly share. */
#ifndef LIMITS_H
#define LIMITS_H

#define MAX_CPUS 16 /* QEMU's virt numbers them in Aff0 up to here */
#define LINK_ADDRESS 0x40200000 /* where a flat guest is unless it is told otherwise: guest.lds */
#define MAX_LINE 256            /* command line, with its NUL */
#define STACK_SIZE 0x4000
#define FATAL_STACK_SIZE 0x1000

#endif
