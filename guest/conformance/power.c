/* CPU power states and PSCI (DEN0054 6.5). */
#include "conformance.h"

#define ON 0
#define OFF 1

void power_off_on(void)
{
	need_cpus(2);
	ready_on(1, 0, p1);
	unmask_on(1);
	if (shared_event)
		CALL_ON(1, SUCCESS, SDEI_EVENT_REGISTER, shared_event, (u64)conf_entry, (u64)p0);
	cpu_off(1);
	if (shared_event)
		CALL(STATE_1, SDEI_EVENT_STATUS, shared_event);
	cpu_on(1);
	CALL_ON(1, 0, SDEI_PE_MASK);
	CALL_ON(1, STATE_0, SDEI_EVENT_STATUS, 0);
	if (shared_event)
		CALL_ON(1, STATE_1, SDEI_EVENT_STATUS, shared_event);
}

void power_suspend(void)
{
	u64 code;

	need_cpus(2);
	ready_on(1, 0, p1);
	unmask_on(1);
	code = cpu_suspend(1);
	if (code == (u64)INVALID_PARAMETERS || code == (u64)NOT_SUPPORTED)
		skip("the firmware's CPU_SUSPEND has no power-down state");
	if (code == SUCCESS)
		skip("CPU_SUSPEND came back as from standby");
	IS("CPU_SUSPEND (1: the CPU came up anew)", 1, code);
	CALL_ON(1, 0, SDEI_PE_MASK);
	CALL_ON(1, STATE_3, SDEI_EVENT_STATUS, 0);
	unmask_on(1);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
	runs_are(p1, 1, "handler runs");
}

void power_stays_off(void)
{
	need_cpus(2);
	p0->hook = quiet_only;
	CALL(SUCCESS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p0, RM_PE, affinity(1));
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	unmask_on(1);
	cpu_off(1);
	trigger(1);
	settle();
	spin_us(5000);
	IS("AFFINITY_INFO of the PE that was off", OFF, power_of(1));
	IS("handler runs", 0, p0->begun);
	quiet();
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	state_is(STATE_0);
}

static void call_psci(struct probe *p, struct entry *e)
{
	u64 version = smccc(PSCI_VERSION, 0, 0, 0, 0, 0);

	(void)p, (void)e;
	IS("PSCI_VERSION in a handler: 1.x", 1, version >> 16);
	IS("AFFINITY_INFO in a handler: ON", ON, power_of(0));
	IS("PSCI_FEATURES in a handler: CPU_OFF is there", SUCCESS, smccc(PSCI_FEATURES, PSCI_CPU_OFF, 0, 0, 0, 0));
	IS("PSCI_FEATURES in a handler: an id that is not", NOT_SUPPORTED, smccc(PSCI_FEATURES, 0x8400001f, 0, 0, 0, 0));
	CALL(STATE_7, SDEI_EVENT_STATUS, 0);
}

void power_psci_in_handler(void)
{
	p0->hook = call_psci;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
	CALL(STATE_3, SDEI_EVENT_STATUS, 0);
}

void power_wfi(void)
{
	need_cpus(2);
	ready_on(1, 0, p1);
	unmask_on(1);
	/* CPU 1 is parked: it sleeps in WFI with interrupts masked, and nobody wakes it but the event. */
	spin_us(2000);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
	begun_is(p1, 1, "handler runs on the sleeping PE");
	runs_are(p1, 1, "handler runs");
	CALL_ON(1, STATE_3, SDEI_EVENT_STATUS, 0);
}
