/* EVENT_UNREGISTER, PRIVATE_RESET, SHARED_RESET (DEN0054 5.1.8, 5.1.18, 5.1.19, 6.7). */
#include "conformance.h"

void reset_unregister(void)
{
	CALL(DENIED, SDEI_EVENT_UNREGISTER, subject.event);
	reg(subject.event, p0);
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	state_is(STATE_0);
	ready(subject.event, p0);
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	state_is(STATE_0);
	if (subject.how == BY_HOST && !have_host())
		return;
	if (subject.how == BY_SIGNAL)
		CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	else
		trigger(0);
	settle();
	quiet();
	IS("handler runs after UNREGISTER", 0, p0->begun);
	if (subject.how == BY_SIGNAL && signal_refused)
		return;
	/* What was pending when it was unregistered is dropped. */
	p0->hook = quiet_only;
	reg(subject.event, p0);
	trigger(0);
	settle();
	quiet();
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	ready(subject.event, p0);
	settle();
	IS("handler runs for a trigger of an earlier registration", 0, p0->begun);
}

static void in_state_4(struct probe *p, struct entry *e)
{
	u64 n = subject.event;

	(void)p;
	CALL(PENDING, SDEI_EVENT_UNREGISTER, n);
	state_is(STATE_4);
	CALL(PENDING, SDEI_EVENT_UNREGISTER, n);
	CALL(DENIED, SDEI_EVENT_REGISTER, n, (u64)conf_entry, (u64)p1);
	CALL(DENIED, SDEI_EVENT_ENABLE, n);
	CALL(DENIED, SDEI_EVENT_DISABLE, n);
	if (subject.shared)
		CALL(DENIED, SDEI_EVENT_ROUTING_SET, n, 0, 0);
	if (subject.bound)
		CALL(DENIED, SDEI_INTERRUPT_RELEASE, n);
	if ((int64_t)sdei(SDEI_EVENT_CONTEXT, 2, 0, 0, 0, 0) == DENIED)
		FAIL("CONTEXT works in state 4");
	state_is(STATE_4);
	(void)e;
}

void reset_pending(void)
{
	in_handler(in_state_4);
	state_is(STATE_0);
	CALL(DENIED, SDEI_EVENT_UNREGISTER, subject.event);
	reg(subject.event, p0);
	state_is(STATE_1);
}

void reset_private_reset(void)
{
	need_cpus(2);
	ready(0, p0);
	if (private_event)
		reg(private_event, p0);
	CALL_ON(1, SUCCESS, SDEI_EVENT_REGISTER, 0, (u64)conf_entry, (u64)p1);
	if (shared_event)
		ready(shared_event, p0);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	CALL(STATE_0, SDEI_EVENT_STATUS, 0);
	if (private_event)
		CALL(STATE_0, SDEI_EVENT_STATUS, private_event);
	CALL_ON(1, STATE_1, SDEI_EVENT_STATUS, 0);
	if (shared_event)
		CALL(STATE_3, SDEI_EVENT_STATUS, shared_event);
}

void reset_shared_reset(void)
{
	u64 ppi = 0, spi = 0;

	if (!shared_event && !shared_slots)
		skip("there is no shared event");
	if (private_slots)
		ppi = sdei(SDEI_INTERRUPT_BIND, TIMER_PPI, 0, 0, 0, 0);
	if (shared_slots) {
		spi = sdei(SDEI_INTERRUPT_BIND, UART_SPI, 0, 0, 0, 0);
		ready(spi, p1);
	}
	if (shared_event)
		ready(shared_event, p1);
	ready(0, p0);
	CALL(SUCCESS, SDEI_SHARED_RESET);
	if (shared_event)
		CALL(STATE_0, SDEI_EVENT_STATUS, shared_event);
	if (spi)
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, spi);
	if (ppi)
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, ppi);
	CALL(STATE_3, SDEI_EVENT_STATUS, 0);
}

static void private_reset_here(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(DENIED, SDEI_PRIVATE_RESET);
	CALL(STATE_4, SDEI_EVENT_STATUS, 0);
	if (private_event)
		CALL(STATE_0, SDEI_EVENT_STATUS, private_event);
	CALL(SUCCESS, SDEI_SHARED_RESET);
}

static u64 bound_event;

static void shared_reset_here(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(DENIED, SDEI_SHARED_RESET);
	CALL(STATE_4, SDEI_EVENT_STATUS, shared_event);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	if (bound_event)
		CALL(bound_event, SDEI_INTERRUPT_BIND, TIMER_PPI);
}

void reset_in_handler(void)
{
	if (private_event)
		ready(private_event, p1);
	p0->hook = private_reset_here;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
	CALL(STATE_0, SDEI_EVENT_STATUS, 0);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	if (!shared_event || !have_host())
		return;
	bound_event = private_slots ? sdei(SDEI_INTERRUPT_BIND, TIMER_PPI, 0, 0, 0, 0) : 0;
	p1->hook = shared_reset_here;
	ready(shared_event, p1);
	host_trigger(shared_event, 0);
	runs_are(p1, 1, "handler runs of the shared event");
	CALL(STATE_0, SDEI_EVENT_STATUS, shared_event);
	CALL(SUCCESS, SDEI_SHARED_RESET);
}

void reset_twice(void)
{
	ready(0, p0);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	CALL(SUCCESS, SDEI_SHARED_RESET);
	CALL(SUCCESS, SDEI_SHARED_RESET);
}

/* Calls that do not depend on the state, and leave it. */
static void always(u64 state)
{
	CALL(version_word, SDEI_VERSION);
	state_is(state);
	CALL(subject.shared, SDEI_EVENT_GET_INFO, subject.event, INFO_TYPE);
	CALL(1, SDEI_PE_MASK);
	CALL(SUCCESS, SDEI_PE_UNMASK);
	CALL((u64)shared_slots << 16 | private_slots, SDEI_FEATURES, FEATURE_BIND_SLOTS);
	if (subject.how != BY_SIGNAL) {
		CALL(SUCCESS, SDEI_EVENT_REGISTER, 0, (u64)conf_entry, (u64)p1);
		CALL(signal_refused ? INVALID_PARAMETERS : SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
		CALL(SUCCESS, SDEI_EVENT_UNREGISTER, 0);
	}
	if (shared_slots) {
		u64 event = sdei(SDEI_INTERRUPT_BIND, RTC_SPI, 0, 0, 0, 0);

		CALL(1, SDEI_EVENT_GET_INFO, event, INFO_TYPE);
		CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, event);
	}
	state_is(state);
}

static void always_running(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	always(STATE_7);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	always(STATE_5);
	CALL(PENDING, SDEI_EVENT_UNREGISTER, subject.event);
	always(STATE_4);
}

void reset_always(void)
{
	always(STATE_0);
	reg(subject.event, p0);
	always(STATE_1);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	always(STATE_3);
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	in_handler(always_running);
}

static u64 interrupts_taken;

/*
 * What a kernel does that is started where another one crashed, in a handler that will never end: it resets what it can,
 * sets up its interrupts, and lives from them. That the resets do not end the handler is why the event stays DENIED.
 */
static void new_kernel(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(1, SDEI_PE_MASK);
	CALL(DENIED, SDEI_PRIVATE_RESET);
	CALL(SUCCESS, SDEI_SHARED_RESET);
	CALL(DENIED, SDEI_EVENT_REGISTER, 0, (u64)conf_entry, (u64)p1);
	device_init();
	interrupts_taken = takes_interrupt(0);
}

void reset_new_kernel(void)
{
	interrupts_taken = 0;
	p0->hook = new_kernel;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
	IS("interrupts that the new client takes", 1, interrupts_taken);
	CALL(STATE_0, SDEI_EVENT_STATUS, 0);
	CALL(0, SDEI_PE_MASK);
}
