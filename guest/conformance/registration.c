/* EVENT_REGISTER (DEN0054 5.1.2). */
#include "conformance.h"

void registration_valid(void)
{
	state_is(STATE_0);
	CALL(SUCCESS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0);
	state_is(STATE_1);
}

void registration_twice(void)
{
	reg(subject.event, p0);
	CALL(DENIED, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
	state_is(STATE_1);
	if (subject.how == BY_HOST && !have_host())
		return;
	p0->hook = p1->hook = quiet_only;
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	trigger(0);
	runs_are(p0, 1, "runs of the first handler");
	IS("runs of the handler that was refused", 0, p1->runs);
}

static void register_again(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(DENIED, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
	state_is(STATE_7);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	CALL(DENIED, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
	state_is(STATE_5);
	CALL(PENDING, SDEI_EVENT_UNREGISTER, subject.event);
	CALL(DENIED, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
	state_is(STATE_4);
}

void registration_states(void)
{
	ready(subject.event, p0);
	CALL(DENIED, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
	state_is(STATE_3);
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	in_handler(register_again);
	state_is(STATE_0);
}

void registration_unknown(void)
{
	static const u64 numbers[] = { 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0xffffffffffffffff };

	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		u64 n = numbers[i];

		CALL(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, n, (u64)conf_entry, (u64)p0);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_ENABLE, n);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_DISABLE, n);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_UNREGISTER, n);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_STATUS, n);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, n, INFO_TYPE);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, n, RM_PE, affinity(0));
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, n);
	}
}

void registration_entry_0(void)
{
	CALL(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, subject.event, 0, (u64)p0);
	state_is(STATE_0);
}

void registration_flags(void)
{
	CALL(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0, 1 << 2);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0, 1ul << 63);
	state_is(STATE_0);
}

void registration_routed(void)
{
	unsigned last = nr_cpus - 1;

	CALL(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0, RM_PE, 0xffffffff);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0, RM_PE, BAD_AFFINITY);
	state_is(STATE_0);
	CALL(SUCCESS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0, RM_PE, affinity(last));
	CALL(RM_PE, SDEI_EVENT_GET_INFO, subject.event, INFO_ROUTING_MODE);
	CALL(affinity(last), SDEI_EVENT_GET_INFO, subject.event, INFO_ROUTING_AFFINITY);
}

static u64 register_raw(u64 argument)
{
	return sdei(SDEI_EVENT_REGISTER, 0, (u64)conf_entry, argument, RM_PE, READ(mpidr_el1));
}

void registration_private_flags(void)
{
	need_cpus(2);
	CALL(SUCCESS, SDEI_EVENT_REGISTER, 0, (u64)conf_entry, (u64)p0, 0, 0);
	IS("REGISTER(0) with RM_PE and raw MPIDR_EL1 on CPU 1", SUCCESS, on(1, register_raw, (u64)p1));
	CALL(SUCCESS, SDEI_EVENT_ENABLE, 0);
	CALL_ON(1, SUCCESS, SDEI_EVENT_ENABLE, 0);
	unmask_on(1);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
	runs_are(p0, 1, "handler runs for CPU 0");
	runs_are(p1, 1, "handler runs for CPU 1");
	IS("runs of CPU 0's handler on CPU 0", 1, p0->runs_on[0]);
	IS("runs of CPU 1's handler on CPU 1", 1, p1->runs_on[1]);
}

void registration_per_pe(void)
{
	need_cpus(2);
	reg(subject.event, p0);
	state_is(STATE_1);
	CALL_ON(1, STATE_0, SDEI_EVENT_STATUS, subject.event);
	CALL_ON(1, DENIED, SDEI_EVENT_ENABLE, subject.event);
	CALL_ON(1, DENIED, SDEI_EVENT_UNREGISTER, subject.event);
	state_is(STATE_1);
}

void registration_everywhere(void)
{
	need_cpus(2);
	reg(subject.event, p0);
	CALL_ON(1, STATE_1, SDEI_EVENT_STATUS, subject.event);
	CALL_ON(1, DENIED, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
	CALL_ON(1, SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	state_is(STATE_3);
	CALL_ON(1, SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	state_is(STATE_1);
	CALL_ON(1, SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	state_is(STATE_0);
}
