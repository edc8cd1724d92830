/* CPU power states and PSCI (DEN0054 6.5). */
#include "conformance.h"

#define POWER_DOWN 0x10000 /* StateType of CPU_SUSPEND's original format */
#define STATE_IDS 16       /* that are tried */

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
	/* Which StateIDs a firmware takes is its own affair: TF-A on QEMU has 0x2 for a CPU's power-down. */
	u64 code = (u64)INVALID_PARAMETERS;

	need_cpus(2);
	ready_on(1, 0, p1);
	unmask_on(1);
	if (suspend_word)
		code = cpu_suspend(1, suspend_word);
	for (u64 id = 0; id < STATE_IDS && !suspend_word && code == (u64)INVALID_PARAMETERS; id++)
		code = cpu_suspend(1, POWER_DOWN | id);
	if (code == (u64)INVALID_PARAMETERS && suspend_word)
		skip("the firmware's CPU_SUSPEND has no such state as suspend= says");
	if (code == (u64)INVALID_PARAMETERS || code == (u64)NOT_SUPPORTED)
		skip("CPU_SUSPEND takes no power-down state of StateID 0 to 15 (suspend=)");
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
	IS("AFFINITY_INFO of the PE that was off", AFFINITY_OFF, power_of(1));
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
	IS("AFFINITY_INFO in a handler: ON", AFFINITY_ON, power_of(0));
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

/* ---- what a CPU that comes back must be able to do ---- */

/* CPU 1 is off: it comes on, masked and with nothing registered, and takes interrupts and events. */
static void comes_back(void)
{
	u64 took = cpu_on_to(1, takes_interrupt, 0);

	IS("ICC_RPR_EL1 of the CPU that came on: idle", 0xff, entry_rpr[1]);
	IS("interrupts that the CPU that came on takes", 1, took);
	CALL_ON(1, 0, SDEI_PE_MASK);
	CALL_ON(1, STATE_0, SDEI_EVENT_STATUS, 0);
	CALL_ON(1, DENIED, SDEI_EVENT_CONTEXT, 0);
	CALL_ON(1, DENIED, SDEI_EVENT_COMPLETE, 0);
	IS("events that the CPU that came on takes", 1, on(1, takes_event, 0));
}

void power_signalled_off(void)
{
	u64 code;

	need_cpus(2);
	ready_on(1, 0, p1);
	unmask_on(1);
	cpu_off(1);
	code = sdei(SDEI_EVENT_SIGNAL, 0, affinity(1), 0, 0, 0);
	if (code != (u64)INVALID_PARAMETERS)
		IS("SIGNAL to a PE that is off: INVALID, or lost", SUCCESS, code);
	settle();
	IS("AFFINITY_INFO of the PE that was off", AFFINITY_OFF, power_of(1));
	comes_back();
	IS("handler runs for the signal to the PE that was off", 0, p1->begun);
}

static void off_here(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	log_call(PSCI_CPU_OFF, 0, 0, 0, 0);
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	FAIL("CPU_OFF does not return");
}

void power_off_in_handler(void)
{
	need_cpus(2);
	p1->hook = off_here;
	ready_on(1, 0, p1);
	unmask_on(1);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
	cpu_goes_off(1);
	IS("handlers that began on the CPU that went off", 1, p1->begun);
	comes_back();
}

/* A client that is stopped by an interrupt goes off in its handler: Linux' crash stop does. */
static u64 off_in_interrupt(u64 argument)
{
	u64 deadline = ticks() + ticks_of_us(LIMIT_US);

	(void)argument;
	timer_arm(20);
	while (READ(S3_0_C12_C12_0) >= SPURIOUS) { /* ICC_IAR1_EL1 */
		if (ticks() > deadline) {
			FAIL("the timer's interrupt can be acknowledged");
			return 0;
		}
	}
	timer_stop();
	log_call(PSCI_CPU_OFF, 0, 0, 0, 0);
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	FAIL("CPU_OFF does not return");
	return 0;
}

void power_off_in_interrupt(void)
{
	need_cpus(2);
	start_on(1, off_in_interrupt, 0);
	cpu_goes_off(1);
	comes_back();
}
