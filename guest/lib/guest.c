/* Boot, other CPUs, and the ways to end. */
#include "console.h"

#define RAM_START 0x40000000ul
#define MAX_FAILURE 128 /* characters of one, for a hook */

_Static_assert(offsetof(struct regs, x) == X(0), "smccc.S");
_Static_assert(offsetof(struct regs, sp) == X_SP, "smccc.S");
_Static_assert(offsetof(struct regs, nzcv) == X_NZCV, "smccc.S");
_Static_assert(offsetof(struct regs, sp_before) == X_SP_BEFORE, "smccc.S");
_Static_assert(sizeof(struct regs) <= REGS_ROOM && REGS_ROOM % 16 == 0, "smccc.S");
_Static_assert(CONTEXT_SP + sizeof(u64) == CONTEXT_WORDS * sizeof(u64), "context.S");

u64 conduit_hvc;
unsigned nr_cpus = 1;
const char *fail_epilogue;
void (*exception_hook)(u64 vector, u64 esr, u64 elr, u64 far);
void (*fail_hook)(const char *what);
volatile u64 progress[MAX_CPUS];

static volatile u64 online[MAX_CPUS];
static void (*secondary_entry)(unsigned cpu);
static u64 arrived;
static volatile u64 generation;
static uint32_t failed; /* 1 + the CPU that prints its failure */
static unsigned fatal_depth[MAX_CPUS];

void _start_secondary(void);
extern const char command_slot[];

/* A text of the device tree. Firmware that is not ours passes that where it likes: QEMU puts it at the start of RAM. */
static const char *described(const void *fdt, const char *node, const char *property)
{
	const char *text = fdt_text(fdt, node, property);

	return text ? text : fdt_text((const void *)RAM_START, node, property);
}

/* From start.S. Firmware that is not ours passes the command line in the device tree, if at all. */
void boot_primary(const char *line, const void *fdt)
{
	const char *conduit = NULL;

	console_init();
	if (*command_slot) {
		line = command_slot; /* and x0 may be anything */
	} else {
		conduit = described(fdt, "psci", "method");
		if (!line)
			line = described(fdt, "chosen", "bootargs");
	}
	args_init(line);
	conduit = arg_text("conduit", conduit ? conduit : "smc");
	conduit_hvc = text_is(conduit, "hvc");
	if (!conduit_hvc && !text_is(conduit, "smc"))
		fail("conduit=%s: want smc or hvc", conduit);
	nr_cpus = (unsigned)arg_number("smp", 2, 1, MAX_CPUS);
	online[0] = 1;
	guest_main();
	power_off();
}

void boot_secondary(unsigned cpu)
{
	if (cpu != this_cpu())
		fail("CPU_ON started this CPU with the context id of CPU %u", cpu);
	__atomic_store_n(&online[cpu], 1, __ATOMIC_RELEASE);
	secondary_entry(cpu);
}

void start_one_cpu(unsigned cpu, void (*entry)(unsigned cpu))
{
	secondary_entry = entry;
	expect("PSCI CPU_ON", SUCCESS, smccc(PSCI_CPU_ON, affinity(cpu), (u64)_start_secondary, cpu, 0, 0));
}

void start_cpus(void (*entry)(unsigned cpu))
{
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		start_one_cpu(cpu, entry);
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		wait_at_least(&online[cpu], 1, "CPU that CPU_ON started");
}

static u64 total_progress(void)
{
	u64 total = 0;

	for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
		total += progress[cpu];
	return total;
}

void barrier(const char *what)
{
	u64 mine = generation, seen = total_progress(), since = ticks();

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == nr_cpus) {
		__atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&generation, mine + 1, __ATOMIC_RELEASE);
		return;
	}
	while (__atomic_load_n(&generation, __ATOMIC_ACQUIRE) == mine) {
		if (seen != total_progress()) {
			seen = total_progress();
			since = ticks();
		}
		/* Longer than any other wait, so that the CPU that is stuck says itself in what. */
		if (ticks() - since > 2 * ticks_of_us(wait_us))
			fail("other CPUs at '%s': waited for %lu s", what, 2 * wait_us / 1000000);
	}
}

void power_off(void)
{
	console_flush();
	smccc(PSCI_SYSTEM_OFF, 0, 0, 0, 0, 0);
	printf("FAIL: SYSTEM_OFF came back\n");
	for (;;)
		__asm__ volatile("wfi");
}

void fail(const char *format, ...)
{
	uint32_t owner = 0;
	va_list args;

	if (fail_hook) {
		static char texts[MAX_CPUS][MAX_FAILURE];

		va_start(args, format);
		console_text(texts[this_cpu()], MAX_FAILURE, format, args);
		va_end(args);
		fail_hook(texts[this_cpu()]);
	}
	/* The first failure is the one to look at; what others see while the machine goes down is not. */
	if (!__atomic_compare_exchange_n(&failed, &owner, this_cpu() + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		if (owner == this_cpu() + 1) /* a handler over a failing interrupted code, which will not run again */
			power_off();
		for (;;)
			__asm__ volatile("wfi");
	}
	va_start(args, format);
	console_print("FAIL: CPU ", this_cpu(), format, args, "\n");
	va_end(args);
	if (fail_epilogue)
		printf("%s", fail_epilogue);
	power_off();
}

static const char *code_name(u64 code)
{
	switch ((int64_t)code) {
	case SUCCESS:
		return "SUCCESS";
	case NOT_SUPPORTED:
		return "NOT_SUPPORTED";
	case INVALID_PARAMETERS:
		return "INVALID_PARAMETERS";
	case DENIED:
		return "DENIED";
	case PENDING:
		return "PENDING";
	default:
		return "no return code";
	}
}

void expect(const char *call, u64 expected, u64 got)
{
	if (expected != got)
		fail("%s: expected %ld (%s), got %ld (%s)", call, (int64_t)expected, code_name(expected), (int64_t)got,
		     code_name(got));
}

void expect_value(const char *what, u64 expected, u64 got)
{
	if (expected != got)
		fail("%s: expected 0x%lx, got 0x%lx", what, expected, got);
}

/* From smccc.S: EVENT_COMPLETE came back. */
void complete_refused(u64 code)
{
	expect("EVENT_COMPLETE in a handler: never returns", SUCCESS, code);
	fail("EVENT_COMPLETE in a handler came back with 0 (SUCCESS)");
}

void exception_recovered(void)
{
	fatal_depth[this_cpu()] = 0;
}

/* From start.S, on a stack of its own. */
void exception_fatal(u64 vector, u64 esr, u64 elr, u64 far, u64 sp)
{
	unsigned depth = fatal_depth[this_cpu()]++;

	if (depth == 0 && exception_hook)
		exception_hook(vector, esr, elr, far);
	if (depth == 0) {
		if (failed == this_cpu() + 1)
			failed = 0;
		fail("exception at vector %lu: ESR 0x%lx ELR 0x%lx FAR 0x%lx SP 0x%lx", vector, esr, elr, far, sp);
	}
	if (depth == 1) { /* the conduit itself may be what took us here: try the other one */
		conduit_hvc = !conduit_hvc;
		power_off();
	}
}
