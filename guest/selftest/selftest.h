/* What the steps (main.c) and the signalling step (signal.c) share. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include "guest.h"

#define EVENT 0u
#define ARGUMENT(cpu) (0x5e1f7e5700000000ul + (cpu))
#define NR_CONTEXT 18 /* x0..x17 */

struct cpu_state {
	/* what calls outside of the handler returned */
	u64 version, slots, relative, priority;
	/* by the handler, in its last run */
	volatile u64 runs;
	struct regs entry;
	u64 context[NR_CONTEXT];
	u64 status, context_18;
	u64 daif, spsel, el;
	u64 irqs_in_handler;
	/* for spin_full: leave, heartbeat */
	volatile u64 spin[2];
};

extern struct cpu_state cpus[MAX_CPUS];

/* CPU 0 signals itself and checks all that it sees. */
void signal_self(void);
/* This CPU waits for CPU 0's signal and checks all that it sees. */
void signal_wait(void);
/* CPU 0 signals `target`, which is in signal_wait. */
void signal_other(unsigned target);

#endif
