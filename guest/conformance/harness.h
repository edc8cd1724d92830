/* The inner side of harness.c, for support.c. */
#ifndef HARNESS_H
#define HARNESS_H

#include "conformance.h"

#define LIMIT_US 2000000ul /* of every wait for what must come */
#define SETTLE_US 300ul    /* for what must not come */

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
void print_failure(const struct scenario *s);
void log_clear(void);
void note_call(const char *file, int line, unsigned cpu, u64 expected, u64 got, const u64 *call);
void note_value(const char *file, int line, const char *what, u64 expected, u64 got);
/* Nothing can be trusted any more: the scenario has failed, the guest ends. */
void give_up(const char *what, u64 value) __attribute__((noreturn));
void log_entry(unsigned cpu, u64 event, u64 argument, u64 pc);

extern unsigned handler_depth[MAX_CPUS];
void conformance_setup(bool present, bool console);
void conformance_run(const char *filter, u64 after);

void worker(unsigned cpu);
void wait_workers(void);
void _start_secondary(void);
u64 start_cpu(unsigned cpu); /* CPU_ON; its code */
bool cpu_is_up(unsigned cpu);
bool cpu_is_busy(unsigned cpu);

#endif
