/* What a scenario did, how it failed, and how both are printed. */
#include "harness.h"

#define MAX_LOG 16

volatile bool failed;

static struct {
	bool is_call;
	const char *file, *what;
	int line;
	unsigned cpu;
	u64 expected, got, call[6];
} failure;

/* ---- the log of what the scenario did ---- */

static struct {
	uint32_t cpu;
	u64 function, x1, x2, x3, result; /* function 0: a handler's entry */
} calls[MAX_LOG];
static uint32_t nr_calls;

static void log_add(unsigned cpu, u64 function, u64 x1, u64 x2, u64 x3, u64 result)
{
	uint32_t n = __atomic_fetch_add(&nr_calls, 1, __ATOMIC_RELAXED) % MAX_LOG;

	calls[n].cpu = cpu;
	calls[n].function = function;
	calls[n].x1 = x1;
	calls[n].x2 = x2;
	calls[n].x3 = x3;
	calls[n].result = result;
}

void log_call(u64 function, u64 x1, u64 x2, u64 x3, u64 result)
{
	log_add(this_cpu(), function, x1, x2, x3, result);
}

void log_entry(unsigned cpu, u64 event, u64 argument, u64 pc)
{
	log_add(cpu, 0, event, argument, pc, 0);
}

void log_clear(void)
{
	nr_calls = 0;
}

/* ---- words for numbers ---- */

static const char *const functions[] = {
	"SDEI_VERSION",          "EVENT_REGISTER",    "EVENT_ENABLE",      "EVENT_DISABLE",     "EVENT_CONTEXT",
	"EVENT_COMPLETE",        "EVENT_COMPLETE_AND_RESUME", "EVENT_UNREGISTER", "EVENT_STATUS", "EVENT_GET_INFO",
	"EVENT_ROUTING_SET",     "PE_MASK",           "PE_UNMASK",         "INTERRUPT_BIND",    "INTERRUPT_RELEASE",
	"EVENT_SIGNAL",          "FEATURES",          "PRIVATE_RESET",     "SHARED_RESET",
};
static const unsigned char arguments[] = { 0, 5, 1, 1, 1, 1, 1, 1, 1, 2, 3, 0, 0, 1, 1, 2, 1, 0, 0 };
#define NR_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

static void print_call(const u64 *c, unsigned most)
{
	u64 index = c[0] - SDEI_VERSION;
	unsigned n = index < NR_FUNCTIONS ? arguments[index] : most;

	if (index < NR_FUNCTIONS)
		printf("%s(", functions[index]);
	else
		printf("0x%lx(", c[0]);
	for (unsigned i = 1; i <= n && i <= most; i++)
		printf(i == 1 ? "0x%lx" : ", 0x%lx", c[i]);
	printf(")");
}

static void print_code(u64 code)
{
	static const char *const names[] = { "", "NOT_SUPPORTED", "INVALID_PARAMETERS", "DENIED", "", "PENDING", "",
					     "", "", "", "OUT_OF_RESOURCE" };
	u64 index = -code;

	if (index && index < sizeof(names) / sizeof(names[0]) && *names[index])
		printf("%ld (%s)\n", (int64_t)code, names[index]);
	else if (code <= 9)
		printf("%lu%s\n", code, code ? "" : " (SUCCESS)");
	else
		printf("0x%lx\n", code);
}

/* ---- failing ---- */

/* The first failure is the one that is told. */
static bool note(const char *file, int line, unsigned cpu, u64 expected, u64 got)
{
	if (__atomic_exchange_n(&failed, true, __ATOMIC_ACQ_REL))
		return false;
	failure.file = file;
	failure.line = line;
	failure.cpu = cpu;
	failure.expected = expected;
	failure.got = got;
	return true;
}

void note_call(const char *file, int line, unsigned cpu, u64 expected, u64 got, const u64 *call)
{
	if (note(file, line, cpu, expected, got)) {
		failure.is_call = true;
		for (unsigned i = 0; i < 6; i++)
			failure.call[i] = call[i];
	}
	leave();
}

void note_value(const char *file, int line, const char *what, u64 expected, u64 got)
{
	if (note(file, line, this_cpu(), expected, got)) {
		failure.is_call = false;
		failure.what = what;
	}
	leave();
}

void print_failure(const struct scenario *s)
{
	uint32_t n = nr_calls;

	printf("not ok %u - %s # source %s\n  ---\n", s->number, s->name, s->source);
	if (failure.is_call) {
		printf("  call: ");
		print_call(failure.call, 5);
		printf("\n");
	} else {
		printf("  what: \"%s\"\n", failure.what);
	}
	printf("  expected: ");
	print_code(failure.expected);
	printf("  got: ");
	print_code(failure.got);
	printf("  cpu: %u\n", failure.cpu);
	if (s->flags & EACH)
		printf("  subject: \"%s 0x%lx\"\n", subject.kind, subject.event);
	printf("  where: \"%s:%d\"\n  calls:\n", failure.file, failure.line);
	for (uint32_t i = n > MAX_LOG ? n - MAX_LOG : 0; i < n; i++) {
		typeof(calls[0]) *c = &calls[i % MAX_LOG];

		printf("    - \"CPU %u: ", c->cpu);
		if (c->function) {
			print_call((const u64[6]){ c->function, c->x1, c->x2, c->x3 }, 3);
			printf(" = %ld\"\n", (int64_t)c->result);
		} else {
			printf("handler of 0x%lx begins, argument 0x%lx, interrupted at 0x%lx\"\n", c->x1, c->x2, c->x3);
		}
	}
	printf("  ...\n");
	if (have_host()) {
		printf("#! failed %u\n", s->number);
		console_read(HOST_US);
	}
}

void give_up(const char *what, u64 value)
{
	static bool first = true;

	if (first && this_cpu() == 0) {
		first = false;
		if (!failed) {
			failed = true;
			failure.is_call = false;
			failure.what = what;
			failure.expected = 0;
			failure.got = value;
		}
		print_failure(current);
		printf("Bail out! %s %ld\n", what, (int64_t)value);
		power_off();
	}
	note_value("support.c", 0, what, 0, value);
	for (;;)
		__asm__ volatile("wfi");
}
