/*
 * Does what the host types, one line at a time, and prints what came of it: each call's answer, each handler, and what
 * each CPU can still do afterwards. The same lines on two firmwares show where they differ (qemu_sdei/differential).
 *
 * A line: `#ID STEP... =N OP... =N OP... ~SUM`. A step is a CPU (one hex digit) and an operation, which `=N` puts into
 * program N instead, what a handler registered with it does when it runs on a CPU for the first time. Operations are a
 * letter and operands, a letter and a hex number each: c a call (x0, x1...), t one timer interrupt, f the device of the
 * bound PPI or SPI fires, o CPU_OFF, j the host is to inject (event, CPU); a program may end with e COMPLETE, r
 * COMPLETE_AND_RESUME, o, or l: the CPU goes on elsewhere, as a new kernel does. Operands: L the number itself, A a CPU's
 * affinity, B a bound event, H, R, S entry points of handlers, of resumption, of a CPU, P a program, X no address.
 *
 * It prints `@f NAME=VALUE...` once, `@r CPU STEP KIND OP A B C` for what happened, `@j EVENT CPU` (answered by y or n),
 * `@e ID RECORDS DIRTY` behind a line, `@b` for a line that is none; each with ` ~SUM` of what is before it.
 */
#include "compare.h"

static volatile unsigned phase_cpu;
static volatile bool begun, healthy;

static void check(unsigned cpu)
{
	bool timer = takes_timer(), event = takes_event();

	note(cpu, 'p', NO_OP, timer, event, READ(S3_0_C12_C11_3)); /* ICC_RPR_EL1 */
	if (!timer || !event)
		healthy = false;
}

static void left(unsigned cpu)
{
	(void)cpu;
	note_timer(NO_OP);
}

static void put_back(unsigned cpu)
{
	u64 code;

	irq_mask();
	timer_stop();
	ppi_quiet();
	smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	code = smccc(SDEI_PRIVATE_RESET, 0, 0, 0, 0, 0);
	note(cpu, 'k', NO_OP, code, 0, 0);
}

static void share_back(unsigned cpu)
{
	uart_quiet();
	note(cpu, 'k', NO_OP, smccc(SDEI_SHARED_RESET, 0, 0, 0, 0, 0), 1, 0);
	bindings_clear();
}

static void unmask(unsigned cpu)
{
	(void)cpu;
	smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
}

static void start(unsigned cpu)
{
	u64 code;

	coming[cpu] = true;
	code = smccc(PSCI_CPU_ON, affinity(cpu), (u64)_start_secondary, cpu, 0, 0);
	if (code != SUCCESS)
		coming[cpu] = false;
	note(0, 'n', NO_OP, code, cpu, 0); /* not among the records of the one that may be up by now */
}

/*
 * Has `cpu` do it and everything settle. CPU 0 may be taken out of the middle of it by a handler that leaves, and is
 * brought back to its beginning: what has begun is not begun again.
 */
static void have_done(unsigned cpu, void (*work)(unsigned argument), unsigned argument)
{
	if (!begun) {
		begun = true;
		post(cpu, work, argument);
	}
	if (wait_done(cpu))
		settle();
	begun = false;
	records_print();
}

/* The work of a phase on each CPU that is on. */
static void everywhere(void (*work)(unsigned argument))
{
	for (; phase_cpu < nr_cpus && !lost; phase_cpu++) {
		if (begun || is_on(phase_cpu))
			have_done(phase_cpu, work, phase_cpu);
	}
	phase_cpu = 0;
}

static void everything_unwound(void)
{
	for (; phase_cpu < nr_cpus && !lost; phase_cpu++) {
		for (unsigned most = 8; (begun || (is_on(phase_cpu) && depth[phase_cpu])) && most; most--)
			have_done(phase_cpu, unwind, phase_cpu);
	}
	phase_cpu = 0;
}

static void all_on(void)
{
	for (; phase_cpu < nr_cpus && !lost; phase_cpu++) {
		if (begun || !is_on(phase_cpu))
			have_done(0, start, phase_cpu);
	}
	phase_cpu = 0;
}

/* One phase behind the other; CPU 0 comes back to the one that it was in. */
static volatile unsigned phase;

#define NO_PHASE 100

static void run_sequence(void)
{
	for (; phase == 0 && at < nr_steps && !lost; at++) {
		if (begun || is_on(ops[at].cpu))
			have_done(ops[at].cpu, do_op, at);
		else
			note(ops[at].cpu, 's', at, 0, 0, 0);
	}
	for (; phase < 7 && !lost; phase++) {
		if (phase == 1) {
			at = STEP_LEFT;
			everywhere(left);
			at = STEP_BACK;
		} else if (phase == 2) {
			everything_unwound();
		} else if (phase == 3) {
			everywhere(put_back);
		} else if (phase == 4) {
			have_done(0, share_back, 0);
		} else if (phase == 5) {
			all_on();
			at = STEP_CHECK;
		} else if (phase == 6) {
			everywhere(check);
			everywhere(unmask);
		}
	}
	records_print();
}

/* ---- the firmware ---- */

static u64 probe_signal(void)
{
	u64 code;

	smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	smccc(SDEI_EVENT_REGISTER, 0, (u64)compare_entry, (u64)&programs[0], 0, 0);
	code = smccc(SDEI_EVENT_SIGNAL, 0, affinity(0), 0, 0, 0);
	smccc(SDEI_EVENT_UNREGISTER, 0, 0, 0, 0, 0);
	return code;
}

static void print_facts(void)
{
	u64 version = smccc(SDEI_VERSION, 0, 0, 0, 0, 0);

	say("@f el=%x cpus=%x version=%lx slots=%lx relative=%lx signal=%lx smccc=%lx psci=%lx", at_el2() ? 2 : 1, nr_cpus,
	    version, smccc(SDEI_FEATURES, FEATURE_BIND_SLOTS, 0, 0, 0, 0),
	    smccc(SDEI_FEATURES, FEATURE_RELATIVE_MODE, 0, 0, 0, 0), probe_signal(),
	    smccc(SMCCC_VERSION, 0, 0, 0, 0, 0) & 0xffffffff, smccc(PSCI_VERSION, 0, 0, 0, 0, 0) & 0xffffffff);
}

void guest_main(void)
{
	args_done();
	cpus_setup();
	hooks_setup();
	everywhere(unmask);
	print_facts();
	unmask(0);
	phase = NO_PHASE;
	for (;;) {
		/* Here CPU 0 comes back to out of whatever takes it away. */
		context_save(escapes[0]);
		if (phase != NO_PHASE) {
			run_sequence();
			say("@e %lx %x %x", sequence_id, records_printed(), lost || !healthy);
			phase = NO_PHASE;
		}
		if (!sequence_read()) {
			say("@b");
			continue;
		}
		records_clear();
		exceptions_clear();
		begun = false;
		healthy = true;
		at = 0;
		phase_cpu = 0;
		phase = 0;
	}
}
