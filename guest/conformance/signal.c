/* EVENT_SIGNAL (DEN0054 5.1.16). */
#include "conformance.h"

#define LITMUS 500
#define LITMUS_US 300000 /* a busy machine may take long for each */

void signal_invalid(void)
{
	ready(0, p0);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 1, affinity(0));
	CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 0x10000, affinity(0));
	if (private_event) {
		ready(private_event, p1);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, private_event, affinity(0));
	}
	if (shared_event) {
		ready(shared_event, p1);
		CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, shared_event, affinity(0));
	}
	CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 0, BAD_AFFINITY);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 0, 0xffffffff);
	settle();
	IS("handler runs", 0, p0->begun + p1->begun);
}

void signal_each_pe(void)
{
	unsigned cpus = nr_cpus < NR_PROBES ? nr_cpus : NR_PROBES;

	need_cpus(2);
	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		ready_on(cpu, 0, &probes[cpu]);
		unmask_on(cpu);
	}
	for (unsigned cpu = 1; cpu < cpus; cpu++) {
		CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(cpu));
		runs_are(&probes[cpu], 1, "handler runs on the signalled PE");
	}
	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		IS("handler runs of each PE, CPU 0 none", cpu ? 1 : 0, probes[cpu].runs);
		IS("handler runs on the PE itself", cpu ? 1 : 0, probes[cpu].runs_on[cpu]);
	}
}

/* Not ready: it pends and runs once when `open` was called, or is refused and never runs. */
static void not_ready(u64 open, const char *what)
{
	u64 before = p0->begun;

	CALL(signal_refused ? INVALID_PARAMETERS : SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	settle();
	IS("handler runs while it must not", before, p0->begun);
	CALL(SUCCESS, open, 0);
	runs_are(p0, before + !signal_refused, what);
}

void signal_not_ready(void)
{
	CALL(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	reg(0, p0);
	not_ready(SDEI_EVENT_ENABLE, "handler runs at ENABLE");
	CALL(1, SDEI_PE_MASK);
	not_ready(SDEI_PE_UNMASK, "handler runs at PE_UNMASK");
	if (signal_refused)
		return;
	/* DISABLE keeps what is pending. */
	CALL(1, SDEI_PE_MASK);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	CALL(SUCCESS, SDEI_EVENT_DISABLE, 0);
	CALL(SUCCESS, SDEI_PE_UNMASK);
	settle();
	IS("handler runs while disabled", 2, p0->begun);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, 0);
	runs_are(p0, 3, "handler runs at ENABLE");
}

void signal_merge(void)
{
	if (signal_refused)
		skip("SIGNAL to a masked PE is refused here, as TF-A does");
	ready(0, p0);
	CALL(1, SDEI_PE_MASK);
	for (unsigned i = 0; i < 5; i++)
		CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	CALL(SUCCESS, SDEI_PE_UNMASK);
	settle();
	if (p0->runs < 1 || p0->runs > 5)
		IS("handler runs for 5 signals, 1 to 5", 1, p0->runs);
}

static void signal_again(struct probe *p, struct entry *e)
{
	(void)e;
	if (p->begun > 1)
		return;
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	settle();
	IS("handlers that began while one runs", 1, p->begun);
}

void signal_own_handler(void)
{
	p0->hook = signal_again;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 2, "handler runs");
	IS("handlers that ran nested", 0, p0->overlap);
}

static volatile u64 message, wrong;

static void read_message(struct probe *p, struct entry *e)
{
	(void)e;
	if (message != p->begun)
		wrong++;
}

void signal_memory(void)
{
	u64 end = ticks() + ticks_of_us(LITMUS_US);

	need_cpus(2);
	message = wrong = 0;
	p1->hook = read_message;
	ready_on(1, 0, p1);
	unmask_on(1);
	for (u64 n = 1; n <= LITMUS && !wrong && ticks() < end; n++) {
		u64 deadline = ticks() + ticks_of_us(1000000);

		message = n;
		if (smccc(SDEI_EVENT_SIGNAL, 0, affinity(1), 0, 0, 0))
			CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
		while (__atomic_load_n(&p1->runs, __ATOMIC_ACQUIRE) < n && ticks() < deadline)
			;
		if (p1->runs != n)
			IS("handler runs", n, p1->runs);
	}
	IS("handlers that saw an old value", 0, wrong);
}
