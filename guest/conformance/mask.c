/* PE_MASK and PE_UNMASK (DEN0054 5.1.12, 5.1.13, 6.5.1). */
#include "conformance.h"

void mask_result(void)
{
	IS("the boot CPU's first PE_MASK: it was masked", 0, first_mask);
	if (nr_cpus > 1 && power_of(1) == 0) {
		unmask_on(1);
		cpu_off(1);
		cpu_on(1);
		CALL_ON(1, 0, SDEI_PE_MASK);
		CALL_ON(1, SUCCESS, SDEI_PE_UNMASK);
		CALL_ON(1, 1, SDEI_PE_MASK);
		CALL_ON(1, 0, SDEI_PE_MASK);
	}
	CALL(SUCCESS, SDEI_PE_UNMASK);
	CALL(SUCCESS, SDEI_PE_UNMASK);
	CALL(1, SDEI_PE_MASK);
	CALL(0, SDEI_PE_MASK);
}

static void need_pending_signals(void)
{
	if (signal_refused)
		skip("SIGNAL to a masked PE is refused here, as TF-A does");
}

void mask_unmask_delivers(void)
{
	u64 seen;

	need_pending_signals();
	ready(0, p0);
	CALL(1, SDEI_PE_MASK);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	settle();
	IS("handler runs while masked", 0, p0->runs);
	/* No wait: the handler comes before the next instruction. */
	smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
	seen = p0->runs;
	IS("handler runs right behind PE_UNMASK", 1, seen);
	runs_are(p0, 1, "handler runs");
}

static u64 mask_results[2];

static void mask_here(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	mask_results[0] = sdei(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	mask_results[1] = sdei(SDEI_PE_MASK, 0, 0, 0, 0, 0);
}

void mask_in_handler(void)
{
	p0->hook = mask_here;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
	IS("PE_MASK in the handler", 1, mask_results[0]);
	IS("PE_MASK in the handler, again", 0, mask_results[1]);
	p0->hook = NULL;
	need_pending_signals();
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	settle();
	IS("handler runs while masked", 1, p0->runs);
	CALL(SUCCESS, SDEI_PE_UNMASK);
	runs_are(p0, 2, "handler runs after PE_UNMASK");
}

void mask_per_pe(void)
{
	need_cpus(2);
	ready_on(1, 0, p1);
	unmask_on(1);
	CALL(1, SDEI_PE_MASK);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
	runs_are(p1, 1, "handler runs on CPU 1 while CPU 0 is masked");
}

void mask_resets(void)
{
	CALL(SUCCESS, SDEI_PE_UNMASK);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	CALL(SUCCESS, SDEI_SHARED_RESET);
	CALL(1, SDEI_PE_MASK);
	CALL(SUCCESS, SDEI_PRIVATE_RESET);
	CALL(SUCCESS, SDEI_SHARED_RESET);
	CALL(0, SDEI_PE_MASK);
}

static void signal_and_mask(struct probe *p, struct entry *e)
{
	(void)e;
	if (p->begun > 1)
		return;
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	CALL(1, SDEI_PE_MASK);
}

/* Signalled while it could be taken, so no firmware refuses it: it pends when the handler that masked the PE ends. */
void mask_pending(void)
{
	p0->hook = signal_and_mask;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs while masked");
	IS("interrupts that the masked PE takes", 1, takes_interrupt(0));
	CALL(SUCCESS, SDEI_PE_UNMASK);
	runs_are(p0, 2, "handler runs after PE_UNMASK");
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 3, "handler runs");
}
