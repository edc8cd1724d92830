/* INTERRUPT_BIND and RELEASE (DEN0054 5.1.14, 5.1.15, 6.3). */
#include "conformance.h"

#define FIRST_PPI 16
#define FIRST_SPI 32
#define SPIS_TRIED 512

static u64 bind(unsigned intid)
{
	return sdei(SDEI_INTERRUPT_BIND, intid, 0, 0, 0, 0);
}

static void need_slots(void)
{
	if (!private_slots || !shared_slots)
		skip("FEATURES reports no slots for bound events");
}

static u64 bound(unsigned intid)
{
	u64 event = bind(intid);

	if ((int64_t)event < 0)
		CALL(0, SDEI_INTERRUPT_BIND, intid);
	return event;
}

void bind_numbers(void)
{
	u64 spi, ppi;

	need_slots();
	spi = bound(UART_SPI);
	ppi = bound(TIMER_PPI);
	CALL(1, SDEI_EVENT_GET_INFO, spi, INFO_TYPE);
	CALL(0, SDEI_EVENT_GET_INFO, ppi, INFO_TYPE);
	CALL(spi, SDEI_INTERRUPT_BIND, UART_SPI);
	CALL(ppi, SDEI_INTERRUPT_BIND, TIMER_PPI);
	if (spi == ppi)
		FAIL("each interrupt gets an event of its own");
}

void bind_invalid(void)
{
	need_slots();
	for (u64 sgi = 0; sgi < FIRST_PPI; sgi++)
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_BIND, sgi);
	for (u64 special = 1020; special < 1024; special++)
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_BIND, special);
	CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_BIND, 8192);
	CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_BIND, 0xffffffff);
}

/* Binds interrupts from `first` until there is no slot left; the last one bound is `*event`, the first refused is returned. */
static unsigned use_up(unsigned first, unsigned end, unsigned slots, u64 *event)
{
	unsigned used = 0;

	for (unsigned intid = first; intid < end; intid++) {
		u64 got = bind(intid);

		if ((int64_t)got >= 0) {
			*event = got;
			used++;
		} else if ((int64_t)got == OUT_OF_RESOURCE) {
			IS("slots that could be used, and what FEATURES says", slots, used);
			return intid;
		}
		/* INVALID or DENIED: the platform keeps this one for itself. */
	}
	return 0;
}

void bind_out_of_slots(void)
{
	u64 ppi = 0, spi = 0;
	unsigned refused;

	need_slots();
	refused = use_up(FIRST_PPI, FIRST_SPI, private_slots, &ppi);
	if (refused) {
		CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, ppi);
		if ((int64_t)bind(refused) < 0)
			FAIL("INTERRUPT_BIND of a PPI works after a RELEASE");
	} else if (private_slots < 8) {
		FAIL("private slots are used up at some time");
	}
	refused = use_up(FIRST_SPI, FIRST_SPI + SPIS_TRIED, shared_slots, &spi);
	if (!spi)
		FAIL("shared slots are available when private ones are used up");
	if (!refused)
		FAIL("shared slots are used up at some time");
	CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, spi);
	if ((int64_t)bind(refused) < 0)
		FAIL("INTERRUPT_BIND of an SPI works after a RELEASE");
}

void bind_release(void)
{
	u64 event;

	need_slots();
	event = bound(UART_SPI);
	CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, event);
	CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, event);
	event = bound(TIMER_PPI);
	CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, event);
	CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, event);
	CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, 0);
	if (private_event)
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, private_event);
	if (shared_event)
		CALL(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, shared_event);
}

static void release_denied(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(DENIED, SDEI_INTERRUPT_RELEASE, subject.event);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	CALL(DENIED, SDEI_INTERRUPT_RELEASE, subject.event);
	CALL(PENDING, SDEI_EVENT_UNREGISTER, subject.event);
	CALL(DENIED, SDEI_INTERRUPT_RELEASE, subject.event);
}

void bind_release_states(void)
{
	reg(subject.event, p0);
	CALL(DENIED, SDEI_INTERRUPT_RELEASE, subject.event);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	CALL(DENIED, SDEI_INTERRUPT_RELEASE, subject.event);
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
	in_handler(release_denied);
	CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, subject.event);
	if (!subject.shared && nr_cpus > 1) {
		subject.event = bound(TIMER_PPI);
		CALL_ON(1, SUCCESS, SDEI_EVENT_REGISTER, subject.event, (u64)conf_entry, (u64)p1);
		CALL(DENIED, SDEI_INTERRUPT_RELEASE, subject.event);
		CALL_ON(1, SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
		CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, subject.event);
	}
}

static unsigned source(void)
{
	return subject.shared ? UART_SPI : TIMER_PPI;
}

void bind_pending(void)
{
	p0->hook = quiet_only;
	/* Latched while the interrupt is still the client's, the device quiet again: residue. */
	spi_set_pending(source(), true);
	reg(subject.event, p0);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	settle();
	IS("handler runs for a trigger of before REGISTER", 0, p0->begun);
	CALL(SUCCESS, SDEI_EVENT_DISABLE, subject.event);
	trigger(0);
	settle();
	IS("handler runs while disabled", 0, p0->begun);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, subject.event);
	runs_are(p0, 1, "handler runs at ENABLE");
}

static u64 quiet_from;

static void quiet_late(struct probe *p, struct entry *e)
{
	(void)e;
	if (p->begun >= quiet_from)
		quiet();
}

/* Five expiries, and one whose handler leaves the source asking: a level fires again at once, an edge does not. */
static void expiries(bool edge)
{
	u64 before = p0->runs;

	quiet_from = 0;
	ready(subject.event, p0);
	for (u64 n = 1; n <= 5; n++) {
		trigger(0);
		runs_are(p0, before + n, "handler runs, one for each expiry");
	}
	quiet_from = before + 7;
	trigger(0);
	runs_are(p0, before + (edge ? 6 : 7), edge ? "handler runs with one for the edge" : "handler runs until the level falls");
	quiet();
	CALL(SUCCESS, SDEI_EVENT_UNREGISTER, subject.event);
}

void bind_life(void)
{
	unsigned intid = source();
	u64 runs;

	intid_set_priority(intid, 0xb0);
	intid_enable(intid, true);
	p0->hook = quiet_late;
	expiries(false);
	if (subject.shared) {
		spi_set_edge(intid, true);
		expiries(true);
		spi_set_edge(intid, false);
		spi_set_pending(intid, false);
	}
	runs = p0->runs;
	/* A firmware may leave it as it was before REGISTER, or switched off: a client sets up what it uses. */
	if (!intid_is_enabled(intid) || intid_priority(intid) != 0xb0)
		remark("UNREGISTER leaves the interrupt disabled, or of another priority than before");
	CALL(SUCCESS, SDEI_INTERRUPT_RELEASE, subject.event);
	intid_set_priority(intid, 0xb0);
	intid_enable(intid, true);
	trigger(0);
	if (!take_interrupt(intid, 1000000))
		FAIL("the released interrupt reaches the client");
	IS("handler runs after RELEASE", runs, p0->begun);
}

static u64 fire(u64 argument)
{
	(void)argument;
	ppi_fire();
	return 0;
}

static void quiet_timer(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	ppi_quiet();
}

void bind_each_pe(void)
{
	u64 event;
	unsigned cpus = nr_cpus < NR_PROBES ? nr_cpus : NR_PROBES;

	need_slots();
	need_cpus(2);
	event = bound(TIMER_PPI);
	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		probes[cpu].hook = quiet_timer;
		ready_on(cpu, event, &probes[cpu]);
		unmask_on(cpu);
	}
	for (unsigned cpu = 0; cpu < cpus; cpu++)
		on(cpu, fire, 0);
	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		runs_are(&probes[cpu], 1, "handler runs of each PE's timer");
		IS("runs on the timer's own PE", 1, probes[cpu].runs_on[cpu]);
		IS("handler entry: x0, the event", event, probes[cpu].event);
	}
}
