/* Code that an event interrupts while its registers are known. */
#include "conformance.h"

#define ROUNDS 100000000ul
#define START_US 2000000ul
#define HCR_TGE (1ul << 27)

struct regs sent;
volatile uint32_t spin_flag;
static volatile uint32_t spin_round;

u64 sctlr(void)
{
	return at_el2() ? READ(sctlr_el2) : READ(sctlr_el1);
}

void set_sctlr(u64 value)
{
	if (at_el2())
		WRITE(sctlr_el2, value);
	else
		WRITE(sctlr_el1, value);
}

u64 fill(struct regs *r, u64 function, u64 x1, u64 x2)
{
	static u64 salt;
	u64 pattern = (0xc0deull << 48) + (++salt << 16);

	for (unsigned i = 0; i < 31; i++)
		r->x[i] = pattern + i;
	r->x[0] = function;
	r->x[1] = x1;
	r->x[2] = x2;
	r->nzcv = 0x60000000;
	return pattern;
}

struct regs signal_with_pattern(void)
{
	struct regs r;

	fill(&r, SDEI_EVENT_SIGNAL, 0, affinity(0));
	sent = r;
	sent.x[0] = SUCCESS; /* the call is over when the event comes */
	smccc_full(&r);
	log_call(SDEI_EVENT_SIGNAL, 0, affinity(0), 0, r.x[0]);
	return r;
}

static u64 signal_cpu_0(u64 argument)
{
	u64 deadline = ticks() + ticks_of_us(START_US);

	(void)argument;
	while (!spin_round && ticks() < deadline)
		;
	return sdei(SDEI_EVENT_SIGNAL, 0, affinity(0), 0, 0, 0);
}

bool interrupt_el0(u64 pstate, const void *code, struct entry *after)
{
	const u64 x[3] = { (u64)&spin_flag, ROUNDS, (u64)&spin_round };
	u64 hcr = at_el2() ? READ(hcr_el2) : 0;

	if (pstate & 0x10 && (READ(id_aa64pfr0_el1) & 0xf) != 2)
		return false;
	spin_flag = spin_round = 0;
	if (at_el2())
		WRITE(hcr_el2, hcr | HCR_TGE); /* EL0 is ours */
	start_on(1, signal_cpu_0, 0);
	below(pstate, code, x, after);
	if (at_el2())
		WRITE(hcr_el2, hcr);
	IS("SIGNAL from CPU 1", SUCCESS, finish_on(1));
	return true;
}
