/* mode=call: one call of the command line's choice. mode=hostile: every CPU calls what no sane guest calls. */
#include "bench.h"

#define POWERDOWN (1u << 16)
#define OWNERS 64
#define NR_SMC_IMMEDIATES 3

static void check_preserved(const char *what, const struct regs *before, const struct regs *after, unsigned first)
{
	for (unsigned i = first; i < 31; i++) {
		if (after->x[i] != before->x[i])
			fail("%s: x%u not preserved: expected 0x%lx, got 0x%lx", what, i, before->x[i], after->x[i]);
	}
	expect_value("NZCV after a call", before->nzcv & NZCV_MASK, after->nzcv & NZCV_MASK);
	expect_value("SP after a call", after->sp_before, after->sp);
}

void mode_call(void)
{
	static const char *const names[] = { "function", "a1", "a2", "a3", "a4", "a5" };
	u64 wake_us = arg_number("wake_us", 0, 0, 10000000), stay = arg_number("stay", 0, 0, 1);
	struct regs regs, before;

	for (unsigned i = 0; i < 31; i++)
		regs.x[i] = i < 6 ? arg_number(names[i], 0, 0, ~0ul) : 0x5a00 + i;
	args_done();
	regs.nzcv = 0x60000000;
	before = regs;
	if (wake_us) {
		gic_init();
		timer_arm(wake_us);
	}
	smccc_full(&regs);
	if (wake_us) {
		printf("call: the timer has %s\n", timer_expired() ? "expired" : "not expired");
		timer_stop();
	}
	check_preserved("the call", &before, &regs, 18);
	printf("call: x0=0x%lx x1=0x%lx x2=0x%lx x3=0x%lx\n", regs.x[0], regs.x[1], regs.x[2], regs.x[3]);
	while (stay)
		__asm__ volatile("wfi");
}

/* ---- hostile ---- */

static u64 random_state[MAX_CPUS];
static u64 calls[MAX_CPUS], traps[MAX_CPUS];
static u64 rounds;

static u64 next_random(unsigned cpu)
{
	u64 x = random_state[cpu];

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return random_state[cpu] = x;
}

/* Numbers that look like something as often as not. */
static u64 odd_number(unsigned cpu)
{
	u64 random = next_random(cpu);

	switch (random % 8) {
	case 0:
		return random >> 60;
	case 1:
		return ~(random >> 60);
	case 2:
		return 1ul << (random >> 58);
	case 3:
		return affinity((unsigned)(random >> 60));
	case 4:
		return 0x100 + (random >> 62);
	case 5:
		return (u64)&random_state + (random >> 56);
	case 6:
		return 0x40000000 + (random >> 32);
	default:
		return random;
	}
}

/* Calls that take this guest away, or bring an event into a handler that is none. */
static bool is_fatal(const u64 *x)
{
	switch (x[0] & ~0x40010000u & 0xffffffff) {
	case PSCI_CPU_SUSPEND & ~PSCI_64:
		return !(x[1] & POWERDOWN) || !(x[2] & 3); /* standby, where nobody wakes us; a wake-up to anywhere */
	case PSCI_SYSTEM_SUSPEND:
		return !(x[1] & 3);
	case PSCI_CPU_OFF:
	case PSCI_CPU_ON & ~PSCI_64:
	case PSCI_SYSTEM_OFF:
	case PSCI_SYSTEM_RESET:
	case PSCI_SYSTEM_RESET2:
	case SDEI_PE_UNMASK & ~PSCI_64:
		return true;
	}
	return false;
}

static u64 odd_function(unsigned cpu)
{
	u64 random = next_random(cpu);
	u64 owner = (random >> 8) % OWNERS, number = random >> 32 & 0xff, width = random >> 16 & 1;

	switch (random & 7) {
	case 0:
		return random; /* bits above 31, yielding calls, anything */
	case 1:
	case 2:
		return 0x80000000 | width << 30 | owner << 24 | number;
	case 3:
		return PSCI_VERSION | width << 30 | (number & 0x1f);
	case 4:
		return 0xc4010020 + (number & 0x1f); /* with the SVE hint */
	default:
		return 0x84000020 | width << 30 | (number & 0x1f); /* SDEI */
	}
}

static void one_call(unsigned cpu)
{
	struct regs regs, before;

	for (unsigned i = 0; i < 31; i++)
		regs.x[i] = odd_number(cpu);
	regs.x[0] = odd_function(cpu);
	regs.nzcv = next_random(cpu) & NZCV_MASK;
	if (is_fatal(regs.x))
		return;
	before = regs;
	smccc_full(&regs);
	check_preserved("an odd call", &before, &regs, 4);
	calls[cpu]++;
}

/* What it does must come back as an undefined instruction, with the instruction's own address. */
static void one_trap(unsigned cpu, const char *what, void (*code)(void))
{
	struct trap trap = trapped(code);

	if (trap.esr != 0x02000000)
		fail("%s: expected an undefined instruction, got ESR 0x%lx", what, trap.esr);
	expect_value("ELR of an undefined instruction", (u64)code, trap.elr);
	traps[cpu]++;
}

static void hostile_cpu(unsigned cpu)
{
	static u64 (*const immediates[NR_SMC_IMMEDIATES])(u64) = { smc_1, smc_0x1234, smc_0xffff };

	random_state[cpu] = (cpu + 1) * 0x9e3779b97f4a7c15ull;
	barrier("hostile");
	for (u64 i = 0; i < rounds; i++) {
		one_call(cpu);
		if (i % 64 == 0) {
			/* A Group 0 register of the GIC: it belongs to EL3, which has its FIQs. */
			one_trap(cpu, "ICC_IAR0_EL1", read_iar0);
			trapped(write_sgi0r); /* or not: the GIC ignores it then */
			calls[cpu]++;
			immediates[i / 64 % NR_SMC_IMMEDIATES](SDEI_VERSION);
			if (at_el2()) { /* from an EL1 that is not the client's level */
				expect("SDEI_VERSION from EL1 below the client", NOT_SUPPORTED, smc_from_el1(SDEI_VERSION).x0);
				calls[cpu]++;
			} else { /* from EL0 it is an undefined instruction, which EL3 never sees */
				if (smc_from_el0(SDEI_VERSION).esr >> 26)
					fail("SMC at EL0 is no undefined instruction");
				traps[cpu]++;
			}
		}
		progress[cpu]++;
	}
	barrier("end of the rounds");
	/* Nothing of all this may have got a handler or a mask into this CPU. */
	expect("SDEI_PE_MASK of a CPU that never unmasked", 0, smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0));
	barrier("totals");
	if (cpu == 0) {
		u64 all_calls = 0, all_traps = 0;

		for (unsigned i = 0; i < nr_cpus; i++) {
			all_calls += calls[i];
			all_traps += traps[i];
		}
		printf("hostile: ok calls=%lu traps=%lu\n", all_calls, all_traps);
		return;
	}
	for (;;)
		__asm__ volatile("wfi");
}

void mode_hostile(void)
{
	rounds = arg_number("count", 2000, 1, 1000000000);
	args_done();
	sdei_version();
	start_cpus(hostile_cpu);
	hostile_cpu(0);
}
