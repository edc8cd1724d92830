/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the parts of the module share. main.c: load and unload; events.c: registration; handler.c: what happens when an
 * event arrives; dump.c: printing it later; cpus.c: what is done to a CPU; where.c: where each CPU is; watchdog.c: which
 * one is locked up; crash.c: a crash while CPUs hang; proc.c: the files for scripts.
 */
#ifndef SDEI_TEST_H
#define SDEI_TEST_H

#include <linux/arm_sdei.h>
#include <linux/atomic.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/types.h>

#define MAX_EVENTS 32
#define MAX_RECORDS 4096 /* per CPU */
#define MAX_NS 10000000000ULL /* that a handler or a thread may spin: below the kernel's lockup and RCU stall limits */
#define NR_REGS 31
#define MAX_DEPTH 24 /* return addresses of a stack that are kept */
#define NR_CONTEXT 18 /* EVENT_CONTEXT gives x0..x17, DEN0054 5.1.5 */

/*
 * The kernel's own SDEI functions. It exports none of them to modules, so main.c looks them up by name. All firmware
 * calls go through invoke_sdei_fn(), which knows the conduit and fails with -EIO where the firmware offers no SDEI.
 */
struct kernel_functions {
	int (*event_register)(u32 event, sdei_event_callback *callback, void *arg);
	int (*event_unregister)(u32 event);
	int (*event_enable)(u32 event);
	int (*event_disable)(u32 event);
	int (*event_context)(u32 index, u64 *value);
	int (*call)(unsigned long function, unsigned long arg0, unsigned long arg1, unsigned long arg2,
		    unsigned long arg3, unsigned long arg4, u64 *result);
	u64 (*cpu_logical_map)(unsigned int cpu);
	unsigned int (*save_stack)(struct pt_regs *regs, unsigned long *store, unsigned int size, unsigned int skip);
	/* Only for a crash; NULL where the kernel has none. */
	void (*crash_save_cpu)(struct pt_regs *regs, int cpu);
	void (*set_cpu_online)(unsigned int cpu, bool online);
};

/* An event that this module has (or had) registered; a slot is never given back, so the handler needs no lock. */
struct slot {
	u32 event;
	bool registered;
	bool enabled;
};

/* One event that arrived. */
struct record {
	u32 number; /* on this CPU, from 0 */
	u32 event;
	u32 dumps; /* how many of this CPU's records up to this one are to be printed */
	bool dump; /* this one is, so it has a context */
	u64 parameter;
	u64 time; /* ns since boot */
	u64 pc, pstate, sp;
	u64 regs[NR_REGS];
	u64 context[NR_CONTEXT];
};

/*
 * The newest records of one CPU. Only handlers on that CPU write. A critical event's interrupts a normal one's at any
 * point, so each takes its place by one atomic addition; nr_records (a power of two) places are used in turn.
 */
struct ring {
	atomic64_t position; /* low half: records begun, high half: those of them that are to be printed */
	struct place {
		u64 state; /* 2 * number + 1 while it is written, + 2 when it is complete */
		struct record record;
	} *places;
};

/* Where a CPU was when an event interrupted it. */
struct where {
	int round; /* of the backtrace that it is for */
	u64 time; /* ns since boot */
	u64 pc, pstate, lr;
	pid_t pid;
	char comm[TASK_COMM_LEN];
	unsigned int depth;
	unsigned long stack[MAX_DEPTH]; /* innermost first; none of user space */
};

enum panic_when { PANIC_NEVER, PANIC_NEXT, PANIC_IN_IRQ };

enum place_state { PLACE_COMPLETE, PLACE_BEING_WRITTEN, PLACE_REUSED };

struct counter {
	u64 count, returned; /* handlers that began, and that ended */
};

struct cpu_counters {
	struct counter of[MAX_EVENTS];
};

/* main.c */
extern struct kernel_functions kernel;
extern u64 sdei_version;
extern unsigned int verbose, nr_records;

/* handler.c */
extern struct cpu_counters __percpu *counters;
extern struct ring __percpu *rings;
extern u64 run_ns;
extern enum panic_when panic_when;
extern bool restart_next;
extern atomic64_t dumps_suppressed;
int handler_start(void);
void handler_stop(void);
int on_event(u32 event, struct pt_regs *regs, void *parameter);
u32 ring_head(int cpu);
enum place_state ring_get(int cpu, u32 number, struct record *record);

/* dump.c */
extern u64 dumps_printed, dumps_lost;
int dump_start(void);
void dump_stop(void);
void dump_soon(void); /* in NMI context */
void dump_flush(void);

/* events.c: events_lock must be held; 0 or a negative errno */
extern struct slot slots[MAX_EVENTS];
extern unsigned int nr_slots;
extern struct mutex events_lock;
int find_slot(u32 event); /* needs no lock */
int register_event(u32 event);
int unregister_event(u32 event);
int set_enabled(u32 event, bool enable);
int route_event(u32 event, int cpu); /* cpu < 0: any */
int describe_event(u32 event, char *answer, size_t size);

/* cpus.c: 0 or a negative errno; cpu < 0 means all that are online */
int cpus_start(void);
void cpus_stop(void);
int signal_cpu(int cpu);
int set_masked(int cpu, bool mask);
int spin_with_irqs_off(int cpu, u64 ns);

/* crash.c: 0 or a negative errno */
int crash_start(void);
void crash_stop(void);
int hang_cpu(int cpu, bool in_interrupt);
int crash(const char *how);
void stop_if_hanging(struct pt_regs *regs);

/* where.c: 0 or a negative errno */
struct seq_file;
int where_start(void);
void where_stop(void);
void where_fill(struct where *where, struct pt_regs *regs, u64 now); /* in NMI context */
void where_on_event(struct pt_regs *regs, u64 now); /* in NMI context */
int backtrace_all(void);
void where_show(struct seq_file *out, const char *what, int cpu, const struct where *where);
int backtrace_show(struct seq_file *out, void *unused);

/* watchdog.c: events_lock must be held; 0 or a negative errno */
int watchdog_init(void);
void watchdog_exit(void);
int watchdog_start(u64 ms, bool and_panic);
int watchdog_stop(void);
int lockups_show(struct seq_file *out, void *unused);

/* proc.c */
int proc_start(void);
void proc_stop(void);

#endif
