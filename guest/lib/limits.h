/* Sizes that C and assembly share. */
#ifndef LIMITS_H
#define LIMITS_H

#define MAX_CPUS 16 /* QEMU's virt numbers them in Aff0 up to here */
#define STACK_SIZE 0x4000
#define FATAL_STACK_SIZE 0x1000

#endif
