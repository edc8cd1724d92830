/* Several events at once: priority, nesting, shared events, interrupts (DEN0054 4.3, 6.2). */
#include "conformance.h"

/* Event 0's handler raises another event, which must (not) run before it ends. */
static u64 other;
static bool nests;

static void raise_other(struct probe *p, struct entry *e)
{
	u64 request;

	(void)e;
	if (p->begun > 1)
		return;
	request = host_ask(other, 0);
	if (nests)
		begun_is(p1, 1, "handlers of the critical event within the normal one's");
	host_answer(request);
	settle();
	IS("handlers of the other event that began within this one", nests, p1->begun);
}

void sharing_same_class(void)
{
	if (!private_event || !have_host())
		skip("needs a second private event that the host can trigger");
	other = private_event;
	nests = false;
	p0->hook = raise_other;
	ready(0, p0);
	ready(private_event, p1);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs of event 0");
	runs_are(p1, 1, "handler runs of the other event, after it");
	/* It interrupts what event 0 interrupted, not its handler. */
	IS("interrupted SP of the other event", p0->entry.sp, p1->entry.sp);
}

/* In the critical handler: neither normal nor critical events come. */
static void raise_more(struct probe *p, struct entry *e)
{
	(void)e;
	if (p->begun > 1)
		return;
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	if (shared_critical_event)
		host_trigger(shared_critical_event, 0);
	settle();
	IS("handlers of event 0 that began within the critical one", 1, p0->begun);
	IS("handlers of another critical event within this one", 0, probes[2].begun);
}

void sharing_critical(void)
{
	if (!critical_event || !have_host())
		skip("needs a critical event that the host can trigger");
	other = critical_event;
	nests = true;
	p0->hook = raise_other;
	p1->hook = raise_more;
	ready(0, p0);
	ready(critical_event, p1);
	if (shared_critical_event)
		ready(shared_critical_event, &probes[2]);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 2, "handler runs of event 0");
	runs_are(p1, 1, "handler runs of the critical event");
	if (shared_critical_event)
		runs_are(&probes[2], 1, "handler runs of the other critical event");
	IS("event number in the critical handler", critical_event, p1->event);
	/* A critical handler alone holds back a normal event too. */
	p0->hook = p1->hook = NULL;
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 3, "handler runs of event 0");
}

void sharing_any(void)
{
	need_cpus(2);
	p0->hook = quiet_only;
	ready(subject.event, p0);
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
		unmask_on(cpu);
	for (u64 n = 1; n <= 3; n++) {
		trigger(0);
		runs_are(p0, n, "handler runs, one for each trigger");
	}
	IS("handlers that ran at the same time", 0, p0->overlap);
	for (unsigned only = 0; only < nr_cpus; only++) {
		u64 before;

		for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
			mask_on(cpu);
		unmask_on(only);
		before = p0->runs_on[only];
		trigger(0);
		runs_are(p0, 4 + only, "handler runs, one for each trigger");
		IS("runs on the only PE that is not masked", before + 1, p0->runs_on[only]);
	}
	/* Pending while nobody can: the first that unmasks takes it. */
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
		mask_on(cpu);
	trigger(0);
	settle();
	IS("handler runs while all PEs are masked", 3 + nr_cpus, p0->runs);
	unmask_on(nr_cpus - 1);
	runs_are(p0, 4 + nr_cpus, "handler runs when a PE unmasks");
}

static void trigger_again(struct probe *p, struct entry *e)
{
	(void)e;
	quiet();
	if (p->begun > 1)
		return;
	trigger(1);
	settle();
	IS("handlers that began while one runs", 1, p->begun);
}

void sharing_one_instance(void)
{
	u64 request;

	need_cpus(2);
	p0->hook = trigger_again;
	ready(subject.event, p0);
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		unmask_on(cpu);
	request = trigger_begin(0);
	runs_are(p0, 2, "handler runs");
	trigger_end(request);
	IS("handlers that ran at the same time", 0, p0->overlap);
}

/* ---- interrupts ---- */

static u64 irqs_in_handler;

/*
 * The timer expires in the handler. Whether its interrupt is seen pending there is the firmware's affair, which may hold
 * back Non-secure interrupts by priority: only that it is not taken is asked.
 */
static void raise_irq(struct probe *p, struct entry *e)
{
	u64 before = irqs[0], deadline = ticks() + ticks_of_us(LIMIT_US);

	(void)p, (void)e;
	timer_arm(20);
	while (!timer_expired() && ticks() < deadline)
		;
	spin_us(SETTLE_US);
	irqs_in_handler = irqs[0] - before;
}

static void irqs_are(u64 n, const char *what)
{
	u64 deadline = ticks() + ticks_of_us(LIMIT_US);

	while (irqs[0] < n && ticks() < deadline)
		;
	irq_mask();
	IS(what, n, irqs[0]);
}

static u64 nested_runs;

static void signal_in_irq(void)
{
	u64 before = p0->runs;

	smccc(SDEI_EVENT_SIGNAL, 0, affinity(0), 0, 0, 0);
	nested_runs = p0->runs - before;
}

void sharing_interrupts(void)
{
	u64 before = irqs[0];

	p0->hook = raise_irq;
	ready(0, p0);
	irq_unmask();
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
	irqs_are(before + 1, "interrupts taken after COMPLETE");
	IS("interrupts taken within the handler", 0, irqs_in_handler);
	p0->hook = NULL;
	irq_hook = signal_in_irq;
	timer_arm(20);
	irq_unmask();
	irqs_are(before + 2, "interrupts taken");
	irq_hook = NULL;
	IS("handlers that ran within the interrupt's handler", 1, nested_runs);
}
