/*
 * The selftest: every SDEI call that a client needs for a private event, on all CPUs, each result checked.
 * The transcript has the form of the one in the cover letter of KVM's SDEI series. A line of results is only printed
 * when what it says was checked on every CPU; the first thing that is not as it must be ends the run.
 */
#include "selftest.h"

struct cpu_state cpus[MAX_CPUS];

static u64 call(u64 function, u64 x1, u64 x2)
{
	return smccc(function, x1, x2, 0, 0, 0);
}

static void expect_status(u64 status)
{
	expect_value("EVENT_STATUS", status, call(SDEI_EVENT_STATUS, EVENT, 0));
}

/* Values that belong to the machine, not to a CPU. */
static void expect_same(const char *what, u64 cpu0, unsigned cpu, u64 value)
{
	if (value != cpu0)
		fail("%s: expected 0x%lx on CPU %u as on CPU 0, got 0x%lx", what, cpu0, cpu, value);
}

/* ---- steps: run on every CPU, report on CPU 0 ---- */

static void version(unsigned cpu)
{
	u64 value = call(SDEI_VERSION, 0, 0);

	if ((int64_t)value < 0)
		fail("SDEI_VERSION: expected version 1.x, got %ld%s", (int64_t)value,
		     value == (u64)NOT_SUPPORTED ? " (NOT_SUPPORTED): this machine's firmware has no SDEI" : "");
	expect_value("SDEI_VERSION: major version", 1, value >> 48);
	cpus[cpu].version = value;
}

static void report_version(void)
{
	u64 value = cpus[0].version;

	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		expect_same("SDEI_VERSION", value, cpu, cpus[cpu].version);
	printf("    Version:              %lu.%lu (vendor: 0x%lx)\n", value >> 48, value >> 32 & 0xffff,
	       value & 0xffffffff);
}

static void features(unsigned cpu)
{
	cpus[cpu].slots = call(SDEI_FEATURES, FEATURE_BIND_SLOTS, 0);
	expect_value("SDEI_FEATURES(bind slots) >> 32", 0, cpus[cpu].slots >> 32);
	cpus[cpu].relative = call(SDEI_FEATURES, FEATURE_RELATIVE_MODE, 0);
	if (cpus[cpu].relative > 1 && cpus[cpu].relative != (u64)INVALID_PARAMETERS) /* the latter is what SDEI 1.0 says */
		expect("SDEI_FEATURES(relative mode)", SUCCESS, cpus[cpu].relative);
	expect("SDEI_FEATURES(16)", INVALID_PARAMETERS, call(SDEI_FEATURES, 16, 0));
}

static void report_features(void)
{
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++) {
		expect_same("SDEI_FEATURES(bind slots)", cpus[0].slots, cpu, cpus[cpu].slots);
		expect_same("SDEI_FEATURES(relative mode)", cpus[0].relative, cpu, cpus[cpu].relative);
	}
	printf("    Shared event slots:   %lu\n", cpus[0].slots >> 16 & 0xffff);
	printf("    Private event slots:  %lu\n", cpus[0].slots & 0xffff);
	printf("    Relative mode:        %s\n", cpus[0].relative == 1 ? "Yes" : "No");
}

static void private_reset(unsigned cpu)
{
	(void)cpu;
	expect("SDEI_PRIVATE_RESET", SUCCESS, call(SDEI_PRIVATE_RESET, 0, 0));
	expect_status(0);
}

static void shared_reset(unsigned cpu)
{
	(void)cpu;
	expect("SDEI_SHARED_RESET", SUCCESS, call(SDEI_SHARED_RESET, 0, 0));
}

static void pe_unmask(unsigned cpu)
{
	(void)cpu;
	expect("SDEI_PE_MASK after reset: already masked", 0, call(SDEI_PE_MASK, 0, 0));
	expect("SDEI_PE_UNMASK", SUCCESS, call(SDEI_PE_UNMASK, 0, 0));
	expect("SDEI_PE_MASK of an unmasked PE", 1, call(SDEI_PE_MASK, 0, 0));
	expect("SDEI_PE_UNMASK", SUCCESS, call(SDEI_PE_UNMASK, 0, 0));
	expect("SDEI_PE_UNMASK again", SUCCESS, call(SDEI_PE_UNMASK, 0, 0));
}

static void get_info(unsigned cpu)
{
	expect("EVENT_GET_INFO(type): private", 0, call(SDEI_EVENT_GET_INFO, EVENT, INFO_TYPE));
	expect("EVENT_GET_INFO(signalable)", 0, call(SDEI_EVENT_GET_INFO, EVENT, INFO_SIGNALED));
	cpus[cpu].priority = call(SDEI_EVENT_GET_INFO, EVENT, INFO_PRIORITY);
	if (cpus[cpu].priority > 1)
		expect("EVENT_GET_INFO(priority)", 0, cpus[cpu].priority);
	expect("EVENT_GET_INFO(routing mode) of a private event", INVALID_PARAMETERS,
	       call(SDEI_EVENT_GET_INFO, EVENT, INFO_ROUTING_MODE));
	expect("EVENT_GET_INFO(routing affinity) of a private event", INVALID_PARAMETERS,
	       call(SDEI_EVENT_GET_INFO, EVENT, INFO_ROUTING_AFFINITY));
	expect("EVENT_GET_INFO(5)", INVALID_PARAMETERS, call(SDEI_EVENT_GET_INFO, EVENT, 5));
	expect("EVENT_GET_INFO of event 0x80000000", INVALID_PARAMETERS, call(SDEI_EVENT_GET_INFO, 0x80000000, INFO_TYPE));
}

static void report_info(void)
{
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		expect_same("EVENT_GET_INFO(priority)", cpus[0].priority, cpu, cpus[cpu].priority);
	printf("    Type:                 Private\n");
	printf("    Priority:             %s\n", cpus[0].priority ? "Critical" : "Normal");
	printf("    Signaled:             Yes\n");
}

static void event_register(unsigned cpu)
{
	u64 argument = ARGUMENT(cpu);

	expect("EVENT_ENABLE before EVENT_REGISTER", DENIED, call(SDEI_EVENT_ENABLE, EVENT, 0));
	expect("EVENT_REGISTER with entry point 0", INVALID_PARAMETERS,
	       smccc(SDEI_EVENT_REGISTER, EVENT, 0, argument, 0, 0));
	/* One after another: a private event registered here must not show there. */
	for (unsigned turn = 0; turn < nr_cpus; turn++) {
		expect_status(cpu < turn ? REGISTERED : 0);
		barrier("EVENT_REGISTER turn");
		if (turn == cpu)
			expect("EVENT_REGISTER", SUCCESS, smccc(SDEI_EVENT_REGISTER, EVENT, (u64)sdei_entry, argument, 0, 0));
		barrier("EVENT_REGISTER");
	}
	expect_status(REGISTERED);
	expect("EVENT_REGISTER again", DENIED, smccc(SDEI_EVENT_REGISTER, EVENT, (u64)sdei_entry, ~argument, 0, 0));
}

static void event_enable(unsigned cpu)
{
	(void)cpu;
	expect("EVENT_ENABLE", SUCCESS, call(SDEI_EVENT_ENABLE, EVENT, 0));
	expect_status(REGISTERED | ENABLED);
	expect("EVENT_ENABLE again", SUCCESS, call(SDEI_EVENT_ENABLE, EVENT, 0));
}

static void event_signal(unsigned cpu)
{
	expect("EVENT_CONTEXT outside of a handler", DENIED, call(SDEI_EVENT_CONTEXT, 0, 0));
	expect("EVENT_COMPLETE outside of a handler", DENIED, call(SDEI_EVENT_COMPLETE, 0, 0));
	expect("EVENT_SIGNAL of event 0x10000", INVALID_PARAMETERS, call(SDEI_EVENT_SIGNAL, 0x10000, affinity(cpu)));
	expect("EVENT_SIGNAL to affinity 0xffffffff", INVALID_PARAMETERS, call(SDEI_EVENT_SIGNAL, EVENT, 0xffffffff));
	for (unsigned target = 0; target < nr_cpus; target++) {
		barrier("EVENT_SIGNAL turn");
		if (target == 0 && cpu == 0)
			signal_self();
		else if (target == cpu)
			signal_wait();
		else if (cpu == 0)
			signal_other(target);
		barrier("EVENT_SIGNAL");
		expect_value("handler runs", target >= cpu, cpus[cpu].runs);
	}
}

static void report_signal(void)
{
	const struct cpu_state *c = &cpus[0];
	bool handled = true, irq = false;

	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		handled = handled && cpus[cpu].runs == 1;
		irq = irq || cpus[cpu].irqs_in_handler;
	}
	printf("    Handled:              %s\n", handled ? "Yes" : "No");
	printf("    IRQ:                  %s\n", irq ? "Yes" : "No");
	printf("    Status:               %s%s%s\n", c->status & REGISTERED ? "Registered" : "Unregistered",
	       c->status & ENABLED ? "-Enabled" : "-Disabled", c->status & RUNNING ? "-Running" : "");
	printf("    PC/PSTATE:            %016lx %016lx\n", c->entry.x[2], c->entry.x[3]);
	printf("    Regs:                 %016lx %016lx\n", c->context[0], c->context[1]);
	printf("                          %016lx %016lx\n", c->context[2], c->context[3]);
}

static void pe_mask(unsigned cpu)
{
	struct cpu_state *c = &cpus[cpu];

	expect("SDEI_PE_MASK", 1, call(SDEI_PE_MASK, 0, 0));
	expect("SDEI_PE_MASK again", 0, call(SDEI_PE_MASK, 0, 0));
	expect("EVENT_SIGNAL to a masked PE", SUCCESS, call(SDEI_EVENT_SIGNAL, EVENT, affinity(cpu)));
	expect("EVENT_SIGNAL to a masked PE again", SUCCESS, call(SDEI_EVENT_SIGNAL, EVENT, affinity(cpu)));
	expect_status(REGISTERED | ENABLED);
	expect_value("handler runs while masked", 1, c->runs);
	expect("SDEI_PE_UNMASK", SUCCESS, call(SDEI_PE_UNMASK, 0, 0));
	wait_at_least(&c->runs, 2, "handler after SDEI_PE_UNMASK");
	expect("SDEI_PE_MASK", 1, call(SDEI_PE_MASK, 0, 0));
	expect_value("handler runs after SDEI_PE_UNMASK", 2, c->runs);
}

static void event_disable(unsigned cpu)
{
	(void)cpu;
	expect("EVENT_DISABLE", SUCCESS, call(SDEI_EVENT_DISABLE, EVENT, 0));
	expect_status(REGISTERED);
	expect("EVENT_DISABLE again", SUCCESS, call(SDEI_EVENT_DISABLE, EVENT, 0));
}

static void event_unregister(unsigned cpu)
{
	expect("EVENT_UNREGISTER", SUCCESS, call(SDEI_EVENT_UNREGISTER, EVENT, 0));
	expect_status(0);
	expect("EVENT_UNREGISTER again", DENIED, call(SDEI_EVENT_UNREGISTER, EVENT, 0));
	expect("EVENT_DISABLE after EVENT_UNREGISTER", DENIED, call(SDEI_EVENT_DISABLE, EVENT, 0));
	expect_value("handler runs in all", 2, cpus[cpu].runs);
}

static const struct {
	const char *name;
	void (*run)(unsigned cpu);
	void (*report)(void);
} steps[] = {
	{ "VERSION", version, report_version },
	{ "FEATURES", features, report_features },
	{ "PRIVATE_RESET", private_reset, NULL },
	{ "SHARED_RESET", shared_reset, NULL },
	{ "PE_UNMASK", pe_unmask, NULL },
	{ "EVENT_GET_INFO", get_info, report_info },
	{ "EVENT_REGISTER", event_register, NULL },
	{ "EVENT_ENABLE", event_enable, NULL },
	{ "EVENT_SIGNAL", event_signal, report_signal },
	{ "PE_MASK", pe_mask, NULL },
	{ "EVENT_DISABLE", event_disable, NULL },
	{ "EVENT_UNREGISTER", event_unregister, NULL },
};

static void run_steps(unsigned cpu)
{
	gic_init();
	timer_check();
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (cpu == 0)
			printf("--- %s\n", steps[i].name);
		barrier(steps[i].name);
		steps[i].run(cpu);
		barrier(steps[i].name);
		if (cpu == 0 && steps[i].report)
			steps[i].report();
	}
}

void guest_main(void)
{
	args_done();
	wait_us = 10000000;
	fail_epilogue = "\n    Result: FAIL\n\n";
	printf("\n    NR_VCPUS: %u    SDEI Event: 0x%08x\n\n", nr_cpus, EVENT);
	start_cpus(run_steps);
	run_steps(0);
	printf("\n    Result: OK\n\n");
}
