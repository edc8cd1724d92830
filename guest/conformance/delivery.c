/* Handler entry and the interrupted context (DEN0054 5.2.1, 5.1.5). */
#include "conformance.h"

#define PSTATE_DAIF 0x3c0ul
/* NZCV, SS, IL, DAIF, nRW and M: the others depend on the CPU. */
#define PSTATE_CHECKED (NZCV_MASK | 0x300000ul | PSTATE_DAIF | 0x1ful)

#define SCTLR_SPAN (1ul << 23)
#define SCTLR_DSSBS (1ul << 44)

static u64 el(void)
{
	return at_el2() ? 0x9 : 0x5;
}

static u64 contexts[NR_CONTEXT + 1];

static void read_context(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	scribble();
	for (u64 i = 0; i <= NR_CONTEXT; i++)
		contexts[i] = sdei(SDEI_EVENT_CONTEXT, i, 0, 0, 0, 0);
}

void delivery_entry(void)
{
	p0->hook = read_context;
	ready(0, p0);
	signal_with_pattern();
	runs_are(p0, 1, "handler runs");
	IS("handler entry: x0, the event", 0, p0->entry.x[0]);
	IS("handler entry: x1, the argument", (u64)p0, p0->entry.x[1]);
	IS("handler entry: x2, behind the call", smccc_full_return(), p0->entry.x[2]);
	IS("CONTEXT(0): SIGNAL's result", SUCCESS, contexts[0]);
}

/* ---- interrupted below ---- */

static void end_spin(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	spin_flag = 1;
}

static void pstate_is(void)
{
	IS("handler PSTATE: EL", el() & 0xc, p0->entry.el);
	IS("handler PSTATE: SPSel", 1, p0->entry.spsel);
	IS("handler PSTATE: DAIF", PSTATE_DAIF, p0->entry.daif);
}

void delivery_pstate(void)
{
	struct entry after;

	p0->hook = end_spin;
	ready(0, p0);
	__asm__ volatile("msr daifclr, #15" ::: "memory");
	signal_with_pattern();
	__asm__ volatile("msr daifset, #15" ::: "memory");
	runs_are(p0, 1, "handler runs");
	pstate_is();
	IS("handler entry: x3, PSTATE with DAIF = 0", 0x60000000 | el(), p0->entry.x[3] & PSTATE_CHECKED);
	IS("handler PSTATE: NZCV", 0x60000000, p0->entry.nzcv & NZCV_MASK);
	need_cpus(2);
	interrupt_el0(0, el0_spin, &after);
	runs_are(p0, 2, "handler runs from EL0");
	pstate_is();
	IS("handler entry: x3, PSTATE of EL0", 0, p0->entry.x[3] & PSTATE_CHECKED & ~NZCV_MASK);
	if (p0->entry.x[2] < (u64)el0_spin || p0->entry.x[2] >= (u64)el0_spin_end)
		IS("handler entry: x2, in the code at EL0", (u64)el0_spin, p0->entry.x[2]);
}

void delivery_interrupts_masked(void)
{
	ready(0, p0);
	__asm__ volatile("msr daifset, #15" ::: "memory");
	signal_with_pattern();
	runs_are(p0, 1, "handler runs with DAIF set");
	IS("handler entry: x3, PSTATE with DAIF = 15", 0x60000000 | PSTATE_DAIF | el(), p0->entry.x[3] & PSTATE_CHECKED);
}

/* ---- PSTATE by feature ---- */

static struct {
	bool pan, uao, dit, ssbs, tco;
} has;
static u64 found_pan, found_uao, found_dit, found_ssbs, found_tco;

static void look_for_features(void)
{
	u64 mmfr1 = READ(id_aa64mmfr1_el1), mmfr2 = READ(S3_0_C0_C7_2);
	u64 pfr0 = READ(id_aa64pfr0_el1), pfr1 = READ(id_aa64pfr1_el1);

	has.pan = mmfr1 >> 20 & 0xf;
	has.uao = mmfr2 >> 4 & 0xf;
	has.dit = pfr0 >> 48 & 0xf;
	has.ssbs = (pfr1 >> 4 & 0xf) >= 2;
	has.tco = (pfr1 >> 8 & 0xf) >= 2;
}

static void read_pstate(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	found_pan = has.pan ? READ(S3_0_C4_C2_3) >> 22 & 1 : 0;
	found_uao = has.uao ? READ(S3_0_C4_C2_4) >> 23 & 1 : 0;
	found_dit = has.dit ? READ(S3_3_C4_C2_5) >> 24 & 1 : 0;
	found_ssbs = has.ssbs ? READ(S3_3_C4_C2_6) >> 12 & 1 : 0;
	found_tco = has.tco ? READ(S3_3_C4_C2_7) >> 25 & 1 : 0;
}

void delivery_pan(void)
{
	u64 control = sctlr();
	bool span_counts = !at_el2() || (READ(hcr_el2) >> 27 & 0x81) == 0x81; /* E2H and TGE */

	look_for_features();
	if (!has.pan)
		skip("this CPU has no PAN (--cpu max)");
	p0->hook = read_pstate;
	ready(0, p0);
	for (u64 n = 0; n < 4; n++) {
		u64 pan = n & 1, span = n >> 1;

		set_sctlr(span ? control | SCTLR_SPAN : control & ~SCTLR_SPAN);
		WRITE(S3_0_C4_C2_3, pan << 22);
		signal_with_pattern();
		WRITE(S3_0_C4_C2_3, 0);
		IS("handler runs", n + 1, p0->runs);
		IS(span ? "PAN in the handler with SPAN = 1" : "PAN in the handler with SPAN = 0",
		   span_counts && !span ? 1 : pan, found_pan);
		IS("handler entry: x3, PAN", pan, p0->entry.x[3] >> 22 & 1);
	}
}

void delivery_pstate_features(void)
{
	u64 control = sctlr();

	look_for_features();
	p0->hook = read_pstate;
	ready(0, p0);
	for (u64 n = 0; n < 2; n++) {
		if (has.ssbs) {
			set_sctlr(n ? control & ~SCTLR_DSSBS : control | SCTLR_DSSBS);
			WRITE(S3_3_C4_C2_6, n << 12);
		}
		if (has.dit)
			WRITE(S3_3_C4_C2_5, n << 24);
		if (has.uao)
			WRITE(S3_0_C4_C2_4, n << 23);
		if (has.tco)
			WRITE(S3_3_C4_C2_7, n << 25);
		signal_with_pattern();
		if (has.uao)
			WRITE(S3_0_C4_C2_4, 0);
		IS("handler runs", n + 1, p0->runs);
		IS("handler PSTATE: NZCV", 0x60000000, p0->entry.nzcv & NZCV_MASK);
		IS("handler entry: x3, IL and SS", 0, p0->entry.x[3] & 0x300000);
		if (has.dit)
			IS("DIT in the handler", n, found_dit);
		if (has.uao)
			IS("UAO in the handler", 0, found_uao);
		if (has.ssbs)
			IS("SSBS in the handler, from SCTLR.DSSBS", !n, found_ssbs);
		if (has.tco)
			IS("TCO in the handler", 1, found_tco);
	}
}

/* ---- registers ---- */

void delivery_x4_x17(void)
{
	ready(0, p0);
	signal_with_pattern();
	runs_are(p0, 1, "handler runs");
	for (unsigned i = 4; i < NR_CONTEXT; i++)
		IS("handler entry: a register of x4-x17", sent.x[i], p0->entry.x[i]);
}

static fp_words fp_before, fp_after;

static void read_fp(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	fp_store(fp_after);
}

void delivery_rest(void)
{
	u64 sp0 = 0x5a5a1230, elr = 0x4560, spsr = 0x200003c5;
	struct regs r;

	p0->hook = read_fp;
	ready(0, p0);
	if (!at_el2())
		WRITE(cpacr_el1, READ(cpacr_el1) | 3 << 20);
	WRITE(sp_el0, sp0);
	if (at_el2()) {
		WRITE(elr_el2, elr);
		WRITE(spsr_el2, spsr);
	} else {
		WRITE(elr_el1, elr);
		WRITE(spsr_el1, spsr);
	}
	fp_fill(0x1122334455667788);
	fp_store(fp_before);
	r = signal_with_pattern();
	runs_are(p0, 1, "handler runs");
	for (unsigned i = NR_CONTEXT; i < 31; i++)
		IS("handler entry: a register of x18-x30", sent.x[i], p0->entry.x[i]);
	IS("handler entry: SP", r.sp_before, p0->entry.sp);
	IS("handler entry: SP_EL0", sp0, p0->entry.sp_el0);
	IS("handler entry: ELR", elr, p0->entry.elr);
	IS("handler entry: SPSR", spsr, p0->entry.spsr);
	for (unsigned i = 0; i < 64; i++)
		IS("handler entry: q0-q31", fp_before[i], fp_after[i]);
}

void delivery_context(void)
{
	p0->hook = read_context;
	ready(0, p0);
	signal_with_pattern();
	runs_are(p0, 1, "handler runs");
	for (unsigned i = 0; i < NR_CONTEXT; i++)
		IS("CONTEXT(0-17)", sent.x[i], contexts[i]);
}

static void odd_context(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	CALL(INVALID_PARAMETERS, SDEI_EVENT_CONTEXT, 18);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_CONTEXT, 0x100);
	CALL(INVALID_PARAMETERS, SDEI_EVENT_CONTEXT, 0xffffffff);
	CALL(sent.x[3], SDEI_EVENT_CONTEXT, (1ul << 32) + 3);
}

void delivery_context_range(void)
{
	p0->hook = odd_context;
	ready(0, p0);
	signal_with_pattern();
	runs_are(p0, 1, "handler runs");
}

void delivery_context_outside(void)
{
	CALL(DENIED, SDEI_EVENT_CONTEXT, 0);
	reg(0, p0);
	CALL(DENIED, SDEI_EVENT_CONTEXT, 0);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, 0);
	CALL(DENIED, SDEI_EVENT_CONTEXT, 17);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
	CALL(DENIED, SDEI_EVENT_CONTEXT, 0);
}
