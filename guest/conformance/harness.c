/*
 * Runs the scenarios of list.h that the command line selects and prints TAP 13. Lines of the form `#! word ...` are for a
 * host program that looks after the guest: `#! run N` before a scenario, `#! failed N` and `#! trigger EVENT CPU`, which
 * are answered by one character.
 */
#include "harness.h"

#define CONF_SCENARIOS 97

#define SCENARIO(number, group, function, name, source, flags) void group##_##function(void);
#define ELSEWHERE(...)
#include "list.h"
#undef SCENARIO
#undef ELSEWHERE
#define SCENARIO(number, group, function, name, source, flags) \
	{ number, #group, name, source, NULL, group##_##function, flags },
#define ELSEWHERE(number, name, source, where) { number, "", name, source, where, NULL, 0 },
static const struct scenario scenarios[] = {
#include "list.h"
};
#define NR_SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

struct subject subject;
const struct scenario *current;
static u64 escape[13];
static bool interface_present, host, reported[CONF_SCENARIOS + 1];
static const char *skipped;

void leave(void)
{
	if (this_cpu() == 0 && !handler_depth[0])
		context_load(escape);
}

void skip(const char *why)
{
	skipped = why;
	context_load(escape);
}

/* ---- triggers ---- */

bool have_host(void)
{
	return host;
}

static volatile u64 asked, answered; /* by the host, in the order in which it was asked */
static volatile int answers[4];

static void take_answer(void)
{
	answers[answered % 4] = console_read(HOST_US);
	answered = answered + 1;
}

u64 host_ask(u64 event, unsigned cpu)
{
	u64 request;

	if (!host)
		skip("nothing here can trigger a static event (trigger=console)");
	while (answered < asked)
		take_answer();
	request = asked;
	asked = request + 1; /* before the event can come, whose handler may ask too */
	printf("#! trigger 0x%lx %u\n", event, cpu);
	return request;
}

bool host_answer(u64 request)
{
	int answer;

	while (answered <= request)
		take_answer();
	answer = answers[request % 4];
	if (answer != 'y' && answer != 'n')
		FAIL("the host answered");
	return answer == 'y';
}

bool host_trigger(u64 event, unsigned cpu)
{
	return host_answer(host_ask(event, cpu));
}

static u64 fire_work(u64 argument)
{
	(void)argument;
	ppi_fire();
	return 0;
}

void trigger(unsigned cpu)
{
	if (subject.how == BY_SIGNAL)
		CALL(SUCCESS, SDEI_EVENT_SIGNAL, subject.event, affinity(cpu));
	else if (subject.how == BY_HOST)
		host_trigger(subject.event, cpu);
	else if (subject.how == BY_TIMER)
		on(cpu, fire_work, 0);
	else
		uart_fire();
}

u64 trigger_begin(unsigned cpu)
{
	if (subject.how == BY_HOST)
		return host_ask(subject.event, cpu);
	trigger(cpu);
	return 0;
}

void trigger_end(u64 request)
{
	if (subject.how == BY_HOST)
		host_answer(request);
}

void quiet(void)
{
	if (subject.how == BY_TIMER)
		ppi_quiet();
	else if (subject.how == BY_UART)
		uart_quiet();
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
	return code;
}

/* All CPUs on, masked but for CPU 0, nothing registered or bound. What a scenario broke beyond this ends the guest. */
static void clean(u64 control)
{
	u64 code = 0;

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
	memset((void *)resumes, 0, sizeof(resumes));
	smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
	if (interface_present && code)
		give_up("what the scenario left can be reset", code);
}

/* Runs the scenario with `subject` as it is; true: it ran and did not fail. */
static bool attempt(void)
{
	u64 control = sctlr();

	skipped = NULL;
	log_clear();
	if (!context_save(escape)) {
		if (subject.bound) {
			u64 event = smccc(SDEI_INTERRUPT_BIND, subject.how == BY_TIMER ? TIMER_PPI : UART_SPI, 0, 0, 0, 0);

			if ((int64_t)event < 0)
				FAIL("the subject's interrupt can be bound");
			subject.event = event;
		}
		current->run();
	}
	if (failed)
		print_failure(current);
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
	if (kinds[kind].how == BY_HOST && flags & TRIGGERED && !host)
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

static void run(const struct scenario *s)
{
	bool ran = false;
	const char *why = NULL;

	if (s->number > CONF_SCENARIOS || reported[s->number])
		return;
	reported[s->number] = true;
	current = s;
	failed = false;
	printf("#! run %u - %s # source %s\n", s->number, s->name, s->source);
	if (s->elsewhere) {
		why = s->elsewhere;
	} else if (!interface_present && s->number != 7) {
		why = "the firmware has no SDEI";
	} else if (!(s->flags & EACH)) {
		select_kind(0);
		ran = attempt();
		why = skipped;
	} else {
		for (unsigned kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]) && !failed; kind++) {
			const char *reason = why_not(kind, s->flags);

			if (!reason) {
				select_kind(kind);
				ran |= attempt();
				reason = skipped;
			}
			if (reason && *reason && !failed) {
				printf("# %u not with a %s: %s\n", s->number, kinds[kind].kind, reason);
				why = why ? why : reason;
			}
		}
	}
	if (failed)
		return;
	if (ran)
		printf("ok %u - %s # source %s\n", s->number, s->name, s->source);
	else
		printf("ok %u - %s # SKIP %s (source %s)\n", s->number, s->name, why, s->source);
}

void conformance_setup(bool present, bool console)
{
	interface_present = present;
	host = console;
}

static bool is_name(const char *word, const char *end, const char *name)
{
	while (word < end && *word == *name)
		word++, name++;
	return word == end && !*name;
}

/* `filter`: numbers, ranges and groups, separated by commas; all if it is empty. `after` leaves out all up to its number. */
void conformance_run(const char *filter, u64 after)
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
			else
				begun = s->number == after;
		}
		if (all)
			break;
		filter = *end ? end + 1 : end;
	}
	for (unsigned i = 0; i < NR_SCENARIOS; i++) {
		if (!reported[scenarios[i].number])
			printf("ok %u - %s # SKIP not selected\n", scenarios[i].number, scenarios[i].name);
	}
}
