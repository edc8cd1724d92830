// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * What happens when an event arrives. The kernel calls on_event() in NMI context, which may have interrupted anything:
 * no lock that other code takes, no allocation, no user access, no exception, no printing.
 */
#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/panic.h>
#include <linux/ptrace.h>
#include <linux/reboot.h>
#include <linux/smp.h>
#include <linux/timekeeping.h>

#include <asm/arch_gicv3.h>

#include "sdei_test.h"

#define NO_PRIORITY 0xff /* ICC_RPR_EL1 where no interrupt is active */

struct cpu_counters __percpu *counters;
struct ring __percpu *rings;
u64 run_ns;
enum panic_when panic_when;
bool restart_next;
atomic64_t dumps_suppressed = ATOMIC64_INIT(0);
static atomic64_t dump_second = ATOMIC64_INIT(0);
static atomic_t dumps_this_second = ATOMIC_INIT(0);

static bool may_dump(u64 now)
{
	s64 second = div_u64(now, NSEC_PER_SEC), seen = atomic64_read(&dump_second);

	if (seen != second && atomic64_cmpxchg(&dump_second, seen, second) == seen)
		atomic_set(&dumps_this_second, 0);
	if (atomic_inc_return(&dumps_this_second) <= READ_ONCE(verbose))
		return true;
	atomic64_inc(&dumps_suppressed);
	return false;
}
NOKPROBE_SYMBOL(may_dump);

static void fill(struct record *record, u32 event, struct pt_regs *regs, unsigned long parameter, u64 now)
{
	int i;

	record->event = event;
	record->parameter = parameter;
	record->time = now;
	record->pc = regs->pc;
	record->pstate = regs->pstate;
	record->sp = regs->sp;
	memcpy(record->regs, regs->regs, sizeof(record->regs));
	/*
	 * 18 firmware calls, so only for what is printed. In a handler they cannot fail; but a register that holds -1
	 * looks like NOT_SUPPORTED, so do not ask for errors.
	 */
	for (i = 0; record->dump && i < NR_CONTEXT; i++)
		kernel.event_context(i, &record->context[i]);
}
NOKPROBE_SYMBOL(fill);

int on_event(u32 event, struct pt_regs *regs, void *parameter)
{
	u64 now = ktime_get_mono_fast_ns(), end = now + READ_ONCE(run_ns), position;
	struct ring *ring = this_cpu_ptr(rings);
	struct counter *counter;
	struct place *place;
	int slot = find_slot(event);
	bool dump;

	if (slot < 0)
		return slot;
	counter = &this_cpu_ptr(counters)->of[slot]; /* no event interrupts its own handler */
	WRITE_ONCE(counter->count, counter->count + 1);

	dump = may_dump(now);
	position = atomic64_fetch_add(1 + ((u64)dump << 32), &ring->position);
	place = &ring->places[(u32)position & (nr_records - 1)];
	WRITE_ONCE(place->state, 2 * (u64)(u32)position + 1);
	smp_wmb(); /* nobody takes half of this record for the one that was here before */
	place->record.number = (u32)position;
	place->record.dumps = (position >> 32) + dump;
	place->record.dump = dump;
	fill(&place->record, event, regs, (unsigned long)parameter, now);
	smp_store_release(&place->state, 2 * (u64)(u32)position + 2);
	if (dump)
		dump_soon();
	where_on_event(regs, now);

	if (!event)
		stop_if_hanging(regs);
	/* By the GIC: an interrupt that was acknowledged and not ended. */
	if (READ_ONCE(panic_when) == PANIC_NEXT ||
	    (READ_ONCE(panic_when) == PANIC_IN_IRQ && gic_read_rpr() != NO_PRIORITY))
		panic("SDEI TEST: in the handler of event 0x%x", event);
	if (READ_ONCE(restart_next))
		emergency_restart();
	while (ktime_get_mono_fast_ns() < end)
		cpu_relax();
	WRITE_ONCE(counter->returned, counter->returned + 1);
	return 0;
}
NOKPROBE_SYMBOL(on_event);

/* How many records have begun on that CPU. */
u32 ring_head(int cpu)
{
	return atomic64_read(&per_cpu_ptr(rings, cpu)->position);
}

/* Copy one record of that CPU, if it is there. */
enum place_state ring_get(int cpu, u32 number, struct record *record)
{
	struct place *place = &per_cpu_ptr(rings, cpu)->places[number & (nr_records - 1)];
	u64 state = smp_load_acquire(&place->state), complete = 2 * (u64)number + 2;

	if (state < complete)
		return PLACE_BEING_WRITTEN;
	if (state == complete) {
		*record = place->record;
		smp_rmb(); /* the copy before the second look */
		if (READ_ONCE(place->state) == complete)
			return PLACE_COMPLETE;
	}
	return PLACE_REUSED;
}

int handler_start(void)
{
	int cpu;

	counters = alloc_percpu(struct cpu_counters);
	rings = alloc_percpu(struct ring);
	if (!counters || !rings)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		struct ring *ring = per_cpu_ptr(rings, cpu);

		ring->places = kvcalloc(nr_records, sizeof(*ring->places), GFP_KERNEL);
		if (!ring->places)
			return -ENOMEM;
	}
	return 0;
}

/* Also after a start that failed. */
void handler_stop(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		if (rings)
			kvfree(per_cpu_ptr(rings, cpu)->places);
	free_percpu(rings);
	free_percpu(counters);
}
