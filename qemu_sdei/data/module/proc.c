// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* /proc/sdei_test/: status and records to read, control to write commands to (README.md). */
#include <linux/cpumask.h>
#include <linux/kernel.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "sdei_test.h"

static struct proc_dir_entry *directory;
static char answer[256]; /* of the last command; events_lock */

/* ---- status ---- */

static int status_show(struct seq_file *out, void *unused)
{
	unsigned int slot;
	int cpu;

	mutex_lock(&events_lock);
	seq_printf(out, "version %llu.%llu vendor 0x%llx\n", SDEI_VERSION_MAJOR(sdei_version),
		   SDEI_VERSION_MINOR(sdei_version), SDEI_VERSION_VENDOR(sdei_version));
	seq_printf(out, "run-for %llu\n", run_ns);
	seq_printf(out, "dumps %llu suppressed %lld lost %llu\n", READ_ONCE(dumps_printed),
		   atomic64_read(&dumps_suppressed), READ_ONCE(dumps_lost));
	for (slot = 0; slot < nr_slots; slot++)
		seq_printf(out, "event 0x%x registered %d enabled %d\n", slots[slot].event, slots[slot].registered,
			   slots[slot].enabled);
	for (slot = 0; slot < nr_slots; slot++)
		for_each_possible_cpu(cpu) {
			struct counter *counter = &per_cpu_ptr(counters, cpu)->of[slot];

			seq_printf(out, "cpu %d event 0x%x count %llu returned %llu\n", cpu, slots[slot].event,
				   READ_ONCE(counter->count), READ_ONCE(counter->returned));
		}
	mutex_unlock(&events_lock);
	return 0;
}

/* ---- records: those that are there when the file is opened, CPU by CPU ---- */

struct reader {
	struct record record;
	u32 heads[]; /* by CPU */
};

static void *records_start(struct seq_file *out, loff_t *pos)
{
	return *pos < (loff_t)nr_cpu_ids * nr_records ? pos : NULL;
}

static void *records_next(struct seq_file *out, void *unused, loff_t *pos)
{
	++*pos;
	return records_start(out, pos);
}

static void records_stop(struct seq_file *out, void *unused)
{
}

static int records_show(struct seq_file *out, void *pos)
{
	struct reader *reader = out->private;
	struct record *record = &reader->record;
	u64 index = *(loff_t *)pos;
	int cpu = index / nr_records, i;
	u32 kept, offset = index % nr_records;

	kept = cpu_possible(cpu) ? min(reader->heads[cpu], nr_records) : 0;
	if (offset >= kept || ring_get(cpu, reader->heads[cpu] - kept + offset, record) != PLACE_COMPLETE)
		return SEQ_SKIP;
	seq_printf(out, "cpu %d number %u event 0x%x parameter 0x%llx time %llu pc 0x%llx pstate 0x%llx sp 0x%llx", cpu,
		   record->number, record->event, record->parameter, record->time, record->pc, record->pstate, record->sp);
	for (i = 0; i < NR_REGS; i++)
		seq_printf(out, " x%d 0x%llx", i, record->regs[i]);
	for (i = 0; record->dump && i < NR_CONTEXT; i++)
		seq_printf(out, " c%d 0x%llx", i, record->context[i]);
	seq_putc(out, '\n');
	return 0;
}

static const struct seq_operations records_operations = {
	.start = records_start,
	.next = records_next,
	.stop = records_stop,
	.show = records_show,
};

static int records_open(struct inode *inode, struct file *file)
{
	struct reader *reader;
	int cpu;

	reader = __seq_open_private(file, &records_operations, struct_size(reader, heads, nr_cpu_ids));
	if (!reader)
		return -ENOMEM;
	for_each_possible_cpu(cpu)
		reader->heads[cpu] = ring_head(cpu);
	return 0;
}

static const struct proc_ops records_file = {
	.proc_open = records_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = seq_release_private,
};

/* ---- control ---- */

static int parse_cpu(const char *text, int *cpu)
{
	return text ? kstrtoint(text, 0, cpu) ?: (*cpu < 0 ? -EINVAL : 0) : -EINVAL;
}

static int parse_ns(const char *text, u64 *ns)
{
	return text ? kstrtou64(text, 0, ns) ?: (*ns > MAX_NS ? -ERANGE : 0) : -EINVAL;
}

static int run_event_command(const char *verb, u32 event)
{
	if (!strcmp(verb, "register"))
		return register_event(event);
	if (!strcmp(verb, "unregister"))
		return unregister_event(event);
	if (!strcmp(verb, "enable"))
		return set_enabled(event, true);
	if (!strcmp(verb, "disable"))
		return set_enabled(event, false);
	if (!strcmp(verb, "info"))
		return describe_event(event, answer, sizeof(answer));
	return -EINVAL;
}

static int run_watchdog(const char *ms, const char *what)
{
	u64 value;

	if (!strcmp(ms, "off") && !what)
		return watchdog_stop();
	if (kstrtou64(ms, 0, &value) || (what && strcmp(what, "panic")))
		return -EINVAL;
	return watchdog_start(value, what);
}

static int run_command(char *line)
{
	char *words[3] = { NULL }, *word;
	int n = 0, cpu = -1, err = 0;
	u32 event;
	u64 ns;

	while ((word = strsep(&line, " \t\n")))
		if (*word) {
			if (n == ARRAY_SIZE(words))
				return -EINVAL;
			words[n++] = word;
		}
	if (!n)
		return -EINVAL;
	if (!strcmp(words[0], "flush") && n == 1) {
		dump_flush();
		return 0;
	}
	if (!strcmp(words[0], "panic") && (n == 1 || (n == 2 && !strcmp(words[1], "irq")))) {
		WRITE_ONCE(panic_when, n == 1 ? PANIC_NEXT : PANIC_IN_IRQ);
		return 0;
	}
	if (!strcmp(words[0], "restart") && n == 1) {
		WRITE_ONCE(restart_next, true);
		return 0;
	}
	if (!strcmp(words[0], "backtrace") && n == 1)
		return backtrace_all();
	if (!strcmp(words[0], "watchdog") && n >= 2)
		return run_watchdog(words[1], words[2]);
	if ((!strcmp(words[0], "mask") || !strcmp(words[0], "unmask")) && n <= 2) {
		if (n == 2)
			err = parse_cpu(words[1], &cpu);
		return err ?: set_masked(cpu, *words[0] == 'm');
	}
	if (!strcmp(words[0], "signal") && n == 2)
		return parse_cpu(words[1], &cpu) ?: signal_cpu(cpu);
	if (!strcmp(words[0], "irqs-off") && n == 3)
		return parse_cpu(words[1], &cpu) ?: parse_ns(words[2], &ns) ?: spin_with_irqs_off(cpu, ns);
	if (!strcmp(words[0], "run-for") && n == 2) {
		err = parse_ns(words[1], &ns);
		if (!err)
			WRITE_ONCE(run_ns, ns);
		return err;
	}
	if (!strcmp(words[0], "hang") && (n == 2 || (n == 3 && !strcmp(words[2], "irq"))))
		return parse_cpu(words[1], &cpu) ?: hang_cpu(cpu, n == 3);
	if (!strcmp(words[0], "crash") && n == 2)
		return crash(words[1]);
	if (n == 1 || kstrtou32(words[1], 0, &event))
		return -EINVAL;
	if (!strcmp(words[0], "route") && n == 3) {
		if (strcmp(words[2], "any"))
			err = parse_cpu(words[2], &cpu);
		return err ?: route_event(event, cpu);
	}
	return n == 2 ? run_event_command(words[0], event) : -EINVAL;
}

static ssize_t control_write(struct file *file, const char __user *from, size_t size, loff_t *offset)
{
	char line[64];
	int err;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, size))
		return -EFAULT;
	line[size] = '\0';

	mutex_lock(&events_lock);
	*answer = '\0';
	err = run_command(line);
	mutex_unlock(&events_lock);
	return err ?: size;
}

static int control_show(struct seq_file *out, void *unused)
{
	mutex_lock(&events_lock);
	seq_puts(out, answer);
	mutex_unlock(&events_lock);
	return 0;
}

static int control_open(struct inode *inode, struct file *file)
{
	return single_open(file, control_show, NULL);
}

static const struct proc_ops control_file = {
	.proc_open = control_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = control_write,
};

int proc_start(void)
{
	directory = proc_mkdir("sdei_test", NULL);
	if (directory && proc_create_single("status", 0400, directory, status_show) &&
	    proc_create_single("backtrace", 0400, directory, backtrace_show) &&
	    proc_create_single("lockups", 0400, directory, lockups_show) &&
	    proc_create("records", 0400, directory, &records_file) &&
	    proc_create("control", 0600, directory, &control_file))
		return 0;
	proc_stop();
	return -ENOMEM;
}

void proc_stop(void)
{
	proc_remove(directory); /* waits for those who are in it */
}
