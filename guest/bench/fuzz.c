/*
 * mode=fuzz: all CPUs at once make random calls of SDEI and PSCI, and take the events that come of it; handlers make calls
 * too, and end in both ways. Every result must be one that the call can have, and no call may change more than x0.
 */
#include "bench.h"

#define SIGN_OF_LIFE 25000ul /* rounds */
#define CPU_SUSPEND_POWERDOWN (1u << 16)
#define BAD_ADDRESS (1ul << 55)

struct fuzzer {
	u64 random, calls;
	volatile u64 handled;
	volatile bool in_handler;
};

static struct fuzzer fuzzers[MAX_CPUS];
static u64 rounds, shared;
static bool any_code; /* of another firmware: only that nothing else changes is asked */

void fuzz_entry(void);
void fuzz_resume(void);
u64 fuzz_handler(u64 event, u64 argument, u64 pc);

static u64 next_random(struct fuzzer *f)
{
	u64 x = f->random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return f->random = x;
}

static u64 argument(struct fuzzer *f)
{
	const u64 edges[] = { 0, 1, 2, 15, 16, 18, 27, 47, 288, critical_number, shared, 0x202, 0x40ff0000, 0x40ff0100,
			      0x7fffffff, 0x80000000, 0xffffffff, 1ul << 32, 1ul << 63, ~0ul };
	u64 random = next_random(f);

	switch (random >> 60) {
	case 0:
		return next_random(f);
	case 1 ... 4:
		return edges[(random & 0xffff) % (sizeof(edges) / sizeof(edges[0]))];
	case 5 ... 7:
		return affinity((unsigned)((random & 0xffff) % nr_cpus));
	case 8:
		return private_number + (random & 3);
	default:
		return 0;
	}
}

static u64 function(struct fuzzer *f)
{
	static const u64 useful[] = { SDEI_EVENT_REGISTER, SDEI_EVENT_ENABLE, SDEI_PE_UNMASK, SDEI_EVENT_SIGNAL };
	u64 random = next_random(f);

	switch (random >> 61) {
	case 0:
		return PSCI_VERSION | (random & (PSCI_64 | 0x1f));
	case 1:
		return (random & ~0xfffffffful) | 0xc4010020 | (random & 0x1f); /* odd upper bits, the SVE hint */
	case 2:
	case 3:
	case 4:
		return SDEI_VERSION | (random & 0x1f);
	default:
		return useful[random & 3];
	}
}

/* Calls that take a CPU or the guest away, and those that would bring it where there is no code. */
static bool tame(u64 id, u64 *x, bool in_handler)
{
	switch (id) {
	case SDEI_EVENT_REGISTER:
		x[2] = x[2] & 1 && !any_code ? BAD_ADDRESS : (u64)fuzz_entry; /* another firmware may take it */
		return true;
	case SDEI_EVENT_COMPLETE:
	case SDEI_EVENT_COMPLETE_AND_RESUME:
		return !in_handler;
	}
	switch (id & ~(u64)PSCI_64) {
	case PSCI_CPU_SUSPEND & ~PSCI_64: /* from standby nobody wakes us, from power-down only to an aligned address */
		x[1] |= CPU_SUSPEND_POWERDOWN;
		x[2] |= 2;
		return true;
	case PSCI_SYSTEM_SUSPEND:
		x[1] |= 2;
		return true;
	case PSCI_CPU_ON & ~PSCI_64: /* all are on, and nothing starts there */
		x[2] |= 2;
		return true;
	case PSCI_CPU_OFF:
	case PSCI_SYSTEM_OFF:
	case PSCI_SYSTEM_RESET:
	case PSCI_SYSTEM_RESET2:
		return false;
	}
	return true;
}

static bool is_code(int64_t got, int64_t lowest)
{
	return got <= 0 && got >= lowest;
}

static bool allowed(u64 id, int64_t got)
{
	switch (id) {
	case SDEI_VERSION:
		return got > 0;
	case SDEI_EVENT_REGISTER:
	case SDEI_EVENT_ENABLE:
	case SDEI_EVENT_DISABLE:
	case SDEI_EVENT_ROUTING_SET:
	case SDEI_INTERRUPT_RELEASE:
		return is_code(got, DENIED) && got != NOT_SUPPORTED;
	case SDEI_EVENT_COMPLETE:
	case SDEI_EVENT_COMPLETE_AND_RESUME:
		return got == DENIED;
	case SDEI_EVENT_CONTEXT:
		return true;
	case SDEI_EVENT_UNREGISTER:
		return got == SUCCESS || got == INVALID_PARAMETERS || got == DENIED || got == PENDING;
	case SDEI_EVENT_STATUS:
		return got == INVALID_PARAMETERS || (got >= 0 && got <= 7 && got != 2 && got != 6);
	case SDEI_EVENT_GET_INFO:
		return got == INVALID_PARAMETERS || got == DENIED || (got >= 0 && got < MAX_CPUS);
	case SDEI_PE_MASK:
		return got == 0 || got == 1;
	case SDEI_PE_UNMASK:
		return got == SUCCESS;
	case SDEI_INTERRUPT_BIND:
		return got > 0 || got == INVALID_PARAMETERS || got == -10;
	case SDEI_EVENT_SIGNAL:
		return got == SUCCESS || got == INVALID_PARAMETERS;
	case SDEI_FEATURES:
		return got >= 0 || got == INVALID_PARAMETERS;
	case SDEI_PRIVATE_RESET:
	case SDEI_SHARED_RESET:
		return got == SUCCESS || got == DENIED;
	}
	if (id > SDEI_SHARED_RESET && id <= 0xc400003f)
		return got == NOT_SUPPORTED;
	return got >= -9; /* PSCI */
}

static void one_call(struct fuzzer *f, bool in_handler)
{
	struct regs regs, before;
	u64 id;

	for (unsigned i = 0; i < 31; i++)
		regs.x[i] = argument(f);
	regs.x[0] = function(f);
	regs.nzcv = next_random(f) & NZCV_MASK;
	id = regs.x[0] & 0xfffeffff;
	if (!tame(id, regs.x, in_handler))
		return;
	before = regs;
	smccc_full(&regs);
	if (!any_code && !allowed(id, (int64_t)regs.x[0]))
		fail("fuzz: 0x%lx(0x%lx, 0x%lx, 0x%lx, 0x%lx, 0x%lx) returned 0x%lx", before.x[0], before.x[1],
		     before.x[2], before.x[3], before.x[4], before.x[5], regs.x[0]);
	for (unsigned i = 1; i < 31; i++) {
		if (regs.x[i] != before.x[i])
			fail("fuzz: 0x%lx changed x%u from 0x%lx to 0x%lx", before.x[0], i, before.x[i], regs.x[i]);
	}
	expect_value("NZCV after a call", before.nzcv, regs.nzcv & NZCV_MASK);
	expect_value("SP after a call", regs.sp_before, regs.sp);
	f->calls++;
}

u64 fuzz_handler(u64 event, u64 argument, u64 pc)
{
	struct fuzzer *f = &fuzzers[this_cpu()];
	bool outer = f->in_handler;
	struct fuzzer own = { .random = f->random ^ event ^ argument ^ ticks() };

	f->in_handler = true;
	for (u64 n = own.random & 3; n; n--)
		one_call(&own, true);
	f->handled++;
	f->in_handler = outer;
	/* What fuzz_resume returns to must not be overwritten before it has. */
	return pc != (u64)fuzz_resume && own.random >> 63 ? (u64)fuzz_resume : 0;
}

static void fuzz_cpu(unsigned cpu)
{
	struct fuzzer *f = &fuzzers[cpu];

	barrier("fuzz");
	for (u64 i = 0; i < rounds; i++) {
		/* A long silence is taken for a guest that hangs. */
		if (cpu == 0 && i && i % SIGN_OF_LIFE == 0)
			printf("fuzz: %lu of %lu rounds\n", i, rounds);
		one_call(f, false);
		progress[cpu]++;
	}
	smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	barrier("end of the rounds");
	while (cpu)
		__asm__ volatile("wfi");
}

void mode_fuzz(void)
{
	u64 seed = arg_number("seed", 1, 1, 1000000000), calls = 0, handled = 0;

	const char *codes = arg_text("codes", "ours");

	any_code = text_is(codes, "any");
	if (!any_code && !text_is(codes, "ours"))
		fail("codes=%s: want ours or any", codes);
	shared = arg_number("shared", 0x200, 0, 0x7fffffff);
	rounds = arg_number("count", 10000, 1, 1000000000);
	args_done();
	sdei_version();
	for (unsigned i = 0; i < nr_cpus; i++)
		fuzzers[i].random = (seed * MAX_CPUS + i + 1) * 0x9e3779b97f4a7c15ul;
	start_cpus(fuzz_cpu);
	fuzz_cpu(0);
	for (unsigned i = 0; i < nr_cpus; i++) {
		calls += fuzzers[i].calls;
		handled += fuzzers[i].handled;
	}
	printf("fuzz: ok calls=%lu handled=%lu seed=%lu\n", calls, handled, seed);
}
