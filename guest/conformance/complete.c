/* EVENT_COMPLETE and EVENT_COMPLETE_AND_RESUME (DEN0054 5.1.6, 5.1.7, 5.2.2). */
#include "conformance.h"

#define PSTATE_DAIF 0x3c0ul

static void clobber(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	scribble();
}

static void everything_restored(void)
{
	u64 before = READ(daif);
	struct regs r = signal_with_pattern();

	IS("DAIF after COMPLETE", before, READ(daif));
	IS("x0 after COMPLETE: SIGNAL's result", SUCCESS, r.x[0]);
	for (unsigned i = 1; i < 31; i++)
		IS("a register of x1-x30 after COMPLETE", sent.x[i], r.x[i]);
	IS("SP after COMPLETE", r.sp_before, r.sp);
	IS("NZCV after COMPLETE", sent.nzcv, r.nzcv & NZCV_MASK);
}

void complete_restores(void)
{
	p0->hook = clobber;
	ready(0, p0);
	everything_restored();
	__asm__ volatile("msr daifclr, #15" ::: "memory");
	everything_restored();
	__asm__ volatile("msr daifset, #15" ::: "memory");
	runs_are(p0, 2, "handler runs");
}

void complete_status_ignored(void)
{
	static const u64 statuses[] = { 0, 1, 0xdead, ~0ul };

	ready(0, p0);
	for (unsigned i = 0; i < 4; i++) {
		p0->status = statuses[i];
		everything_restored();
		CALL(STATE_3, SDEI_EVENT_STATUS, 0);
	}
	runs_are(p0, 4, "handler runs");
}

void complete_outside(void)
{
	CALL(DENIED, SDEI_EVENT_COMPLETE, 0);
	ready(0, p0);
	CALL(DENIED, SDEI_EVENT_COMPLETE, 0);
	CALL(DENIED, SDEI_EVENT_COMPLETE, 1);
	CALL(STATE_3, SDEI_EVENT_STATUS, 0);
}

void complete_again(void)
{
	p0->hook = quiet_only;
	ready(subject.event, p0);
	for (u64 n = 1; n <= 3; n++) {
		trigger(0);
		runs_are(p0, n, "handler runs");
		state_is(STATE_3);
	}
}

/* ---- COMPLETE_AND_RESUME ---- */

/* The handler resumes at resume_entry, which notes what it finds and returns to the interrupted code. */
static struct regs resume_from_call(void)
{
	struct regs r;

	p0->hook = clobber;
	p0->resume = (u64)resume_entry;
	ready(0, p0);
	r = signal_with_pattern();
	IS("handler runs", 1, p0->runs);
	IS("arrivals at the address of COMPLETE_AND_RESUME", 1, resumes[0]);
	CALL(STATE_3, SDEI_EVENT_STATUS, 0);
	return r;
}

void complete_resume_state(void)
{
	resume_from_call();
	IS("resumed: EL", p0->entry.el, resumed[0].el);
	IS("resumed: SPSel", 1, resumed[0].spsel);
	IS("resumed: DAIF", PSTATE_DAIF, resumed[0].daif);
	IS("resumed: ELR is the handler's x2", p0->entry.x[2], resumed[0].elr);
	IS("resumed: SPSR is the handler's x3", p0->entry.x[3], resumed[0].spsr);
}

void complete_resume_registers(void)
{
	resume_from_call();
	IS("resumed: x0, SIGNAL's result", SUCCESS, resumed[0].x[0]);
	for (unsigned i = 1; i < 31; i++)
		IS("resumed: a register of x1-x30", sent.x[i], resumed[0].x[i]);
	IS("resumed: SP", p0->entry.sp, resumed[0].sp);
}

static void end_spin(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	spin_flag = 1;
	scribble();
}

static void resume_from_el0(u64 pstate, const void *code)
{
	u64 runs = p0->runs, arrivals = resumes[0];
	struct entry after;

	if (!interrupt_el0(pstate, code, &after))
		return; /* this CPU has no such EL0 */
	IS("handler runs from EL0", runs + 1, p0->runs);
	IS("arrivals at the address of COMPLETE_AND_RESUME", arrivals + 1, resumes[0]);
	IS("resumed: SPSR is EL0's PSTATE", pstate, resumed[0].spsr & 0x1f);
	IS("EL0's x0 after ERET", (u64)&spin_flag, after.x[0]);
	IS("EL0 saw the flag that the handler set, and ended", 1, after.x[3]);
	IS("EL0's PSTATE after ERET", pstate, after.spsr & 0x1f);
}

void complete_resume_return(void)
{
	struct regs r = resume_from_call();

	for (unsigned i = 1; i < 31; i++)
		IS("a register of x1-x30 after ERET", sent.x[i], r.x[i]);
	IS("NZCV after ERET", sent.nzcv, r.nzcv & NZCV_MASK);
	IS("SP after ERET", r.sp_before, r.sp);
	need_cpus(2);
	p0->hook = end_spin;
	resume_from_el0(0, el0_spin);
	resume_from_el0(0x10, el0_spin_aarch32);
}

void complete_resume_outside(void)
{
	CALL(DENIED, SDEI_EVENT_COMPLETE_AND_RESUME, (u64)resume_entry);
	CALL(DENIED, SDEI_EVENT_COMPLETE_AND_RESUME, 0);
	ready(0, p0);
	CALL(DENIED, SDEI_EVENT_COMPLETE_AND_RESUME, (u64)resume_entry);
	IS("arrivals at the address of COMPLETE_AND_RESUME", 0, resumes[0]);
}

static void resume_nowhere(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(DENIED, SDEI_EVENT_COMPLETE_AND_RESUME, 0);
	CALL(STATE_7, SDEI_EVENT_STATUS, 0);
}

void complete_resume_invalid(void)
{
	p0->hook = resume_nowhere;
	ready(0, p0);
	everything_restored();
	runs_are(p0, 1, "handler runs");
	CALL(STATE_3, SDEI_EVENT_STATUS, 0);
}
