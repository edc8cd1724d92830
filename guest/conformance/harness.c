/*
 * Runs the scenarios of list.h that the command line selects and prints TAP 13. Lines of the form `#! word ...` are for a
 * host program that looks after the guest: `#! run N` before a scenario, `#! kind N K` before each kind of event it is tried
 * with, `#! failed N` and the triggers of trigger.c, which are answered by one character.
 */
#include "harness.h"

#define LAST_SCENARIO 102
#ifdef EXTRA_SCENARIOS /* a folder of the user's own was compiled in: numbers 201 to 299 */
#define CONF_SCENARIOS 299
#else
#define CONF_SCENARIOS LAST_SCENARIO
#endif

#define SCENARIO(number, group, function, name, source, flags) void group##_##function(void);
#define ELSEWHERE(...)
#include "list.h"
#ifdef EXTRA_SCENARIOS
#include "scenarios.h"
#endif
#undef SCENARIO
#undef ELSEWHERE
#define SCENARIO(number, group, function, name, source, flags) \
	{ number, #group, name, source, NULL, group##_##function, flags },
#define ELSEWHERE(number, name, source, where) { number, "", name, source, where, NULL, 0 },
static const struct scenario scenarios[] = {
#include "list.h"
#ifdef EXTRA_SCENARIOS
#include "scenarios.h"
#endif
};
#define NR_SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

struct subject subject;
const struct scenario *current;
static u64 escape[CONTEXT_WORDS];
static bool interface_present, running, reported[CONF_SCENARIOS + 1];
static const char *skipped;
static int from_kind = -1; /* of the first scenario: what is behind this kind only */

void leave(void)
{
	if (this_cpu() == 0 && !handler_depth[0] && running)
		context_load(escape);
}

void leave_scenario(void)
{
	context_load(escape);
}

bool in_scenario(void)
{
	return running;
}

void skip(const char *why)
{
	skipped = why;
	context_load(escape);
}

/* ---- one scenario ---- */

static u64 clean_work(u64 argument)
{
	u64 code;

	(void)argument;
	irq_mask();
	timer_stop();
	ppi_quiet();
	irq_hook = NULL;
	code = smccc(SDEI_PRIVATE_RESET, 0, 0, 0, 0, 0);
	smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	watchdog_arm();
	return code;
}

/* A firmware that failed may have left CPUs deaf: what they failed at next would be told of other scenarios. */
static void check_cpus(void)
{
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		if (!on(cpu, takes_interrupt, 0))
			bail_out("no interrupt comes any more behind the failure, on CPU", cpu);
		if (!on(cpu, takes_event, 0))
			bail_out("no event comes any more behind the failure, on CPU", cpu);
		on(cpu, clean_work, 0);
	}
}

/* All CPUs on, masked but for CPU 0, nothing registered or bound. What a scenario broke beyond this ends the guest. */
static void clean(u64 control)
{
	u64 code = 0;

	irq_mask();
	for (unsigned i = 0; i < NR_PROBES; i++)
		probes[i].hold = 0;
	set_sctlr(control);
	uart_quiet();
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		if (!cpu_is_up(cpu))
			cpu_on(cpu);
		else if (cpu_is_busy(cpu))
			finish_on(cpu);
		code |= on(cpu, clean_work, 0);
	}
	code |= smccc(SDEI_SHARED_RESET, 0, 0, 0, 0, 0);
	spi_set_edge(UART_SPI, false);
	intid_enable(TIMER_PPI, false);
	intid_enable(UART_SPI, false);
	intid_enable(RTC_SPI, false);
	spi_set_pending(TIMER_PPI, false);
	spi_set_pending(UART_SPI, false);
	spi_set_pending(RTC_SPI, false);
	memset(probes, 0, sizeof(probes));
	memset(resumed, 0, sizeof(resumed));
	for (unsigned cpu = 0; cpu < MAX_CPUS; cpu++)
		resumes[cpu] = 0;
	if (interface_present && code)
		give_up("what the scenario left can be reset", code);
	if (interface_present && failed)
		check_cpus();
	smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
}

/* Runs the scenario with `subject` as it is; true: it ran and did not fail. */
static bool attempt(void)
{
	u64 control = sctlr();

	skipped = NULL;
	failed = false;
	log_clear();
	recover_begin();
	running = true;
	if (!context_save(escape)) {
		if (subject.bound) {
			u64 event = smccc(SDEI_INTERRUPT_BIND, subject.how == BY_TIMER ? TIMER_PPI : UART_SPI, 0, 0, 0, 0);

			if ((int64_t)event < 0)
				FAIL("the subject's interrupt can be bound");
			subject.event = event;
		}
		current->run();
	}
	running = false;
	if (failed)
		kind_failed();
	clean(control);
	return !failed && !skipped;
}

static const struct {
	const char *kind;
	bool shared, bound;
	enum how how;
} kinds[] = {
	{ "software event", false, false, BY_SIGNAL }, { "private event", false, false, BY_HOST },
	{ "shared event", true, false, BY_HOST },      { "bound PPI", false, true, BY_TIMER },
	{ "bound SPI", true, true, BY_UART },
};

static const char *why_not(unsigned kind, unsigned flags)
{
	bool shared = kinds[kind].shared, bound = kinds[kind].bound;

	if ((flags & PRIVATE && shared) || (flags & SHARED && !shared) || (flags & BOUND && !bound))
		return "";
	if (bound && !(shared ? shared_slots : private_slots))
		return "FEATURES reports no slots for bound events";
	if (kinds[kind].how == BY_HOST && !(shared ? shared_event : private_event))
		return "no such static event";
	if (kinds[kind].how == BY_HOST && flags & TRIGGERED && !have_host())
		return "nothing here can trigger a static event (trigger=console)";
	return NULL;
}

static void select_kind(unsigned kind)
{
	subject.kind = kinds[kind].kind;
	subject.shared = kinds[kind].shared;
	subject.bound = kinds[kind].bound;
	subject.how = kinds[kind].how;
	subject.event = kinds[kind].how != BY_HOST ? 0 : subject.shared ? shared_event : private_event;
}

/* Tries each kind of event that the scenario is about. Why it was not tried with any, if it was not. */
static const char *run_kinds(const struct scenario *s, bool *ran, bool *bad)
{
	const char *why = NULL;

	for (unsigned kind = (unsigned)(from_kind + 1); kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		const char *reason = why_not(kind, s->flags);

		if (!reason) {
			select_kind(kind);
			printf("#! kind %u %u\n", s->number, kind);
			*ran |= attempt();
			*bad |= failed;
			reason = failed ? NULL : skipped;
		}
		if (reason && *reason) {
			printf("# %u not with a %s: %s\n", s->number, kinds[kind].kind, reason);
			why = why ? why : reason;
		}
	}
	return why;
}

static void run(const struct scenario *s)
{
	bool ran = false, bad = false;
	const char *why = NULL;

	if (s->number > CONF_SCENARIOS || reported[s->number])
		return;
	reported[s->number] = true;
	current = s;
	forget_failure();
	printf("#! run %u - %s # source %s\n", s->number, s->name, s->source);
	if (s->elsewhere) {
		why = s->elsewhere;
	} else if (!interface_present && s->number != 7) {
		why = "the firmware has no SDEI";
	} else if (!(s->flags & EACH)) {
		select_kind(0);
		ran = attempt();
		bad = failed;
		why = skipped;
	} else {
		why = run_kinds(s, &ran, &bad);
	}
	from_kind = -1;
	if (bad)
		print_failure();
	else if (ran)
		printf("ok %u - %s # source %s\n", s->number, s->name, s->source);
	else
		printf("ok %u - %s # SKIP %s (source %s)\n", s->number, s->name, why ? why : "no such kind of event is left",
		       s->source);
	current = NULL;
}

void conformance_setup(bool present, bool console, u64 watchdog_seconds)
{
	interface_present = present;
	trigger_setup(console);
	recover_setup(watchdog_seconds);
}

static bool is_name(const char *word, const char *end, const char *name)
{
	while (word < end && *word == *name)
		word++, name++;
	return word == end && !*name;
}

/* `filter`: numbers, ranges and groups, separated by commas; all if it is empty. */
void conformance_run(const char *filter, u64 after, int kind)
{
	bool all = !*filter, begun = !after;

	printf("TAP version 13\n1..%u\n", CONF_SCENARIOS);
	while (all || *filter) {
		const char *end = filter, *p = filter;
		u64 low = 0, high = 0;

		while (*end && *end != ',')
			end++;
		while (p < end && *p >= '0' && *p <= '9')
			low = low * 10 + (u64)(*p++ - '0');
		high = low;
		if (p > filter && p < end && *p == '-') {
			high = 0;
			for (p++; p < end && *p >= '0' && *p <= '9'; p++)
				high = high * 10 + (u64)(*p - '0');
		}
		for (unsigned i = 0; i < NR_SCENARIOS; i++) {
			const struct scenario *s = &scenarios[i];

			if (!all && !(p == end && s->number >= low && s->number <= high) && !is_name(filter, end, s->group))
				continue;
			if (begun)
				run(s);
			else if (s->number == after) {
				begun = true;
				from_kind = kind;
				if (kind >= 0)
					run(s);
			}
		}
		if (all)
			break;
		filter = *end ? end + 1 : end;
	}
	for (unsigned i = 0; i < NR_SCENARIOS; i++) {
		if (!reported[scenarios[i].number])
			printf("ok %u - %s # SKIP not selected\n", scenarios[i].number, scenarios[i].name);
		reported[scenarios[i].number] = true;
	}
	for (unsigned number = LAST_SCENARIO + 1; number <= CONF_SCENARIOS; number++) {
		if (!reported[number])
			printf("ok %u # SKIP no such scenario\n", number);
	}
}
