// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The events that the module has registered: process context. */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>

#include "sdei_test.h"

#define PARAMETER 0xdabfdabfUL /* what the callback is registered with, printed by the dump */

struct slot slots[MAX_EVENTS];
unsigned int nr_slots;
DEFINE_MUTEX(events_lock);

int find_slot(u32 event)
{
	unsigned int i, n = smp_load_acquire(&nr_slots);

	for (i = 0; i < n; i++)
		if (slots[i].event == event)
			return i;
	return -ENOENT;
}

/* The kernel would let us touch an event of another client, such as GHES. */
static struct slot *find_ours(u32 event)
{
	int slot = find_slot(event);

	return slot < 0 || !slots[slot].registered ? NULL : &slots[slot];
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
	struct slot *slot = find_ours(event);
	int err;

	if (!slot)
		return -ENOENT;
	err = enable ? kernel.event_enable(event) : kernel.event_disable(event);
	if (!err)
		slot->enabled = enable;
	return err;
}

/*
 * EVENT_UNREGISTER of a shared event that runs elsewhere answers PENDING, and the kernel then keeps the event for
 * good: a second call meets an event that is gone. So disable it and wait until its handler has completed. A private
 * event needs no wait: the kernel asks each CPU by an interrupt, which a handler holds off.
 */
int unregister_event(u32 event)
{
	unsigned long limit = jiffies + nsecs_to_jiffies(MAX_NS) + HZ;
	int err = set_enabled(event, false);
	u64 status;

	if (err == -ENOENT)
		return err;
	while (!kernel.call(SDEI_1_0_FN_SDEI_EVENT_STATUS, event, 0, 0, 0, 0, &status) &&
	       (status & BIT(SDEI_EVENT_STATUS_RUNNING)) && time_before(jiffies, limit))
		msleep(1);
	err = kernel.event_unregister(event);
	if (!err)
		slots[find_slot(event)].registered = false;
	return err;
}

/* The kernel's driver has no function for this; it registers shared events for any CPU. */
int route_event(u32 event, int cpu)
{
	if (!find_ours(event))
		return -ENOENT;
	if (cpu >= (int)nr_cpu_ids || (cpu >= 0 && !cpu_possible(cpu)))
		return -ENODEV;
	return kernel.call(SDEI_1_0_FN_SDEI_EVENT_ROUTING_SET, event,
			   cpu < 0 ? SDEI_EVENT_REGISTER_RM_ANY : SDEI_EVENT_REGISTER_RM_PE,
			   cpu < 0 ? 0 : kernel.cpu_logical_map(cpu), 0, 0, NULL);
}

/* One line of what the firmware says; a private event's status is that of this CPU. The event need not be ours. */
int describe_event(u32 event, char *answer, size_t size)
{
	static const struct {
		const char *name;
		unsigned long info;
	} fields[] = {
		{ "shared", SDEI_EVENT_INFO_EV_TYPE },
		{ "unsignalable", SDEI_EVENT_INFO_EV_SIGNALED }, /* 0 means that it can be signalled */
		{ "critical", SDEI_EVENT_INFO_EV_PRIORITY },
		{ "routed", SDEI_EVENT_INFO_EV_ROUTING_MODE },
		{ "affinity", SDEI_EVENT_INFO_EV_ROUTING_AFF },
	};
	int i, err, len;
	u64 value;

	err = kernel.call(SDEI_1_0_FN_SDEI_EVENT_STATUS, event, 0, 0, 0, 0, &value);
	if (err)
		return err;
	len = scnprintf(answer, size, "event 0x%x registered %d enabled %d running %d", event,
			!!(value & BIT(SDEI_EVENT_STATUS_REGISTERED)), !!(value & BIT(SDEI_EVENT_STATUS_ENABLED)),
			!!(value & BIT(SDEI_EVENT_STATUS_RUNNING)));
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		/* The routing of an event that has none (private, unregistered) is an error. */
		if (!kernel.call(SDEI_1_0_FN_SDEI_EVENT_GET_INFO, event, fields[i].info, 0, 0, 0, &value))
			len += scnprintf(answer + len, size - len, " %s 0x%llx", fields[i].name, value);
	scnprintf(answer + len, size - len, "\n");
	return 0;
}
