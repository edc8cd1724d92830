// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A hard-lockup detector: the timer of each CPU that Linux leaves alone is bound to an SDEI event, so it comes where
 * interrupts are off. Each time the handler asks for an interrupt on its own CPU (irq_work); if that has not come for as
 * long as was said, the CPU is locked up, and is where the handler's registers say.
 */
#include <linux/cpuhotplug.h>
#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/math64.h>
#include <linux/panic.h>
#include <linux/printk.h>
#include <linux/ptrace.h>
#include <linux/seq_file.h>
#include <linux/timekeeping.h>

#include <asm/sysreg.h>
#include <asm/virt.h>

#include "sdei_test.h"

#define FN_INTERRUPT_BIND SDEI_1_0_FN(0x0d) /* the kernel's header has no names for these */
#define FN_INTERRUPT_RELEASE SDEI_1_0_FN(0x0e)
#define TIMER 30 /* the EL1 physical timer's INTID, by the Base System Architecture; a kernel at EL1 uses the virtual one */
#define TICKS 4 /* until a CPU that takes no interrupt is locked up */

/* One CPU's. Only its handler writes, but for `fed`. */
struct watch {
	struct irq_work irq;
	bool fed; /* an interrupt came since the last tick */
	unsigned int missed; /* ticks in a row that it did not */
	u64 ticks, lockups;
	u64 state; /* 2 * lockups + 1 while `where` is written */
	struct where where; /* of the newest lockup */
};

static struct watch __percpu *watches;
static u32 event; /* what the timer is bound to */
static bool bound, panics;
static u64 period; /* ticks of the counter */
static int cpuhp_state;

static void on_interrupt(struct irq_work *unused)
{
	WRITE_ONCE(this_cpu_ptr(watches)->fed, true);
}

static void arm(void)
{
	write_sysreg(read_sysreg(cntpct_el0) + READ_ONCE(period), cntp_cval_el0);
	write_sysreg(1, cntp_ctl_el0);
	isb();
}
NOKPROBE_SYMBOL(arm);

static void locked_up(struct watch *watch, struct pt_regs *regs)
{
	u64 number = watch->lockups + 1;

	WRITE_ONCE(watch->state, 2 * number - 1);
	smp_wmb();
	where_fill(&watch->where, regs, ktime_get_mono_fast_ns());
	smp_store_release(&watch->state, 2 * number);
	WRITE_ONCE(watch->lockups, number);
	/* The kernel's log takes lines in an NMI; they are read there by other CPUs, and on the console later. */
	if (READ_ONCE(panics))
		panic("SDEI TEST: hard lockup on CPU %d: %pS", smp_processor_id(), (void *)regs->pc);
	pr_emerg("SDEI TEST: hard lockup on CPU %d: %pS\n", smp_processor_id(), (void *)regs->pc);
}
NOKPROBE_SYMBOL(locked_up);

/*
 * In NMI context. The timer's line is a level: it is armed anew before the handler completes, at its end, as the next
 * tick goes before each interrupt.
 */
static int on_tick(u32 number, struct pt_regs *regs, void *unused)
{
	struct watch *watch = this_cpu_ptr(watches);

	WRITE_ONCE(watch->ticks, watch->ticks + 1);
	if (READ_ONCE(watch->fed)) {
		WRITE_ONCE(watch->fed, false);
		watch->missed = 0;
		irq_work_queue(&watch->irq);
	} else if (interrupts_enabled(regs)) {
		watch->missed = 0;
	} else if (++watch->missed == TICKS) {
		locked_up(watch, regs);
	}
	arm();
	return 0;
}
NOKPROBE_SYMBOL(on_tick);

static int watch_this_cpu(unsigned int cpu)
{
	struct watch *watch = this_cpu_ptr(watches);

	WRITE_ONCE(watch->fed, true);
	watch->missed = 0;
	arm();
	return 0;
}

static int leave_this_cpu(unsigned int cpu)
{
	write_sysreg(0, cntp_ctl_el0);
	isb();
	irq_work_sync(&this_cpu_ptr(watches)->irq);
	return 0;
}

int watchdog_stop(void)
{
	int err;

	if (!bound)
		return -ENOENT;
	if (cpuhp_state > 0)
		cpuhp_remove_state(cpuhp_state); /* quiet on all CPUs, before the interrupt is the kernel's again */
	cpuhp_state = 0;
	err = kernel.event_disable(event) ?: kernel.event_unregister(event);
	err = err ?: kernel.call(FN_INTERRUPT_RELEASE, event, 0, 0, 0, 0, NULL);
	if (!err)
		bound = false;
	return err;
}

/* A CPU that takes no interrupt for `ms` is locked up. CPUs that come later are watched too. */
int watchdog_start(u64 ms, bool and_panic)
{
	u64 found;
	int err;

	if (ms < 4 * TICKS || ms > MAX_NS / NSEC_PER_MSEC)
		return -ERANGE;
	if (bound)
		return -EBUSY;
	if (is_kernel_in_hyp_mode())
		return -EOPNOTSUPP; /* at EL2 this timer is another one's */
	err = kernel.call(FN_INTERRUPT_BIND, TIMER, 0, 0, 0, 0, &found);
	if (err)
		return err;
	event = found;
	panics = and_panic;
	period = div_u64(ms * read_sysreg(cntfrq_el0), TICKS * MSEC_PER_SEC);
	err = kernel.event_register(event, on_tick, NULL);
	if (err) {
		kernel.call(FN_INTERRUPT_RELEASE, event, 0, 0, 0, 0, NULL);
		return err;
	}
	bound = true;
	err = kernel.event_enable(event);
	if (!err) {
		err = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "sdei_test:watchdog", watch_this_cpu, leave_this_cpu);
		cpuhp_state = max(err, 0);
		err = min(err, 0);
	}
	if (err)
		watchdog_stop();
	return err;
}

int lockups_show(struct seq_file *out, void *unused)
{
	struct where where;
	int cpu;

	if (bound)
		seq_printf(out, "watchdog event 0x%x interrupt %d panic %d\n", event, TIMER, panics);
	for_each_possible_cpu(cpu) {
		struct watch *watch = per_cpu_ptr(watches, cpu);
		u64 state = smp_load_acquire(&watch->state);

		seq_printf(out, "cpu %d ticks %llu lockups %llu\n", cpu, READ_ONCE(watch->ticks), READ_ONCE(watch->lockups));
		where = watch->where;
		smp_rmb(); /* the copy before the second look */
		if (state && !(state & 1) && READ_ONCE(watch->state) == state)
			where_show(out, "lockup", cpu, &where);
	}
	return 0;
}

int watchdog_init(void)
{
	int cpu;

	watches = alloc_percpu(struct watch);
	if (!watches)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		init_irq_work(&per_cpu_ptr(watches, cpu)->irq, on_interrupt);
	return 0;
}

/* Also after a start that failed. */
void watchdog_exit(void)
{
	watchdog_stop();
	free_percpu(watches);
}
