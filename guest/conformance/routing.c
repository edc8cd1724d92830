/* EVENT_ROUTING_SET (DEN0054 5.1.11). */
#include "conformance.h"

void routing_to_pe(void)
{
	need_cpus(2);
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		unmask_on(cpu);
	p0->hook = quiet_only;
	reg(subject.event, p0);
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++) {
		CALL(SUCCESS, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, affinity(cpu));
		CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
		trigger(0);
		runs_are(p0, cpu, "handler runs");
		IS("runs on the PE that the event is routed to", 1, p0->runs_on[cpu]);
		CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	}
	/* Not on another PE, even if its own cannot take it for now. */
	CALL(SUCCESS, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, affinity(1));
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	mask_on(1);
	trigger(0);
	CALL(SUCCESS, SDEI_PE_UNMASK);
	settle();
	IS("handler runs while the PE is masked that the event is routed to", nr_cpus - 1, p0->begun);
	unmask_on(1);
	runs_are(p0, nr_cpus, "handler runs when it unmasks");
	IS("runs on the PE that the event is routed to", 2, p0->runs_on[1]);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	CALL(SUCCESS, SDEI_EVENT_ROUTING_SET, subject.event, 0, 0);
	CALL(0, SDEI_EVENT_GET_INFO, subject.event, INFO_ROUTING_MODE);
}

static void denied(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(DENIED, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, 0); /* 7 */
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	CALL(DENIED, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, 0); /* 5 */
	CALL(PENDING, SDEI_EVENT_UNREGISTER, subject.event);
	CALL(DENIED, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, 0); /* 4 */
}

void routing_states(void)
{
	CALL(DENIED, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, 0);
	ready(subject.event, p0);
	CALL(DENIED, SDEI_EVENT_ROUTING_SET, subject.event, RM_PE, 0);
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	in_handler(denied);
}

void routing_invalid(void)
{
	CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, 0x10000, RM_PE, affinity(0));
	reg(0, p0);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, 0, RM_PE, affinity(0));
	if (shared_event) {
		reg(shared_event, p1);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, shared_event, 2, affinity(0));
		CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, shared_event, RM_PE, BAD_AFFINITY);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, shared_event, RM_PE, 0xffffffff);
		CALL(0, SDEI_EVENT_GET_INFO, shared_event, INFO_ROUTING_MODE);
	}
	if (private_slots) {
		u64 event = sdei(SDEI_INTERRUPT_BIND, TIMER_PPI, 0, 0, 0, 0);

		CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, event, RM_PE, affinity(0));
	}
}
