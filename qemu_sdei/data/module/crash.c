// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A crash while CPUs hang with interrupts masked: event 0 stops them, and each leaves the event in a way that is chosen.
 * For kernels that have no such stop of their own.
 */
#include <linux/arm-smccc.h>
#include <linux/cpu.h>
#include <linux/irqflags.h>
#include <linux/kprobes.h>
#include <linux/panic.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include <asm/arch_gicv3.h>
#include <asm/barrier.h>
#include <uapi/linux/psci.h>

#include "sdei_test.h"

#define WAIT_NS 10000000000ULL /* for CPUs to hang, or to be stopped: the host may be busy */
#define OFF_STATE 0x10000 /* CPU_OFF had an argument before PSCI 0.2: power down */

enum ending { NO_ENDING, STAY, OFF_INSIDE, ABORT_STAY, ABORT_OFF, COMPLETE_OFF };

static const char *const endings[] = {
	[STAY] = "stay",
	[OFF_INSIDE] = "off",
	[ABORT_STAY] = "abort-stay",
	[ABORT_OFF] = "abort-off",
	[COMPLETE_OFF] = "complete-off",
};

static enum ending ending;
static struct cpumask hanging, stopped;
static struct work_struct __percpu *works;

static void __noreturn stay(void)
{
	/* Else what is pending for it, and masked, would end each WFI at once: on an emulator that is a host's core. */
	gic_write_grpen1(0);
	isb();
	for (;;) {
		wfe();
		wfi();
	}
}
NOKPROBE_SYMBOL(stay);

static void __noreturn go_off(void)
{
	struct arm_smccc_res res;

	arm_smccc_1_1_invoke(PSCI_0_2_FN_CPU_OFF, OFF_STATE, 0, 0, &res);
	stay(); /* it was refused */
}
NOKPROBE_SYMBOL(go_off);

/* Where a CPU goes on whose event was completed: on the handler's stack, with everything masked. */
static void __noreturn pad(void)
{
	if (READ_ONCE(ending) == ABORT_OFF)
		go_off();
	stay();
}
NOKPROBE_SYMBOL(pad);

/* In the handler of event 0. Returns if the event is to be completed. */
void stop_if_hanging(struct pt_regs *regs)
{
	enum ending how = READ_ONCE(ending);
	int cpu = smp_processor_id();

	if (how == NO_ENDING || !cpumask_test_cpu(cpu, &hanging))
		return;
	/* As Linux' own stop: its registers go into the dump, nobody waits for it, and it takes no more events. */
	if (kernel.crash_save_cpu)
		kernel.crash_save_cpu(regs, cpu);
	if (kernel.set_cpu_online)
		kernel.set_cpu_online(cpu, false);
	kernel.call(SDEI_1_0_FN_SDEI_PE_MASK, 0, 0, 0, 0, 0, NULL);
	cpumask_set_cpu(cpu, &stopped);
	if (how == COMPLETE_OFF)
		return; /* to hang() */
	if (how == OFF_INSIDE)
		go_off();
	if (how == ABORT_STAY || how == ABORT_OFF)
		kernel.call(SDEI_1_0_FN_SDEI_EVENT_COMPLETE_AND_RESUME, (unsigned long)pad, 0, 0, 0, 0, NULL);
	stay();
}
NOKPROBE_SYMBOL(stop_if_hanging);

/* Interrupts are masked: as by a lock that is never given back, or in an interrupt's handler. */
static void hang(void)
{
	int cpu = smp_processor_id();

	cpumask_set_cpu(cpu, &hanging);
	while (READ_ONCE(ending) != COMPLETE_OFF || !cpumask_test_cpu(cpu, &stopped))
		cpu_relax();
	go_off();
}

static void hang_in_thread(struct work_struct *work)
{
	local_irq_disable();
	hang();
}

static void hang_in_interrupt(void *unused)
{
	hang();
}

static bool wait_for(const struct cpumask *all, const struct cpumask *some)
{
	u64 end = ktime_get_mono_fast_ns() + WAIT_NS;

	while (!cpumask_subset(all, some))
		if (ktime_get_mono_fast_ns() > end)
			return false;
		else
			cpu_relax();
	return true;
}

/* Have a CPU hang for good: in a kernel thread, or in the handler of an interrupt. Returns once it does. */
int hang_cpu(int cpu, bool in_interrupt)
{
	int err = 0, self;

	if (cpu < 0)
		return -EINVAL;
	if (cpu >= (int)nr_cpu_ids)
		return -ENODEV;
	cpus_read_lock();
	self = get_cpu();
	if (!cpu_online(cpu))
		err = -ENXIO;
	else if (cpu == self || cpumask_test_cpu(cpu, &hanging))
		err = -EBUSY;
	else if (in_interrupt)
		err = smp_call_function_single(cpu, hang_in_interrupt, NULL, 0);
	else
		schedule_work_on(cpu, per_cpu_ptr(works, cpu));
	put_cpu();
	cpus_read_unlock();
	if (err)
		return err;
	return wait_for(cpumask_of(cpu), &hanging) ? 0 : -ETIMEDOUT;
}

/* Panic; before it, event 0 stops the CPUs that hang, in the way that `how` names. Returns if it names none. */
int crash(const char *how)
{
	enum ending found;
	int cpu;

	for (found = STAY; found < ARRAY_SIZE(endings) && strcmp(endings[found], how); found++)
		;
	if (found == ARRAY_SIZE(endings))
		return -EINVAL;
	preempt_disable();
	WRITE_ONCE(ending, found);
	smp_wmb();
	for_each_cpu(cpu, &hanging)
		signal_cpu(cpu);
	if (!wait_for(&hanging, &stopped))
		pr_crit("SDEI TEST: of CPUs %*pbl that hang, %*pbl were stopped\n", cpumask_pr_args(&hanging),
			cpumask_pr_args(&stopped));
	panic("SDEI TEST: crash %s", how);
}

int crash_start(void)
{
	int cpu;

	works = alloc_percpu(struct work_struct);
	if (!works)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		INIT_WORK(per_cpu_ptr(works, cpu), hang_in_thread);
	return 0;
}

/* Also after a start that failed. A CPU that hangs for good keeps the module. */
void crash_stop(void)
{
	free_percpu(works);
}
