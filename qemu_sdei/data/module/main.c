// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * An SDEI client for stock arm64 kernels: registers events, prints what an event interrupted, and keeps counts and the
 * newest records of each CPU in /proc/sdei_test/ for scripts. README.md beside this file describes the interface.
 */
#include <linux/kprobes.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "sdei_test.h"

static char *events = "0";
module_param(events, charp, 0444); /* no array: that takes no empty list */
MODULE_PARM_DESC(events, "event numbers to register and enable, as 0,0x100; empty for none (default: 0)");

unsigned int verbose = 10;
module_param(verbose, uint, 0644);
MODULE_PARM_DESC(verbose, "full dumps a second at most, over all CPUs; other events are only recorded (default: 10)");

unsigned int nr_records = 256;
module_param_named(records, nr_records, uint, 0444);
MODULE_PARM_DESC(records, "how many of the newest records each CPU keeps, rounded up to a power of two (default: 256)");

struct kernel_functions kernel;
u64 sdei_version;
static unsigned long (*lookup)(const char *name);

/* One that is of use only. */
static void __init find_optional(void *function, const char *name)
{
	*(unsigned long *)function = lookup(name);
}

static bool __init find(void *function, const char *name)
{
	unsigned long address = lookup(name);

	if (!address)
		pr_err("SDEI TEST: this kernel has no %s (is CONFIG_ARM_SDE_INTERFACE set?)\n", name);
	*(unsigned long *)function = address;
	return address;
}

static int __init find_kernel_functions(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	int err = register_kprobe(&probe);

	if (err) {
		pr_err("SDEI TEST: kallsyms_lookup_name not found, error %d (are CONFIG_KPROBES and CONFIG_KALLSYMS set?)\n",
		       err);
		return err;
	}
	lookup = (void *)probe.addr;
	unregister_kprobe(&probe);

	find_optional(&kernel.crash_save_cpu, "crash_save_cpu");
	find_optional(&kernel.set_cpu_online, "set_cpu_online");
	if (find(&kernel.call, "invoke_sdei_fn") && find(&kernel.event_register, "sdei_event_register") &&
	    find(&kernel.event_unregister, "sdei_event_unregister") && find(&kernel.event_enable, "sdei_event_enable") &&
	    find(&kernel.event_disable, "sdei_event_disable") &&
	    find(&kernel.event_context, "sdei_api_event_context") && find(&kernel.cpu_logical_map, "cpu_logical_map") &&
	    find(&kernel.save_stack, "stack_trace_save_regs"))
		return 0;
	return -ENOENT;
}

static void unregister_all(void)
{
	unsigned int slot;
	int err;

	for (slot = 0; slot < nr_slots; slot++) {
		err = slots[slot].registered ? unregister_event(slots[slot].event) : 0;
		if (err)
			pr_err("SDEI TEST: SDEI event (0x%x) not unregistered: error %d\n", slots[slot].event, err);
	}
}

static int __init register_and_enable(u32 event)
{
	int err = register_event(event);

	if (err == -EBUSY)
		pr_err("sdei_init: SDEI event (0x%x) not registered: the kernel has a handler of its own for it\n", event);
	else if (err)
		pr_err("sdei_init: SDEI event (0x%x) not registered: error %d\n", event, err);
	if (err)
		return err;
	pr_info("sdei_init: SDEI event (0x%x) registered\n", event);
	err = set_enabled(event, true);
	if (err) {
		pr_err("sdei_init: SDEI event (0x%x) not enabled: error %d\n", event, err);
		return err;
	}
	pr_info("sdei_init: SDEI event (0x%x) enabled\n", event);
	return 0;
}

static int __init register_list(void)
{
	char *copy = kstrdup(events, GFP_KERNEL), *rest = copy, *word;
	int err = copy ? 0 : -ENOMEM;
	u32 event;

	mutex_lock(&events_lock);
	while (!err && (word = strsep(&rest, ","))) {
		if (!*word)
			continue;
		err = kstrtou32(word, 0, &event);
		if (err)
			pr_err("SDEI TEST: events=%s: \"%s\" is no event number\n", events, word);
		else
			err = register_and_enable(event);
	}
	mutex_unlock(&events_lock);
	kfree(copy);
	return err;
}

/* The order matters: no more events, then nothing more to print, then no more memory. */
static void stop(void)
{
	mutex_lock(&events_lock);
	watchdog_exit();
	unregister_all();
	mutex_unlock(&events_lock);
	dump_stop();
	crash_stop();
	cpus_stop();
	where_stop();
	handler_stop();
}

static int __init sdei_init(void)
{
	int err = find_kernel_functions();

	if (err)
		return err;
	err = kernel.call(SDEI_1_0_FN_SDEI_VERSION, 0, 0, 0, 0, 0, &sdei_version);
	if (err) {
		pr_err("SDEI TEST: the firmware offers no SDEI to this kernel (SDEI_VERSION: error %d)\n", err);
		return -ENODEV;
	}
	pr_info("SDEI TEST: Version %llu.%llu, Vendor 0x%llx\n", SDEI_VERSION_MAJOR(sdei_version),
		SDEI_VERSION_MINOR(sdei_version), SDEI_VERSION_VENDOR(sdei_version));

	nr_records = roundup_pow_of_two(clamp(nr_records, 1U, (unsigned int)MAX_RECORDS));
	err = handler_start() ?: dump_start() ?: cpus_start() ?: where_start() ?: watchdog_init() ?: crash_start() ?:
		register_list() ?: proc_start();
	if (err)
		stop();
	return err;
}

static void __exit sdei_exit(void)
{
	proc_stop();
	stop();
}

module_init(sdei_init);
module_exit(sdei_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("SDEI test client of qemu-sdei");
