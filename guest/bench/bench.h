/* The modes of the bench guest, and how they count. */
#ifndef BENCH_H
#define BENCH_H

#include "guest.h"

/* Events by the words event=, private=, critical=: the one that is signalled, and static ones. */
extern u64 event_number, private_number, critical_number;
#define EVENT event_number

void mode_hot(void);
void mode_cold(void);
void mode_calls(void);
void mode_signal(void);
void mode_idle(void);
void mode_storm(void);
void mode_call(void);
void mode_hostile(void);

void mode_bound(void);
void mode_fuzz(void);
void mode_journey(void);
void mode_dirty(void);
void mode_deaf(void);
void mode_registers(void);
void mode_wedge(void);
void mode_services(void);
void mode_ready(void);

/* The other modes have no handler in C. */
u64 storm_handler(struct regs *regs);
u64 bound_handler(struct regs *regs);
u64 deaf_handler(struct regs *regs);
u64 wedge_handler(struct regs *regs);

/* trap.S: what an exception left, x0 as it was then. */
struct trap {
	u64 esr, elr, x0;
};

struct trap trapped(void (*code)(void)); /* ESR of all ones: it came back */
struct trap smc_from_el0(u64 x0);
struct trap smc_from_el1(u64 x0); /* at EL2 only */
void read_iar0(void);
void write_sgi0r(void);
u64 smc_1(u64 x0);
u64 smc_0x1234(u64 x0);
u64 smc_0xffff(u64 x0);

u64 power_down(void); /* power_down.S */

#define MAX_SAMPLES 65536

/* Samples in ns, for the median and the like. */
void sample(u64 ns);
u64 percentile(unsigned percent);
/* Runs `once` count times in batches, each batch one sample, and prints a line of figures. */
void measure(const char *name, u64 count, void (*once)(u64 context), u64 context);

/* One SDEI_VERSION; fails if the firmware has none. */
u64 sdei_version(void);
void enable_event(u64 event, void (*entry)(void), u64 argument);

#endif
