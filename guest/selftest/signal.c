/* EVENT_SIGNAL: the handler, and what it, the interrupted code and the interrupt controller must see. */
#include "selftest.h"

#define HANDLER_TIMER_US 20

#define PSTATE_DAIF 0x3c0ul
#define PSTATE_I 0x80ul
/* NZCV, SS, IL, DAIF, nRW and M: the others depend on the CPU model. */
#define PSTATE_CHECKED (NZCV_MASK | 0x300000ul | PSTATE_DAIF | 0x1ful)
#define NZCV_PATTERN 0x60000000ul

static u64 pattern(unsigned cpu, unsigned reg)
{
	return 0xc0de000000000000ul | (u64)cpu << 32 | (u64)reg << 16 | 0xa55a;
}

static u64 mode(void)
{
	return at_el2() ? 0x9 : 0x5; /* EL2h, EL1h */
}

static void expect_reg(const char *what, unsigned reg, u64 expected, u64 got)
{
	if (expected != got)
		fail("%s: x%u: expected 0x%lx, got 0x%lx", what, reg, expected, got);
}

u64 sdei_handler(struct regs *regs)
{
	unsigned cpu = this_cpu();
	struct cpu_state *c = &cpus[cpu];
	u64 irqs_before = irqs[cpu];

	c->entry = *regs;
	__asm__ volatile("mrs %0, daif" : "=r"(c->daif));
	__asm__ volatile("mrs %0, SPSel" : "=r"(c->spsel));
	__asm__ volatile("mrs %0, CurrentEL" : "=r"(c->el));
	c->status = smccc(SDEI_EVENT_STATUS, EVENT, 0, 0, 0, 0);
	for (unsigned i = 0; i < NR_CONTEXT; i++)
		c->context[i] = smccc(SDEI_EVENT_CONTEXT, i, 0, 0, 0, 0);
	c->context_18 = smccc(SDEI_EVENT_CONTEXT, NR_CONTEXT, 0, 0, 0, 0);
	/*
	 * An interrupt that comes here must wait for the interrupted code, which has it unmasked. Whether it is seen pending
	 * is the firmware's affair: one may hold back Non-secure interrupts in handlers, by priority.
	 */
	timer_arm(HANDLER_TIMER_US);
	timer_wait_expired();
	c->irqs_in_handler = irqs[cpu] - irqs_before;
	c->spin[0] = 1;
	__atomic_store_n(&c->runs, c->runs + 1, __ATOMIC_RELEASE);
	return 0;
}

/* What holds wherever the event hit: `interrupted` are the registers that the interrupted code had. */
static void check_handler(unsigned cpu, const struct regs *interrupted, unsigned last_reg, u64 sp)
{
	struct cpu_state *c = &cpus[cpu];

	expect_value("EVENT_SIGNAL: handler runs", 1, c->runs);
	expect_reg("handler entry: event", 0, EVENT, c->entry.x[0]);
	expect_reg("handler entry: argument", 1, ARGUMENT(cpu), c->entry.x[1]);
	for (unsigned i = 4; i <= last_reg; i++)
		expect_reg("handler entry: interrupted value", i, interrupted->x[i], c->entry.x[i]);
	expect_value("handler entry: SP", sp, c->entry.sp);
	expect_value("handler PSTATE: DAIF", PSTATE_DAIF, c->daif);
	expect_value("handler PSTATE: SPSel", 1, c->spsel);
	expect_value("handler PSTATE: CurrentEL", mode() & 0xc, c->el);
	expect_value("EVENT_STATUS in the handler", REGISTERED | ENABLED | RUNNING, c->status);
	for (unsigned i = 0; i < NR_CONTEXT; i++)
		expect_reg("EVENT_CONTEXT", i, interrupted->x[i], c->context[i]);
	expect("EVENT_CONTEXT(18)", INVALID_PARAMETERS, c->context_18);
	expect_value("EVENT_SIGNAL: interrupts taken in the handler", 0, c->irqs_in_handler);
}

static void check_after(unsigned cpu, const struct regs *before, const struct regs *after, unsigned last_reg, u64 irqs_before)
{
	wait_at_least(&irqs[cpu], irqs_before + 1, "timer interrupt after EVENT_COMPLETE");
	expect_value("EVENT_SIGNAL: interrupts taken after EVENT_COMPLETE", irqs_before + 1, irqs[cpu]);
	for (unsigned i = 0; i <= last_reg; i++)
		expect_reg("after EVENT_COMPLETE", i, before->x[i], after->x[i]);
}

void signal_self(void)
{
	struct regs sent, regs;
	u64 irqs_before = irqs[0];

	for (unsigned i = 0; i < 31; i++)
		sent.x[i] = pattern(0, i);
	sent.x[0] = SDEI_EVENT_SIGNAL;
	sent.x[1] = EVENT;
	sent.x[2] = affinity(0);
	sent.nzcv = NZCV_PATTERN;
	regs = sent;
	irq_unmask();
	smccc_full(&regs);
	expect("EVENT_SIGNAL to self", SUCCESS, regs.x[0]);
	sent.x[0] = SUCCESS; /* the call was over when the event came */
	check_handler(0, &sent, 30, regs.sp_before);
	expect_reg("handler entry: interrupted PC", 2, smccc_full_return(), cpus[0].entry.x[2]);
	expect_reg("handler entry: interrupted PSTATE", 3, NZCV_PATTERN | (PSTATE_DAIF & ~PSTATE_I) | mode(),
		   cpus[0].entry.x[3] & PSTATE_CHECKED);
	expect_value("handler entry: NZCV", NZCV_PATTERN, cpus[0].entry.nzcv);
	check_after(0, &sent, &regs, 30, irqs_before);
	irq_mask();
	expect_value("after EVENT_COMPLETE: SP", regs.sp_before, regs.sp);
	expect_value("after EVENT_COMPLETE: NZCV", NZCV_PATTERN, regs.nzcv & NZCV_MASK);
}

void signal_wait(void)
{
	unsigned cpu = this_cpu();
	struct cpu_state *c = &cpus[cpu];
	struct regs sent, regs;
	u64 irqs_before = irqs[cpu], pc;

	for (unsigned i = 0; i < 31; i++)
		sent.x[i] = pattern(cpu, i);
	sent.x[27] = ticks() + ticks_of_us(wait_us);
	sent.x[30] = (u64)c->spin;
	regs = sent;
	irq_unmask();
	spin_full(&regs);
	if (!c->spin[0])
		fail("EVENT_SIGNAL from CPU 0: expected the handler to run here, got nothing in %lu s", wait_us / 1000000);
	wait_at_least(&c->runs, 1, "handler");
	check_handler(cpu, &sent, 27, c->entry.sp);
	expect_reg("handler entry: flag address", 30, sent.x[30], c->entry.x[30]);
	expect_value("handler entry: SP is that of the interrupted code", regs.sp, c->entry.sp);
	pc = c->entry.x[2];
	if (pc < (u64)spin_begin || pc >= (u64)spin_end)
		fail("handler entry: x2: expected a PC in 0x%lx..0x%lx, got 0x%lx", (u64)spin_begin, (u64)spin_end, pc);
	expect_reg("handler entry: interrupted PSTATE", 3, (PSTATE_DAIF & ~PSTATE_I) | mode(),
		   c->entry.x[3] & PSTATE_CHECKED & ~NZCV_MASK);
	check_after(cpu, &sent, &regs, 27, irqs_before);
	irq_mask();
}

void signal_other(unsigned target)
{
	wait_at_least(&cpus[target].spin[1], 1, "CPU that is to be signalled");
	expect("EVENT_SIGNAL to another CPU", SUCCESS, smccc(SDEI_EVENT_SIGNAL, EVENT, affinity(target), 0, 0, 0));
	wait_at_least(&cpus[target].runs, 1, "handler on the signalled CPU");
}
