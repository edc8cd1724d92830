/*
 * mode=storm: every CPU makes `count` rounds of pseudo-random calls and checks each result against its own model of what
 * the firmware must know about this CPU. It runs while the host kills and restarts the backend at random moments, so that
 * a call that was lost, or done twice, shows: as a result that the model excludes (a second REGISTER is DENIED, PE_MASK
 * says whether it changed anything), as a register that is not preserved, or as a handler that ran too often or too rarely.
 *
 * Counting signals needs certainty whether one merges with another. So each CPU has an inbox with one place: whoever
 * signals it claims the inbox first, and the handler frees it. Nobody ever waits for an inbox: a round that does not get
 * it does something else.
 */
#include "bench.h"

#define LATE_US 20000

/* An inbox: a number for each use, so that states of different uses never compare equal, and a state. */
enum { CLOSED, FREE, CLAIMED, SENT, STATES };

struct event_model {
	bool registered, enabled;
	u64 argument; /* a new one for each registration: a handler of an old one shows */
};

struct cpu {
	/* model of this CPU in the firmware; the handler reads it, so it opens before a call and closes after it */
	struct event_model events[2]; /* of `numbers` */
	bool masked;
	/* signalling */
	u64 inbox;
	u64 sent;    /* signals that must be handled or dropped; by all CPUs */
	u64 dropped; /* by UNREGISTER */
	volatile u64 handled;
	u64 calls;
	u64 random, handler_random;
};

static struct cpu cpus[MAX_CPUS];
static u64 numbers[2]; /* EVENT, and the private one; 0: there is none */
static bool signal_refused; /* if masked or disabled: the word signal=invalid */
static u64 rounds, version;

static u64 next_random(u64 *state)
{
	u64 x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

static u64 load(u64 *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Moves an inbox on from exactly `from`; returns 0, which no inbox ever is, if it is not there any more. */
static u64 move(u64 *inbox, u64 from, unsigned state)
{
	u64 to = from - from % STATES + (state == CLAIMED ? STATES : 0) + state;

	return __atomic_compare_exchange_n(inbox, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ? to : 0;
}

static bool deliverable(const struct cpu *c)
{
	return c->events[0].registered && c->events[0].enabled && !c->masked;
}

/* A call with known values in all registers: x0 is the only one that may change. */
static u64 call(const char *name, u64 function, u64 x1, u64 x2, u64 x3)
{
	unsigned cpu = this_cpu();
	u64 salt = __atomic_add_fetch(&cpus[cpu].calls, 1, __ATOMIC_RELAXED) << 8 | 0x5ull << 60;
	struct regs regs;

	for (unsigned i = 4; i < 31; i++)
		regs.x[i] = salt + i;
	regs.x[0] = function;
	regs.x[1] = x1;
	regs.x[2] = x2;
	regs.x[3] = x3;
	if (function == SDEI_EVENT_REGISTER)
		regs.x[4] = regs.x[5] = 0;
	regs.nzcv = salt << 20 & NZCV_MASK;
	smccc_full(&regs);
	progress[cpu]++;
	for (unsigned i = 1; i < 31; i++) {
		u64 want = i == 1 ? x1 : i == 2 ? x2 : i == 3 ? x3 : salt + i;

		if (function == SDEI_EVENT_REGISTER && (i == 4 || i == 5))
			want = 0;
		if (regs.x[i] != want)
			fail("%s: x%u not preserved: expected 0x%lx, got 0x%lx", name, i, want, regs.x[i]);
	}
	expect_value("NZCV after a call", salt << 20 & NZCV_MASK, regs.nzcv & NZCV_MASK);
	expect_value("SP after a call", regs.sp_before, regs.sp);
	return regs.x[0];
}

static void check(const char *name, u64 expected, u64 function, u64 x1, u64 x2, u64 x3)
{
	u64 got = call(name, function, x1, x2, x3);

	if (got != expected)
		expect(name, expected, got);
}

/* The gate is open: a signal that was pending for sure before the gate opened must be handled. */
static void wait_handled(struct cpu *c, u64 inbox)
{
	u64 deadline = ticks() + ticks_of_us(wait_us);

	if (inbox % STATES != SENT || !deliverable(c))
		return;
	while (load(&c->inbox) == inbox) {
		if (ticks() > deadline)
			fail("a pending signal's handler: waited for %lu s", wait_us / 1000000);
	}
}

/* ---- one function per kind of round ---- */

static void do_register(struct cpu *c, unsigned which)
{
	struct event_model *e = &c->events[which];
	u64 argument = e->argument + MAX_CPUS;

	if (e->registered) {
		check("EVENT_REGISTER of a registered event", DENIED, SDEI_EVENT_REGISTER, numbers[which], (u64)sdei_entry,
		      argument);
		return;
	}
	e->argument = argument;
	check("EVENT_REGISTER", SUCCESS, SDEI_EVENT_REGISTER, numbers[which], (u64)sdei_entry, argument);
	e->registered = true;
	if (which == 0)
		move(&c->inbox, load(&c->inbox), FREE);
}

static void do_unregister(struct cpu *c, unsigned which)
{
	struct event_model *e = &c->events[which];

	if (!e->registered) {
		check("EVENT_UNREGISTER of an unregistered event", DENIED, SDEI_EVENT_UNREGISTER, numbers[which], 0, 0);
		return;
	}
	if (which == 0) {
		u64 inbox = load(&c->inbox);
		bool drops = inbox % STATES == SENT;

		/* While a signal is under way its fate is open: leave it. */
		if (inbox % STATES == CLAIMED || (drops && deliverable(c)) || !move(&c->inbox, inbox, CLOSED))
			return;
		c->dropped += drops;
	}
	check("EVENT_UNREGISTER", SUCCESS, SDEI_EVENT_UNREGISTER, numbers[which], 0, 0);
	e->registered = e->enabled = false;
}

static void do_enable(struct cpu *c, unsigned which)
{
	struct event_model *e = &c->events[which];
	u64 inbox = load(&c->inbox);

	if (!e->registered) {
		check("EVENT_ENABLE of an unregistered event", DENIED, SDEI_EVENT_ENABLE, numbers[which], 0, 0);
		return;
	}
	e->enabled = true;
	check("EVENT_ENABLE", SUCCESS, SDEI_EVENT_ENABLE, numbers[which], 0, 0);
	wait_handled(c, inbox);
}

static void do_disable(struct cpu *c, unsigned which)
{
	struct event_model *e = &c->events[which];

	check("EVENT_DISABLE", e->registered ? SUCCESS : (u64)DENIED, SDEI_EVENT_DISABLE, numbers[which], 0, 0);
	e->enabled = false;
}

static void do_mask(struct cpu *c)
{
	check("SDEI_PE_MASK", !c->masked, SDEI_PE_MASK, 0, 0, 0);
	c->masked = true;
}

static void do_unmask(struct cpu *c)
{
	u64 inbox = load(&c->inbox);

	c->masked = false;
	check("SDEI_PE_UNMASK", SUCCESS, SDEI_PE_UNMASK, 0, 0, 0);
	wait_handled(c, inbox);
}

static void do_status(struct cpu *c, unsigned which)
{
	struct event_model *e = &c->events[which];

	check("EVENT_STATUS", (e->registered ? REGISTERED : 0) | (e->enabled ? ENABLED : 0), SDEI_EVENT_STATUS, numbers[which], 0,
	      0);
}

/* Signals the owner of an inbox that is free; returns the inbox's value when the call is over, or 0. */
static u64 signal_free(unsigned target)
{
	struct cpu *t = &cpus[target];
	u64 inbox = load(&t->inbox), got;

	if (inbox % STATES != FREE)
		return 0;
	inbox = move(&t->inbox, inbox, CLAIMED);
	if (!inbox)
		return 0;
	got = call("EVENT_SIGNAL", SDEI_EVENT_SIGNAL, EVENT, affinity(target), 0);
	if (signal_refused && got == (u64)INVALID_PARAMETERS) {
		move(&t->inbox, inbox, FREE);
		return 0;
	}
	if (got != SUCCESS)
		expect("EVENT_SIGNAL", SUCCESS, got);
	__atomic_add_fetch(&t->sent, 1, __ATOMIC_RELAXED);
	return move(&t->inbox, inbox, SENT); /* 0: handled already */
}

static void do_signal(struct cpu *c, unsigned cpu, unsigned target)
{
	u64 inbox;

	if (target != cpu) {
		signal_free(target);
		return;
	}
	if (!c->events[0].registered) {
		check("EVENT_SIGNAL of an unregistered event", INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, EVENT, affinity(cpu), 0);
		return;
	}
	inbox = load(&c->inbox);
	if (inbox % STATES == SENT && !deliverable(c))
		check("EVENT_SIGNAL of a pending event", signal_refused ? (u64)INVALID_PARAMETERS : SUCCESS, SDEI_EVENT_SIGNAL, EVENT, affinity(cpu), 0);
	else
		wait_handled(c, signal_free(cpu));
}

static void do_info(unsigned which)
{
	check("EVENT_GET_INFO(type)", 0, SDEI_EVENT_GET_INFO, numbers[which], INFO_TYPE, 0);
	check("EVENT_GET_INFO(routing mode) of a private event", INVALID_PARAMETERS, SDEI_EVENT_GET_INFO, numbers[which],
	      INFO_ROUTING_MODE, 0);
}

static void one_round(struct cpu *c, unsigned cpu)
{
	u64 random = next_random(&c->random);
	unsigned which = numbers[1] ? random >> 8 & 1 : 0;
	unsigned target = (unsigned)(random >> 16 & 0xffff) % nr_cpus;

	switch (random >> 32 & 15) {
	case 0:
		check("SDEI_VERSION", version, SDEI_VERSION, 0, 0, 0);
		break;
	case 1:
	case 2:
		do_status(c, which);
		break;
	case 3:
	case 4:
		do_enable(c, which);
		break;
	case 5:
		do_disable(c, which);
		break;
	case 6:
		do_mask(c);
		break;
	case 7:
	case 8:
		do_unmask(c);
		break;
	case 9:
		do_info(which);
		break;
	case 10:
	case 11:
		do_register(c, which);
		break;
	case 12:
		do_unregister(c, which);
		break;
	case 13:
		do_signal(c, cpu, cpu);
		break;
	case 14:
		do_signal(c, cpu, target);
		break;
	case 15:
		if (which)
			check("EVENT_COMPLETE outside of a handler", DENIED, SDEI_EVENT_COMPLETE, 0, 0, 0);
		else
			check("EVENT_CONTEXT outside of a handler", DENIED, SDEI_EVENT_CONTEXT, 0, 0, 0);
		break;
	}
}

u64 storm_handler(struct regs *regs)
{
	unsigned cpu = this_cpu();
	struct cpu *c = &cpus[cpu];
	u64 inbox = load(&c->inbox), random = next_random(&c->handler_random);

	expect_value("handler: event", EVENT, regs->x[0]);
	expect_value("handler: argument", c->events[0].argument, regs->x[1]);
	if (!deliverable(c))
		fail("handler ran while the event was %s",
		     c->masked ? "masked" : c->events[0].registered ? "disabled" : "unregistered");
	if (inbox % STATES != CLAIMED && inbox % STATES != SENT)
		fail("handler ran though no signal was pending (run %lu)", c->handled + 1);
	c->handled++;
	if (!move(&c->inbox, inbox, FREE)) /* the signaller's call ended in between: CLAIMED became SENT */
		move(&c->inbox, load(&c->inbox), FREE);
	if (random % 4 == 0)
		check("EVENT_STATUS in the handler", REGISTERED | ENABLED | RUNNING, SDEI_EVENT_STATUS, EVENT, 0, 0);
	if (random % 8 == 1) /* handled after this run */
		signal_free(cpu);
	return 0;
}

static void print_totals(void)
{
	u64 calls = 0, handled = 0;

	for (unsigned i = 0; i < nr_cpus; i++) {
		struct cpu *c = &cpus[i];

		if (c->handled != c->sent - c->dropped)
			fail("handler runs on CPU %u: expected %lu (%lu signals, %lu dropped), got %lu", i, c->sent - c->dropped, c->sent,
			     c->dropped, c->handled);
		calls += c->calls;
		handled += c->handled;
	}
	printf("storm: ok calls=%lu handled=%lu\n", calls, handled);
}

static void storm_cpu(unsigned cpu)
{
	struct cpu *c = &cpus[cpu];
	u64 deadline;

	check("SDEI_PE_MASK after reset", 0, SDEI_PE_MASK, 0, 0, 0);
	barrier("storm");
	for (u64 i = 0; i < rounds; i++)
		one_round(c, cpu);
	barrier("end of the rounds");
	if (!c->events[0].registered)
		do_register(c, 0);
	do_enable(c, 0);
	do_unmask(c);
	deadline = ticks() + ticks_of_us(wait_us);
	while (load(&c->inbox) % STATES != FREE) {
		if (ticks() > deadline)
			fail("the last signal's handler: waited for %lu s", wait_us / 1000000);
	}
	barrier("last signals");
	/* What comes now comes twice; the handler fails on it. */
	deadline = ticks() + ticks_of_us(LATE_US);
	while (ticks() < deadline)
		;
	check("EVENT_STATUS", REGISTERED | ENABLED, SDEI_EVENT_STATUS, EVENT, 0, 0);
	do_mask(c);
	barrier("totals");
	if (cpu == 0)
		print_totals();
}

void mode_storm(void)
{
	u64 seed = arg_number("seed", 1, 0, 1000000000);

	const char *refused = arg_text("signal", "pend");

	rounds = arg_number("count", 10000, 1, 1000000000);
	args_done();
	signal_refused = text_is(refused, "invalid");
	if (!signal_refused && !text_is(refused, "pend"))
		fail("signal=%s: want pend or invalid", refused);
	numbers[0] = EVENT;
	numbers[1] = private_number;
	version = sdei_version();
	if (private_number)
		expect("EVENT_GET_INFO(type) of the private event", 0,
		       smccc(SDEI_EVENT_GET_INFO, private_number, INFO_TYPE, 0, 0, 0));
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		struct cpu *c = &cpus[cpu];

		c->masked = true;
		c->inbox = STATES + CLOSED;
		c->random = (seed * MAX_CPUS + cpu + 1) * 0x9e3779b97f4a7c15ull;
		c->handler_random = ~c->random;
		for (unsigned which = 0; which < 2; which++)
			c->events[which].argument = (u64)which << 32 | cpu;
	}
	start_cpus(storm_cpu);
	storm_cpu(0);
}
