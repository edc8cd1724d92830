/* Calls to the firmware (SMCCC 1.1: x0..x3 may change, all else is preserved). */
#ifndef SMCCC_H
#define SMCCC_H

#include <stdint.h>

typedef uint64_t u64;

#define NZCV_MASK 0xf0000000ul

/* All that a call can pass and change. smccc.S knows the offsets. */
struct regs {
	u64 x[31];
	u64 sp; /* smccc_full: out; sdei_entry: the interrupted one */
	u64 nzcv;
	u64 sp_before; /* smccc_full: SP at the call, to compare with `sp` */
};

/* 1: HVC, 0: SMC. From the command line (conduit=hvc). */
extern u64 conduit_hvc;

/* One call; returns x0. */
u64 smccc(u64 function, u64 x1, u64 x2, u64 x3, u64 x4, u64 x5);

/* One call with all of x0..x30 and NZCV from `regs` and back to it. */
void smccc_full(struct regs *regs);

/* Address behind the conduit instruction of smccc_full: the PC that the firmware interrupts there. */
u64 smccc_full_return(void);

/*
 * Spins from spin_begin to spin_end with all of x0..x27 and x30 from `regs`, then stores all registers. x30 points to
 * two words: it spins until the first is not 0 or CNTVCT reaches x27, and writes CNTVCT to the second in each round, so
 * that another CPU can see that it is there. x28 and x29 are used.
 */
void spin_full(struct regs *regs);
extern const char spin_begin[], spin_end[];

#endif
