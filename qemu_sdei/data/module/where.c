// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Where each CPU is: a backtrace of all of them by event 0, which arrives with interrupts off too. A handler fills in its
 * CPU's place, in NMI context; whoever asked prints it later.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/string.h>

#include "sdei_test.h"

static struct where __percpu *places; /* of the newest backtrace */
static atomic_t round = ATOMIC_INIT(0); /* counts backtraces */

/* In NMI context: the kernel's unwinder takes no lock. */
void where_fill(struct where *where, struct pt_regs *regs, u64 now)
{
	where->time = now;
	where->pc = regs->pc;
	where->pstate = regs->pstate;
	where->lr = regs->regs[30];
	where->pid = current->pid;
	memcpy(where->comm, current->comm, sizeof(where->comm));
	where->depth = user_mode(regs) ? 0 : kernel.save_stack(regs, where->stack, MAX_DEPTH, 0);
}
NOKPROBE_SYMBOL(where_fill);

/* In NMI context, for each event: if a backtrace is asked for and this CPU has not said yet where it is, it does. */
void where_on_event(struct pt_regs *regs, u64 now)
{
	struct where *where = this_cpu_ptr(places);
	int wanted = atomic_read(&round);

	if (READ_ONCE(where->round) == wanted)
		return;
	where_fill(where, regs, now);
	smp_store_release(&where->round, wanted);
}
NOKPROBE_SYMBOL(where_on_event);

static bool all_answered(int wanted)
{
	int cpu;

	for_each_online_cpu(cpu)
		if (smp_load_acquire(&per_cpu_ptr(places, cpu)->round) != wanted)
			return false;
	return true;
}

/* Event 0 to all CPUs that are online; returns when all have answered. One that has masked SDEI does not. */
int backtrace_all(void)
{
	unsigned long limit = jiffies + nsecs_to_jiffies(MAX_NS);
	int slot = find_slot(0), cpu, wanted, err = 0;

	if (slot < 0 || !slots[slot].enabled)
		return -ENOENT;
	wanted = atomic_inc_return(&round);
	cpus_read_lock();
	for_each_online_cpu(cpu)
		err = signal_cpu(cpu) ?: err;
	while (!err && !all_answered(wanted)) {
		if (time_after(jiffies, limit))
			err = -ETIMEDOUT;
		msleep(1);
	}
	cpus_read_unlock();
	return err;
}

/* Lines of one place: its head has pairs `name value`, as all that scripts read. */
void where_show(struct seq_file *out, const char *what, int cpu, const struct where *where)
{
	int i;

	seq_printf(out, "%s cpu %d time %llu pc 0x%llx pstate 0x%llx pid %d comm %*pE\n", what, cpu, where->time, where->pc,
		   where->pstate, where->pid, (int)strnlen(where->comm, sizeof(where->comm)), where->comm);
	/* Interrupted before it has made its frame, a function's caller is in no stack. */
	if (where->depth)
		seq_printf(out, "  lr 0x%llx %pS\n", where->lr, (void *)where->lr);
	for (i = 0; i < where->depth; i++)
		seq_printf(out, "  0x%lx %pS\n", where->stack[i], (void *)where->stack[i]);
}

int backtrace_show(struct seq_file *out, void *unused)
{
	int cpu, wanted = atomic_read(&round);

	if (!wanted)
		return 0;
	for_each_online_cpu(cpu) {
		struct where *where = per_cpu_ptr(places, cpu);

		if (smp_load_acquire(&where->round) == wanted)
			where_show(out, "backtrace", cpu, where);
		else
			seq_printf(out, "silent cpu %d\n", cpu);
	}
	return 0;
}

int where_start(void)
{
	places = alloc_percpu(struct where);
	return places ? 0 : -ENOMEM;
}

/* Also after a start that failed. No event arrives any more. */
void where_stop(void)
{
	free_percpu(places);
}
