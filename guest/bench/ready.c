/*
 * mode=ready: CPU 0 enables and disables a shared event `count` times; all other CPUs ask for its status meanwhile. An
 * answer that was right before a call has returned must not come after it, wherever answers come from. It says how many
 * of the answers could be judged: those between two of CPU 0's calls.
 */
#include "bench.h"

#define WAITS 8

static u64 begun, ended, judged, count, shared;
static bool over;

static u64 state_after(u64 turn)
{
	return turn % 2 ? REGISTERED | ENABLED : REGISTERED;
}

static u64 status_of(void)
{
	u64 salt = ticks() << 8 | 5;
	struct regs regs;

	for (unsigned i = 0; i < 31; i++)
		regs.x[i] = salt + i;
	regs.x[0] = SDEI_EVENT_STATUS;
	regs.x[1] = shared;
	regs.nzcv = salt << 20 & NZCV_MASK;
	smccc_full(&regs);
	expect_value("x1 after EVENT_STATUS", shared, regs.x[1]);
	for (unsigned i = 2; i < 31; i++)
		expect_value("a register after EVENT_STATUS", salt + i, regs.x[i]);
	expect_value("NZCV after EVENT_STATUS", salt << 20 & NZCV_MASK, regs.nzcv & NZCV_MASK);
	return regs.x[0];
}

static void asks(unsigned cpu)
{
	while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
		u64 turn = __atomic_load_n(&ended, __ATOMIC_ACQUIRE);
		u64 found = status_of();

		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&begun, __ATOMIC_ACQUIRE) == turn) {
			expect_value("EVENT_STATUS between two changes", state_after(turn), found);
			__atomic_add_fetch(&judged, 1, __ATOMIC_RELAXED);
		} else if (found != state_after(0) && found != state_after(1)) {
			fail("EVENT_STATUS while it changes: got 0x%lx", found);
		}
		progress[cpu]++;
	}
	barrier("ready: over");
	if (cpu)
		for (;;)
			__asm__ volatile("wfi");
}

static void answers_judged(u64 more)
{
	u64 wanted = __atomic_load_n(&judged, __ATOMIC_RELAXED) + more, deadline = ticks() + ticks_of_us(wait_us);

	while (nr_cpus > 1 && __atomic_load_n(&judged, __ATOMIC_RELAXED) < wanted) {
		if (ticks() > deadline)
			fail("answers of other CPUs: waited for %lu s", wait_us / 1000000);
	}
}

void mode_ready(void)
{
	u64 stay;

	count = arg_number("count", 2000, 1, 1000000000);
	shared = arg_number("shared", 0x200, 0, 0x7fffffff);
	stay = arg_number("stay", 0, 0, 1);
	args_done();
	sdei_version();
	expect("EVENT_REGISTER", SUCCESS, smccc(SDEI_EVENT_REGISTER, shared, (u64)sdei_count_entry, 0, 0, 0));
	start_cpus(asks);
	for (u64 turn = 1; turn <= count; turn++) {
		u64 until = ticks() + ticks_of_us(turn % 8 * 20); /* so long that answers get ready, now and then */

		while (ticks() < until)
			;
		/* On a busy host the others may not have come to anything: some changes wait for a few answers. */
		if (turn % WAITS == 0)
			answers_judged(WAITS);
		__atomic_store_n(&begun, turn, __ATOMIC_SEQ_CST);
		expect("a change", SUCCESS,
		       smccc(turn % 2 ? SDEI_EVENT_ENABLE : SDEI_EVENT_DISABLE, shared, 0, 0, 0, 0));
		__atomic_store_n(&ended, turn, __ATOMIC_SEQ_CST);
		progress[0]++;
	}
	__atomic_store_n(&over, true, __ATOMIC_RELEASE);
	barrier("ready: over");
	printf("ready: ok changes=%lu judged=%lu\n", count, judged);
	while (stay)
		__asm__ volatile("wfi");
}
