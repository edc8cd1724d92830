// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * What happens when an event arrives. The kernel calls on_event() in NMI context, which may have interrupted anything:
 * no lock that other code takes, no allocation, no user access, no exception.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/math64.h>
#include <linux/printk.h>
#include <linux/ptrace.h>
#include <linux/smp.h>
#include <linux/timekeeping.h>

#include "sdei_test.h"

#define NR_CONTEXT 18 /* EVENT_CONTEXT gives x0..x17, DEN0054 5.1.5 */

struct cpu_counters __percpu *counters;
unsigned int run_us;
atomic_long_t dumps = ATOMIC_LONG_INIT(0), dumps_suppressed = ATOMIC_LONG_INIT(0);
static atomic64_t dump_second = ATOMIC64_INIT(0);
static atomic_t dumps_this_second = ATOMIC_INIT(0);

static bool may_dump(u64 now)
{
	s64 second = div_u64(now, NSEC_PER_SEC), seen = atomic64_read(&dump_second);

	if (seen != second && atomic64_cmpxchg(&dump_second, seen, second) == seen)
		atomic_set(&dumps_this_second, 0);
	if (atomic_inc_return(&dumps_this_second) <= READ_ONCE(verbose))
		return true;
	atomic_long_inc(&dumps_suppressed);
	return false;
}
NOKPROBE_SYMBOL(may_dump);

/*
 * Keep dumps of several CPUs apart, as the kernel does for its NMI backtraces. The wait is bounded: the owner may be
 * a CPU that waits for a console lock held by what this event has interrupted.
 */
static bool claim_printk(void)
{
	int tries;

	for (tries = 0; tries < 20000; tries++) {
		if (__printk_cpu_sync_try_get())
			return true;
		udelay(5);
	}
	return false;
}
NOKPROBE_SYMBOL(claim_printk);

static void dump_words(const char *title, const u64 *words, int n)
{
	char line[4 * 17 + 1];
	int i, j, len;

	for (i = 0; i < n; i += 4) {
		for (j = i, len = 0; j < n && j < i + 4; j++)
			len += scnprintf(line + len, sizeof(line) - len, " %016llx", words[j]);
		pr_info("%-8s%s\n", i ? "" : title, line);
	}
}
NOKPROBE_SYMBOL(dump_words);

static void dump(u32 event, struct pt_regs *regs, unsigned long parameter)
{
	u64 context[NR_CONTEXT];
	bool claimed;
	int i;

	/* In a handler this cannot fail; but a register that holds -1 looks like NOT_SUPPORTED, so do not ask for errors. */
	for (i = 0; i < NR_CONTEXT; i++)
		kernel.event_context(i, &context[i]);

	claimed = claim_printk();
	pr_info("=========== SDEI Event (CPU#%d) ===========\n", smp_processor_id());
	pr_info("Event: %016x  Parameter: %016lx\n", event, parameter);
	pr_info("PC:    %016llx  PSTATE: %016llx  SP: %016llx\n", regs->pc, regs->pstate, regs->sp);
	dump_words("Regs:", regs->regs, NR_REGS);
	dump_words("Context:", context, NR_CONTEXT);
	if (claimed)
		__printk_cpu_sync_put();
	atomic_long_inc(&dumps);
}
NOKPROBE_SYMBOL(dump);

int on_event(u32 event, struct pt_regs *regs, void *parameter)
{
	u64 now = ktime_get_mono_fast_ns(), end = now + (u64)READ_ONCE(run_us) * NSEC_PER_USEC;
	struct counter *counter;
	int slot = find_slot(event);

	if (slot < 0)
		return slot;
	counter = &this_cpu_ptr(counters)->of[slot];

	raw_write_seqcount_begin(&counter->sequence);
	counter->count++;
	counter->last.time = now;
	counter->last.pc = regs->pc;
	counter->last.pstate = regs->pstate;
	counter->last.sp = regs->sp;
	memcpy(counter->last.regs, regs->regs, sizeof(counter->last.regs));
	raw_write_seqcount_end(&counter->sequence);

	if (may_dump(now))
		dump(event, regs, (unsigned long)parameter);
	while (ktime_get_mono_fast_ns() < end)
		udelay(50);
	WRITE_ONCE(counter->returned, counter->returned + 1);
	return 0;
}
NOKPROBE_SYMBOL(on_event);
