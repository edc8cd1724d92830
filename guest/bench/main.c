/* Measures calls and signals from the guest's side, with CNTVCT_EL0. The word mode=... says what; see guest/README.md. */
#include "bench.h"

#define BATCHES 200
#define WARM_UP 64

u64 event_number, private_number, critical_number;
static u64 samples[MAX_SAMPLES];
static unsigned nr_samples;

void sample(u64 ns)
{
	samples[nr_samples++] = ns;
}

/* Sorts on each call, which is quick when it is sorted. */
u64 percentile(unsigned percent)
{
	for (unsigned gap = nr_samples / 2; gap; gap /= 2) {
		for (unsigned i = gap; i < nr_samples; i++) {
			u64 v = samples[i];
			unsigned j = i;

			for (; j >= gap && samples[j - gap] > v; j -= gap)
				samples[j] = samples[j - gap];
			samples[j] = v;
		}
	}
	return samples[(u64)(nr_samples - 1) * percent / 100];
}

u64 sdei_version(void)
{
	u64 version = smccc(SDEI_VERSION, 0, 0, 0, 0, 0);

	if ((int64_t)version < 0)
		expect("SDEI_VERSION", SUCCESS, version);
	return version;
}

void enable_event(u64 event, void (*entry)(void), u64 argument)
{
	expect("EVENT_REGISTER", SUCCESS, smccc(SDEI_EVENT_REGISTER, event, (u64)entry, argument, 0, 0));
	expect("EVENT_ENABLE", SUCCESS, smccc(SDEI_EVENT_ENABLE, event, 0, 0, 0, 0));
	expect("SDEI_PE_UNMASK", SUCCESS, smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0));
}

/* Runs `once` count times in batches, each batch one sample: a single run is near the counter's resolution. */
static u64 run_batches(u64 count, void (*once)(u64 context), u64 context)
{
	u64 batches = count < BATCHES ? count : BATCHES, total = 0, done = 0;

	for (unsigned i = 0; i < WARM_UP; i++)
		once(context);
	for (u64 batch = 1; batch <= batches; batch++) {
		u64 size = count * batch / batches - done, start = ticks(), took;

		for (u64 i = 0; i < size; i++)
			once(context);
		took = ticks() - start;
		sample(ns_of_ticks(took) / size);
		total += took;
		done += size;
	}
	return total;
}

static void print_result(const char *name, u64 count, u64 total)
{
	printf("%s: count=%lu ticks=%lu freq=%lu median_ns=%lu p99_ns=%lu min_ns=%lu p10_ns=%lu\n", name, count, total,
	       ticks_per_second(), percentile(50), percentile(99), percentile(0), percentile(10));
}

void measure(const char *name, u64 count, void (*once)(u64 context), u64 context)
{
	nr_samples = 0;
	print_result(name, count, run_batches(count, once, context));
}

static void one_version(u64 version)
{
	u64 got = smccc(SDEI_VERSION, 0, 0, 0, 0, 0);

	if (got != version)
		expect_value("SDEI_VERSION", version, got);
}

void mode_hot(void)
{
	u64 count = arg_number("count", 20000, 1, 1000000000);

	args_done();
	measure("hot", count, one_version, sdei_version());
}

/* WFI with interrupts masked: the timer's interrupt wakes, and is never taken. */
static void idle_us(u64 us)
{
	timer_arm(us);
	while (!timer_expired())
		__asm__ volatile("wfi");
	timer_stop();
}

void mode_cold(void)
{
	u64 count = arg_number("count", 500, 1, MAX_SAMPLES);
	u64 gap_us = arg_number("gap_us", 1000, 1, 10000000);
	u64 version, total = 0;

	args_done();
	version = sdei_version();
	gic_init();
	timer_check();
	for (u64 i = 0; i < count; i++) {
		u64 start, took;

		idle_us(gap_us);
		start = ticks();
		one_version(version);
		took = ticks() - start;
		total += took;
		sample(ns_of_ticks(took));
	}
	printf("cold: gap_us=%lu\n", gap_us);
	print_result("cold", count, total);
}

static volatile u64 handled[MAX_CPUS];
static u64 signalled;

static void one_signal(u64 self)
{
	u64 got = smccc(SDEI_EVENT_SIGNAL, EVENT, self, 0, 0, 0);

	if (got != SUCCESS)
		expect("EVENT_SIGNAL to self", SUCCESS, got);
	wait_at_least(&handled[0], ++signalled, "handler of a signal to self");
}

void mode_signal(void)
{
	u64 count = arg_number("count", 20000, 1, 1000000000);

	args_done();
	sdei_version();
	enable_event(EVENT, sdei_count_entry, (u64)&handled[0]);
	measure("signal", count, one_signal, affinity(0));
	expect("SDEI_PE_MASK", 1, smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0));
	expect_value("handler runs", signalled, handled[0]);
}

/* ---- all calls in one boot ---- */

static void must(const char *name, u64 function, u64 x1, u64 x2, u64 x3)
{
	u64 got = smccc(function, x1, x2, x3, 0, 0);

	if (got != SUCCESS)
		expect(name, SUCCESS, got);
}

static void one_features(u64 slots)
{
	u64 got = smccc(SDEI_FEATURES, FEATURE_BIND_SLOTS, 0, 0, 0, 0);

	if (got != slots)
		expect_value("SDEI_FEATURES", slots, got);
}

static void one_status(u64 status)
{
	u64 got = smccc(SDEI_EVENT_STATUS, EVENT, 0, 0, 0, 0);

	if (got != status)
		expect_value("EVENT_STATUS", status, got);
}

static void one_info(u64 context)
{
	(void)context;
	must("EVENT_GET_INFO(type)", SDEI_EVENT_GET_INFO, EVENT, INFO_TYPE, 0);
}

static void one_registration(u64 context)
{
	must("EVENT_REGISTER", SDEI_EVENT_REGISTER, EVENT, (u64)sdei_count_entry, context);
	must("EVENT_UNREGISTER", SDEI_EVENT_UNREGISTER, EVENT, 0, 0);
}

static void one_enabling(u64 context)
{
	(void)context;
	must("EVENT_DISABLE", SDEI_EVENT_DISABLE, EVENT, 0, 0);
	must("EVENT_ENABLE", SDEI_EVENT_ENABLE, EVENT, 0, 0);
}

static void one_masking(u64 context)
{
	u64 got = smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);

	(void)context;
	if (got != 1)
		expect_value("SDEI_PE_MASK", 1, got);
	must("SDEI_PE_UNMASK", SDEI_PE_UNMASK, 0, 0, 0);
}

static void one_reset(u64 context)
{
	(void)context;
	must("SDEI_PRIVATE_RESET", SDEI_PRIVATE_RESET, 0, 0, 0);
	must("SDEI_SHARED_RESET", SDEI_SHARED_RESET, 0, 0, 0);
}

/* One boot for all, so that they can be compared with each other. */
void mode_calls(void)
{
	u64 count = arg_number("count", 5000, 1, 1000000000), version;

	args_done();
	version = sdei_version();
	measure("version", count, one_version, version);
	measure("features", count, one_features, smccc(SDEI_FEATURES, FEATURE_BIND_SLOTS, 0, 0, 0, 0));
	measure("info", count, one_info, 0);
	measure("register_unregister", count, one_registration, (u64)&handled[0]);
	enable_event(EVENT, sdei_count_entry, (u64)&handled[0]);
	measure("status", count, one_status, REGISTERED | ENABLED);
	measure("disable_enable", count, one_enabling, 0);
	measure("mask_unmask", count, one_masking, 0);
	measure("signal", count, one_signal, affinity(0));
	expect_value("handler runs", signalled, handled[0]);
	expect("SDEI_PE_MASK", 1, smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0));
	measure("resets", count, one_reset, 0);
}

static void idle_cpu(unsigned cpu)
{
	enable_event(EVENT, sdei_count_entry, (u64)&handled[cpu]);
	barrier("idle");
	if (cpu == 0)
		printf("idle: ready\n");
	for (;;)
		__asm__ volatile("wfi");
}

void mode_idle(void)
{
	args_done();
	sdei_version();
	start_cpus(idle_cpu);
	idle_cpu(0);
}

static u64 (*handler)(struct regs *regs) = storm_handler;

static void mode_deaf_cpus(void)
{
	handler = deaf_handler;
	mode_deaf();
}

static void mode_bound_events(void)
{
	handler = bound_handler;
	mode_bound();
}

static void mode_wedged(void)
{
	handler = wedge_handler;
	mode_wedge();
}

u64 sdei_handler(struct regs *regs)
{
	return handler(regs);
}

void guest_main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} modes[] = {
		{ "hot", mode_hot },   { "cold", mode_cold },   { "signal", mode_signal },
		{ "idle", mode_idle }, { "storm", mode_storm }, { "call", mode_call },
		{ "hostile", mode_hostile }, { "bound", mode_bound_events },
		{ "fuzz", mode_fuzz }, { "journey", mode_journey }, { "dirty", mode_dirty },
		{ "deaf", mode_deaf_cpus }, { "registers", mode_registers }, { "calls", mode_calls },
		{ "wedge", mode_wedged }, { "services", mode_services }, { "ready", mode_ready },
	};
	const char *mode = arg_text("mode", "");

	event_number = arg_number("event", 0, 0, 0x7fffffff);
	private_number = arg_number("private", 0x100, 0, 0x7fffffff);
	critical_number = arg_number("critical", 0x103, 0, 0x7fffffff);

	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (text_is(mode, modes[i].name)) {
			modes[i].run();
			return;
		}
	}
	fail("mode=%s: want hot, cold, signal, idle, storm, call, hostile, bound, fuzz, journey, dirty, deaf, registers, "
	     "calls, wedge, services or ready", mode);
}
