// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* /proc/sdei_test: reading gives counts and newest records, writing runs one command (README.md). */
#include <linux/cpumask.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "sdei_test.h"

static void show_counter(struct seq_file *out, int cpu, u32 event, struct counter *counter)
{
	unsigned long count, returned;
	unsigned int sequence;
	struct record last;
	int i;

	do {
		sequence = read_seqcount_begin(&counter->sequence);
		count = counter->count;
		last = counter->last;
	} while (read_seqcount_retry(&counter->sequence, sequence));
	returned = READ_ONCE(counter->returned);

	seq_printf(out, "cpu %d event 0x%x count %lu returned %lu\n", cpu, event, count, returned);
	if (!count)
		return;
	seq_printf(out, "last cpu %d event 0x%x time %llu pc 0x%llx pstate 0x%llx sp 0x%llx", cpu, event, last.time,
		   last.pc, last.pstate, last.sp);
	for (i = 0; i < NR_REGS; i++)
		seq_printf(out, " x%d 0x%llx", i, last.regs[i]);
	seq_putc(out, '\n');
}

static int show(struct seq_file *out, void *unused)
{
	unsigned int slot;
	int cpu;

	mutex_lock(&slots_lock);
	seq_printf(out, "version %llu.%llu vendor 0x%llx\n", SDEI_VERSION_MAJOR(sdei_version), SDEI_VERSION_MINOR(sdei_version),
		   SDEI_VERSION_VENDOR(sdei_version));
	seq_printf(out, "run-for %u\n", run_us);
	seq_printf(out, "dumps %ld suppressed %ld\n", atomic_long_read(&dumps), atomic_long_read(&dumps_suppressed));
	for (slot = 0; slot < nr_slots; slot++)
		seq_printf(out, "event 0x%x registered %d enabled %d\n", slots[slot].event, slots[slot].registered,
			   slots[slot].enabled);
	for (slot = 0; slot < nr_slots; slot++)
		for_each_possible_cpu(cpu)
			show_counter(out, cpu, slots[slot].event, &per_cpu_ptr(counters, cpu)->of[slot]);
	mutex_unlock(&slots_lock);
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static ssize_t command_write(struct file *file, const char __user *from, size_t size, loff_t *offset)
{
	char line[64];
	int err;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, size))
		return -EFAULT;
	line[size] = '\0';

	mutex_lock(&slots_lock);
	err = run_command(line);
	mutex_unlock(&slots_lock);
	return err ?: size;
}

static const struct proc_ops proc_operations = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = command_write,
};

int proc_start(void)
{
	return proc_create("sdei_test", 0600, NULL, &proc_operations) ? 0 : -ENOMEM;
}

void proc_stop(void)
{
	remove_proc_entry("sdei_test", NULL);
}
