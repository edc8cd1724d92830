/* The inner side of harness.c, for support.c. */
#ifndef HARNESS_H
#define HARNESS_H

#include "conformance.h"

#define HOST_US 5000000ul  /* for the host's answer */

struct scenario {
	unsigned number;
	const char *group, *name, *source, *elsewhere;
	void (*run)(void);
	unsigned flags;
};

extern const struct scenario *current;
extern volatile bool failed;
/* Ends the scenario, unless this is a handler or another CPU. */
void leave(void);
/* On CPU 0, whatever it was at. */
void leave_scenario(void) __attribute__((noreturn));
/* A scenario runs: not yet, or no longer, what is before and behind it. */
bool in_scenario(void);
void log_clear(void);
void note_call(const char *file, int line, unsigned cpu, u64 expected, u64 got, const u64 *call);
void note_value(const char *file, int line, const char *what, u64 expected, u64 got);
void note_exception(u64 vector, u64 esr, u64 elr, u64 far);
/* The scenario failed, where it cannot go on: this CPU leaves it. Behind the scenario the guest ends. */
void give_up(const char *what, u64 value) __attribute__((noreturn));
/* Nothing can be trusted any more: the scenario has failed, the guest ends. */
void bail_out(const char *what, u64 value) __attribute__((noreturn));
/* The scenario failed with `subject`: keeps the first such failure, and has the host look at its trace. */
void kind_failed(void);
void forget_failure(void);
void print_failure(void);
void log_entry(unsigned cpu, u64 event, u64 argument, u64 pc);

extern unsigned handler_depth[MAX_CPUS];
void trigger_setup(bool console);
/* Takes the answers that a scenario which failed left. */
void host_forget(void);
void conformance_setup(bool present, bool console, u64 watchdog_seconds);
/* From behind scenario `after`; or from it, behind its kind number `kind` (-1: none). */
void conformance_run(const char *filter, u64 after, int kind);

/* recover.c */
#define IDLE 0xff /* ICC_RPR_EL1 */

void recover_setup(u64 watchdog_seconds);
void recover_begin(void);
void recover(void) __attribute__((noreturn));
void recover_entry(void); /* entry.S: as where COMPLETE_AND_RESUME goes */
void end_interrupts(void);
void watchdog_arm(void);
/* A parked CPU took this interrupt. */
void watchdog_look(u64 intid);
void restart_worker(unsigned cpu) __attribute__((noreturn));
void enter_worker(unsigned cpu) __attribute__((noreturn)); /* entry.S: worker_again on this CPU's empty stack */

void worker(unsigned cpu);
void wait_workers(void);
void _start_secondary(void);
u64 psci_cpu_on(unsigned cpu); /* CPU_ON; its code */
bool cpu_is_up(unsigned cpu);
bool cpu_is_busy(unsigned cpu);

#endif
