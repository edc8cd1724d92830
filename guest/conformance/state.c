/* EVENT_ENABLE, DISABLE, STATUS, GET_INFO (DEN0054 5.1.3, 5.1.4, 5.1.9, 5.1.10). */
#include "conformance.h"

void state_unregistered(void)
{
	CALL(DENIED, SDEI_EVENT_ENABLE, subject.event);
	CALL(DENIED, SDEI_EVENT_DISABLE, subject.event);
	state_is(STATE_0);
}

void state_idempotent(void)
{
	reg(subject.event, p0);
	for (unsigned i = 0; i < 2; i++) {
		CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
		state_is(STATE_3);
	}
	for (unsigned i = 0; i < 2; i++) {
		CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
		state_is(STATE_1);
	}
}

static void toggle(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	state_is(STATE_7);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	state_is(STATE_5);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	state_is(STATE_5);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	state_is(STATE_7);
	if (subject.shared && nr_cpus > 1)
		CALL_ON(1, STATE_7, SDEI_EVENT_STATUS, subject.event);
}

void state_running(void)
{
	in_handler(toggle);
	state_is(STATE_3);
}

void state_info_event_0(void)
{
	CALL(0, SDEI_EVENT_GET_INFO, 0, INFO_TYPE);
	CALL(0, SDEI_EVENT_GET_INFO, 0, INFO_SIGNALED);
	CALL(0, SDEI_EVENT_GET_INFO, 0, INFO_PRIORITY);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, 0, INFO_ROUTING_MODE);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, 0, INFO_ROUTING_AFFINITY);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, 0, 5);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, 0, -1ul);
	if (critical_event)
		CALL(1, SDEI_EVENT_GET_INFO, critical_event, INFO_PRIORITY);
}

void state_info_shared(void)
{
	u64 event = subject.event;

	CALL(1, SDEI_EVENT_GET_INFO, event, INFO_TYPE);
	CALL(1, SDEI_EVENT_GET_INFO, event, INFO_SIGNALED);
	CALL(0, SDEI_EVENT_GET_INFO, event, INFO_PRIORITY);
	CALL(DENIED, SDEI_EVENT_GET_INFO, event, INFO_ROUTING_MODE);
	CALL(DENIED, SDEI_EVENT_GET_INFO, event, INFO_ROUTING_AFFINITY);
	reg(event, p0);
	CALL(0, SDEI_EVENT_GET_INFO, event, INFO_ROUTING_MODE);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, event, INFO_ROUTING_AFFINITY);
	CALL(SUCCESS, SDEI_EVENT_ROUTING_SET, event, RM_PE, affinity(nr_cpus - 1));
	CALL(RM_PE, SDEI_EVENT_GET_INFO, event, INFO_ROUTING_MODE);
	CALL(affinity(nr_cpus - 1), SDEI_EVENT_GET_INFO, event, INFO_ROUTING_AFFINITY);
}

void state_info_bound(void)
{
	CALL(subject.shared, SDEI_EVENT_GET_INFO, subject.event, INFO_TYPE);
	CALL(1, SDEI_EVENT_GET_INFO, subject.event, INFO_SIGNALED);
	CALL(0, SDEI_EVENT_GET_INFO, subject.event, INFO_PRIORITY);
	CALL(subject.shared ? DENIED : INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, subject.event, INFO_ROUTING_MODE);
}
