// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The events that the module has registered, and what a script can do with them: process context. */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/smp.h>
#include <linux/string.h>

#include "sdei_test.h"

#define PARAMETER 0xdabfdabfUL /* what the callback is registered with, printed by the dump */
#define FN_EVENT_SIGNAL SDEI_1_0_FN(0x0f) /* the kernel's header has no name for it */

struct slot slots[MAX_EVENTS];
unsigned int nr_slots;
DEFINE_MUTEX(slots_lock);

int find_slot(u32 event)
{
	unsigned int i, n = smp_load_acquire(&nr_slots);

	for (i = 0; i < n; i++)
		if (slots[i].event == event)
			return i;
	return -ENOENT;
}

int register_event(u32 event)
{
	int slot = find_slot(event), err;

	if (slot < 0 && nr_slots == MAX_EVENTS)
		return -ENOSPC;
	err = kernel.event_register(event, on_event, (void *)PARAMETER);
	if (err)
		return err;
	if (slot < 0) {
		slot = nr_slots;
		slots[slot].event = event;
		smp_store_release(&nr_slots, nr_slots + 1); /* before the event is enabled and can arrive */
	}
	slots[slot].registered = true;
	return 0;
}

int set_enabled(u32 event, bool enable)
{
	int slot = find_slot(event), err;

	/* The kernel would let us touch an event of another client, such as GHES. */
	if (slot < 0 || !slots[slot].registered)
		return -ENOENT;
	err = enable ? kernel.event_enable(event) : kernel.event_disable(event);
	if (!err)
		slots[slot].enabled = enable;
	return err;
}

/*
 * EVENT_UNREGISTER of a shared event that runs elsewhere answers PENDING, and the kernel then keeps the event for
 * good: a second call meets an event that is gone. So disable it and wait until its handler has completed. A private
 * event needs no wait: the kernel asks each CPU by an interrupt, which a handler holds off.
 */
int unregister_event(u32 event)
{
	unsigned long limit = jiffies + usecs_to_jiffies(MAX_RUN_US) + HZ;
	int slot = find_slot(event), err;
	u64 status;

	err = set_enabled(event, false);
	if (err == -ENOENT)
		return err;
	while (!kernel.call(SDEI_1_0_FN_SDEI_EVENT_STATUS, event, 0, 0, 0, 0, &status) &&
	       (status & BIT(SDEI_EVENT_STATUS_RUNNING)) && time_before(jiffies, limit))
		msleep(1);
	err = kernel.event_unregister(event);
	if (!err)
		slots[slot].registered = false;
	return err;
}

static int signal_cpu(unsigned int cpu)
{
	if (cpu >= nr_cpu_ids || !cpu_possible(cpu))
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

static int set_masked(bool mask, int cpu)
{
	struct mask_call call = { .function = mask ? SDEI_1_0_FN_SDEI_PE_MASK : SDEI_1_0_FN_SDEI_PE_UNMASK };
	int err = 0;

	if (cpu < 0) {
		cpus_read_lock();
		on_each_cpu(mask_this_cpu, &call, 1);
		cpus_read_unlock();
	} else {
		err = smp_call_function_single(cpu, mask_this_cpu, &call, 1);
	}
	return err ?: call.err;
}

int run_command(char *line)
{
	char *text = strim(line), *verb = strsep(&text, " ");
	bool has_value = text && *text;
	unsigned int value = 0;
	int err = has_value ? kstrtouint(skip_spaces(text), 0, &value) : 0;

	if (err)
		return err;
	if (!strcmp(verb, "mask") || !strcmp(verb, "unmask")) {
		if (has_value && value >= nr_cpu_ids)
			return -ENODEV;
		return set_masked(*verb == 'm', has_value ? value : -1);
	}
	if (!has_value)
		return -EINVAL;
	if (!strcmp(verb, "register"))
		return register_event(value);
	if (!strcmp(verb, "unregister"))
		return unregister_event(value);
	if (!strcmp(verb, "enable"))
		return set_enabled(value, true);
	if (!strcmp(verb, "disable"))
		return set_enabled(value, false);
	if (!strcmp(verb, "signal"))
		return signal_cpu(value);
	if (!strcmp(verb, "run-for")) {
		if (value > MAX_RUN_US)
			return -ERANGE;
		WRITE_ONCE(run_us, value);
		return 0;
	}
	return -EINVAL;
}
