/*
 * mode=journey: one walk through the states that an event can be in, with a line for each: what the firmware says and what
 * this CPU saw. Nothing in a line depends on time, so a run that was migrated anywhere prints what one does that was not.
 */
#include "bench.h"

#define CRITICAL critical_number
#define ARGUMENT 0x5de1u

void journey_entry(void);
void fuzz_resume(void);

static volatile u64 runs, critical_runs;

static void report(const char *where)
{
	printf("journey: %s: status %lu critical %lu runs %lu %lu\n", where, smccc(SDEI_EVENT_STATUS, EVENT, 0, 0, 0, 0),
	       smccc(SDEI_EVENT_STATUS, CRITICAL, 0, 0, 0, 0), runs, critical_runs);
}

/* What the handler interrupted, in one number. */
static u64 context(void)
{
	u64 sum = 0;

	for (u64 i = 0; i < 18; i++)
		sum = sum * 31 + smccc(SDEI_EVENT_CONTEXT, i, 0, 0, 0, 0);
	return sum;
}

static void in_handler(const char *where, u64 pc)
{
	printf("journey: in the handler: context %lx at %lx\n", context(), pc);
	report(where);
}

static void first(u64 pc)
{
	in_handler("running", pc);
	expect("EVENT_SIGNAL", SUCCESS, smccc(SDEI_EVENT_SIGNAL, EVENT, affinity(0), 0, 0, 0));
	report("running and pending");
}

static u64 second(u64 pc)
{
	in_handler("running again", pc);
	expect("EVENT_UNREGISTER", PENDING, smccc(SDEI_EVENT_UNREGISTER, EVENT, 0, 0, 0, 0));
	report("unregister pending");
	return (u64)fuzz_resume;
}

static void third(u64 pc)
{
	in_handler("before the critical one", pc);
	printf("journey: waits for event 0x%lx\n", CRITICAL);
	wait_at_least(&critical_runs, 1, "the critical event");
	report("after the critical one");
}

/* Returns 0 to end with COMPLETE, or where COMPLETE_AND_RESUME goes. */
u64 journey_handler(u64 event, u64 argument, u64 pc)
{
	expect_value("handler: argument", ARGUMENT + event, argument);
	if (event == CRITICAL) {
		report("critical"); /* what it interrupted is a matter of time */
		critical_runs++;
		return 0;
	}
	switch (++runs) {
	case 1:
		first(pc);
		return 0;
	case 2:
		return second(pc);
	default:
		third(pc);
		return 0;
	}
}

/* A call with known values in all registers, which a handler interrupts. */
static void call(const char *name, u64 function, u64 x1)
{
	struct regs regs;

	for (unsigned i = 0; i < 31; i++)
		regs.x[i] = 0x1111111111111111ul * (i % 15 + 1) + i;
	regs.x[0] = function;
	regs.x[1] = x1;
	regs.x[2] = function == SDEI_EVENT_SIGNAL ? affinity(0) : 2;
	regs.nzcv = NZCV_MASK & 0x6ul << 28;
	smccc_full(&regs);
	expect(name, SUCCESS, regs.x[0]);
	for (unsigned i = 3; i < 31; i++)
		expect_value("a register after a handler", 0x1111111111111111ul * (i % 15 + 1) + i, regs.x[i]);
	expect_value("NZCV after a handler", NZCV_MASK & 0x6ul << 28, regs.nzcv & NZCV_MASK);
	expect_value("SP after a handler", regs.sp_before, regs.sp);
}

static void register_event(u64 event)
{
	expect("EVENT_REGISTER", SUCCESS,
	       smccc(SDEI_EVENT_REGISTER, event, (u64)journey_entry, ARGUMENT + event, 0, 0));
}

static void off_again(unsigned cpu)
{
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	fail("CPU_OFF returned on CPU %u", cpu);
}

static void other_cpu(void)
{
	u64 deadline = ticks() + ticks_of_us(wait_us), state = 0;

	start_cpus(off_again);
	while (nr_cpus > 1 && (state = smccc(PSCI_AFFINITY_INFO, affinity(1), 0, 0, 0, 0)) != 1)
		if (ticks() > deadline)
			fail("CPU 1 is not off");
	printf("journey: CPU 1 is %lu\n", state);
}

void mode_journey(void)
{
	u64 waits = arg_number("wait", 0, 0, 1);

	args_done();
	sdei_version();
	if (waits) {
		printf("journey: waits for a key\n");
		if (console_read(wait_us) < 0)
			fail("no key");
	}
	other_cpu();
	register_event(EVENT);
	report("registered");
	smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	call("EVENT_ENABLE", SDEI_EVENT_ENABLE, EVENT);
	report("enabled");
	call("EVENT_SIGNAL", SDEI_EVENT_SIGNAL, EVENT);
	report("pending, masked");
	call("EVENT_DISABLE", SDEI_EVENT_DISABLE, EVENT);
	expect("SDEI_PE_UNMASK", SUCCESS, smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0));
	report("pending, disabled");
	call("EVENT_ENABLE with an event pending", SDEI_EVENT_ENABLE, EVENT);
	report("handled twice, unregistered");
	register_event(EVENT);
	register_event(CRITICAL);
	call("EVENT_ENABLE", SDEI_EVENT_ENABLE, CRITICAL);
	call("EVENT_ENABLE", SDEI_EVENT_ENABLE, EVENT);
	call("EVENT_SIGNAL", SDEI_EVENT_SIGNAL, EVENT);
	report("all done");
	printf("journey: ok\n");
}
