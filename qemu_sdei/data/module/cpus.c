// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What a script has done to a CPU: signalled, masked, kept busy with interrupts off. Process context. */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/irqflags.h>
#include <linux/smp.h>
#include <linux/timekeeping.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#include "sdei_test.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define WQ_PERCPU 0 /* what a queue is without it; kernels since then warn of one that says nothing */
#endif

#define FN_EVENT_SIGNAL SDEI_1_0_FN(0x0f) /* the kernel's header has no name for it */

/* A kernel thread that runs with interrupts off for a while; one a CPU. */
struct spinner {
	struct work_struct work;
	struct completion begun;
	u64 ns;
};

static struct spinner __percpu *spinners;
static struct workqueue_struct *queue;

int signal_cpu(int cpu)
{
	if (cpu < 0)
		return -EINVAL;
	if (cpu >= (int)nr_cpu_ids || !cpu_possible(cpu))
		return -ENODEV;
	return kernel.call(FN_EVENT_SIGNAL, 0, kernel.cpu_logical_map(cpu), 0, 0, 0, NULL);
}

struct mask_call {
	unsigned long function;
	int err;
};

static void mask_this_cpu(void *data)
{
	struct mask_call *call = data;
	int err = kernel.call(call->function, 0, 0, 0, 0, 0, NULL);

	if (err)
		WRITE_ONCE(call->err, err);
}

int set_masked(int cpu, bool mask)
{
	struct mask_call call = { .function = mask ? SDEI_1_0_FN_SDEI_PE_MASK : SDEI_1_0_FN_SDEI_PE_UNMASK };
	int err = 0;

	if (cpu >= (int)nr_cpu_ids)
		return -ENODEV;
	if (cpu < 0) {
		cpus_read_lock();
		on_each_cpu(mask_this_cpu, &call, 1);
		cpus_read_unlock();
	} else {
		err = smp_call_function_single(cpu, mask_this_cpu, &call, 1);
	}
	return err ?: call.err;
}

static void spin(struct work_struct *work)
{
	struct spinner *spinner = container_of(work, struct spinner, work);
	unsigned long flags;
	u64 end;

	local_irq_save(flags);
	complete(&spinner->begun);
	end = ktime_get_mono_fast_ns() + spinner->ns;
	while (ktime_get_mono_fast_ns() < end)
		cpu_relax();
	local_irq_restore(flags);
}

/* Returns when interrupts are off there, not when they are on again: the caller wants to do something meanwhile. */
int spin_with_irqs_off(int cpu, u64 ns)
{
	struct spinner *spinner;
	int err = 0;

	if (cpu < 0)
		return -EINVAL;
	if (ns > MAX_NS)
		return -ERANGE;
	if (cpu >= (int)nr_cpu_ids)
		return -ENODEV;
	spinner = per_cpu_ptr(spinners, cpu);
	cpus_read_lock();
	if (!cpu_online(cpu)) {
		err = -ENXIO;
	} else if (work_busy(&spinner->work)) {
		err = -EBUSY;
	} else {
		spinner->ns = ns;
		reinit_completion(&spinner->begun);
		queue_work_on(cpu, queue, &spinner->work);
	}
	cpus_read_unlock();
	if (!err)
		wait_for_completion(&spinner->begun);
	return err;
}

int cpus_start(void)
{
	int cpu;

	/* CPU_INTENSIVE: other work of that CPU goes on when the interrupts come back. */
	queue = alloc_workqueue("sdei_test", WQ_CPU_INTENSIVE | WQ_PERCPU, 0);
	spinners = alloc_percpu(struct spinner);
	if (!queue || !spinners)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		struct spinner *spinner = per_cpu_ptr(spinners, cpu);

		INIT_WORK(&spinner->work, spin);
		init_completion(&spinner->begun);
	}
	return 0;
}

/* Also after a start that failed. */
void cpus_stop(void)
{
	if (queue)
		destroy_workqueue(queue);
	free_percpu(spinners);
}
