/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the parts of the module share: main.c (load, unload), handler.c (events), commands.c and proc.c (scripts). */
#ifndef SDEI_TEST_H
#define SDEI_TEST_H

#include <linux/arm_sdei.h>
#include <linux/atomic.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/seqlock.h>
#include <linux/types.h>

#define MAX_EVENTS 32
#define NR_REGS 31
#define MAX_RUN_US 10000000 /* stays below the kernel's lockup and RCU stall limits */

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
};

/* An event that this module has (or had) registered; a slot is never given back, so the handler needs no lock. */
struct slot {
	u32 event;
	bool registered;
	bool enabled;
};

struct record {
	u64 time; /* ns since boot */
	u64 pc, pstate, sp;
	u64 regs[NR_REGS];
};

struct counter {
	seqcount_t sequence; /* of `last`: written by the handler only, which cannot interrupt itself for one event */
	unsigned long count, returned;
	struct record last;
};

struct cpu_counters {
	struct counter of[MAX_EVENTS];
};

/* main.c */
extern struct kernel_functions kernel;
extern u64 sdei_version;
extern unsigned int verbose;

/* handler.c */
extern struct cpu_counters __percpu *counters;
extern unsigned int run_us;
extern atomic_long_t dumps, dumps_suppressed;
int on_event(u32 event, struct pt_regs *regs, void *parameter);

/* commands.c: slots_lock must be held; 0 or a negative errno */
extern struct slot slots[MAX_EVENTS];
extern unsigned int nr_slots;
extern struct mutex slots_lock;
int find_slot(u32 event); /* needs no lock */
int register_event(u32 event);
int unregister_event(u32 event);
int set_enabled(u32 event, bool enable);
int run_command(char *line);

/* proc.c */
int proc_start(void);
void proc_stop(void);

#endif
