// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Prints what events interrupted, in process context: a handler has interrupted anything, the console's owner too. The
 * handler raises an interrupt on its own CPU (irq_work), that queues work, and the work follows the rings.
 */
#include <linux/cpumask.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#include "sdei_test.h"

/* The queue that is bound to no CPU; its former name makes kernels since then warn. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define QUEUE system_unbound_wq
#else
#define QUEUE system_dfl_wq
#endif

/* How far printing has come on a CPU. */
struct printer {
	struct irq_work irq;
	u32 next; /* record */
	u32 dumps; /* that were printed or lost */
};

u64 dumps_printed, dumps_lost;
static struct printer __percpu *printers;
static struct record *record; /* too large for a stack; the work's own */

static void print_words(const char *title, const u64 *words, int n)
{
	char line[4 * 17 + 1];
	int i, j, len;

	for (i = 0; i < n; i += 4) {
		for (j = i, len = 0; j < n && j < i + 4; j++)
			len += scnprintf(line + len, sizeof(line) - len, " %016llx", words[j]);
		pr_info("%-8s%s\n", i ? "" : title, line);
	}
}

static void print_record(int cpu)
{
	pr_info("=========== SDEI Event (CPU#%d) ===========\n", cpu);
	pr_info("Event: %016x  Parameter: %016llx\n", record->event, record->parameter);
	pr_info("PC:    %016llx  PSTATE: %016llx  SP: %016llx\n", record->pc, record->pstate, record->sp);
	print_words("Regs:", record->regs, NR_REGS);
	print_words("Context:", record->context, NR_CONTEXT);
}

static void print_cpu(int cpu)
{
	struct printer *printer = per_cpu_ptr(printers, cpu);

	for (;;) {
		u32 head = ring_head(cpu);

		if (head - printer->next > nr_records)
			printer->next = head - nr_records; /* what was before is overwritten */
		if (printer->next == head)
			return;
		switch (ring_get(cpu, printer->next, record)) {
		case PLACE_BEING_WRITTEN:
			return; /* its handler raises the interrupt again */
		case PLACE_REUSED:
			break;
		case PLACE_COMPLETE:
			WRITE_ONCE(dumps_lost, dumps_lost + record->dumps - record->dump - printer->dumps);
			printer->dumps = record->dumps;
			if (record->dump) {
				print_record(cpu);
				WRITE_ONCE(dumps_printed, dumps_printed + 1);
			}
		}
		printer->next++;
		cond_resched();
	}
}

static void print_all(struct work_struct *unused)
{
	int cpu;

	for_each_possible_cpu(cpu)
		print_cpu(cpu);
}
static DECLARE_WORK(print_work, print_all);

static void on_irq(struct irq_work *unused)
{
	queue_work(QUEUE, &print_work);
}

/* In NMI context. */
void dump_soon(void)
{
	irq_work_queue(&this_cpu_ptr(printers)->irq);
}
NOKPROBE_SYMBOL(dump_soon);

/* Returns when everything that arrived before is printed. */
void dump_flush(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		irq_work_sync(&per_cpu_ptr(printers, cpu)->irq);
	queue_work(QUEUE, &print_work); /* also records that are not to be printed, for the count of the lost */
	flush_work(&print_work);
}

int dump_start(void)
{
	int cpu;

	printers = alloc_percpu(struct printer);
	record = kmalloc(sizeof(*record), GFP_KERNEL);
	if (!printers || !record)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		init_irq_work(&per_cpu_ptr(printers, cpu)->irq, on_irq);
	return 0;
}

/* Also after a start that failed. No event arrives any more. */
void dump_stop(void)
{
	if (printers && record)
		dump_flush();
	free_percpu(printers);
	kfree(record);
}
