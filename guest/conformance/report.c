/* What a scenario did, how it failed, and how both are printed. */
#include "harness.h"

#define MAX_LOG 16

volatile bool failed;

/* The failure of one kind of event, with what led to it. */
struct report {
	enum { CALLED, VALUE, EXCEPTION } type;
	const char *file, *what;
	int line;
	unsigned cpu;
	u64 expected, got, call[6];
	u64 vector, elr, far;
	/* the log of what the scenario did */
	struct {
		uint32_t cpu;
		u64 function, x1, x2, x3, result; /* function 0: a handler's entry */
	} calls[MAX_LOG];
	uint32_t nr_calls;
	struct subject subject;
};

static struct report now, first;
static bool kept; /* `first` is this scenario's */

/* ---- the log ---- */

static void log_add(unsigned cpu, u64 function, u64 x1, u64 x2, u64 x3, u64 result)
{
	uint32_t n = __atomic_fetch_add(&now.nr_calls, 1, __ATOMIC_RELAXED) % MAX_LOG;

	now.calls[n].cpu = cpu;
	now.calls[n].function = function;
	now.calls[n].x1 = x1;
	now.calls[n].x2 = x2;
	now.calls[n].x3 = x3;
	now.calls[n].result = result;
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
	now.nr_calls = 0;
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
	now.file = file;
	now.line = line;
	now.cpu = cpu;
	now.expected = expected;
	now.got = got;
	return true;
}

void note_call(const char *file, int line, unsigned cpu, u64 expected, u64 got, const u64 *call)
{
	if (note(file, line, cpu, expected, got)) {
		now.type = CALLED;
		for (unsigned i = 0; i < 6; i++)
			now.call[i] = call[i];
	}
	leave();
}

static void note_what(const char *file, int line, const char *what, u64 expected, u64 got)
{
	if (note(file, line, this_cpu(), expected, got)) {
		now.type = VALUE;
		now.what = what;
	}
}

void note_value(const char *file, int line, const char *what, u64 expected, u64 got)
{
	note_what(file, line, what, expected, got);
	leave();
}

void note_exception(u64 vector, u64 esr, u64 elr, u64 far)
{
	if (note("recover.c", 0, this_cpu(), 0, esr)) {
		now.type = EXCEPTION;
		now.vector = vector;
		now.elr = elr;
		now.far = far;
	}
}

void give_up(const char *what, u64 value)
{
	if (!in_scenario())
		bail_out(what, value);
	note_what("support.c", 0, what, 0, value);
	recover();
}

void bail_out(const char *what, u64 value)
{
	static uint32_t once;

	if (!__atomic_exchange_n(&once, 1, __ATOMIC_ACQ_REL)) {
		if (current) {
			note_what("support.c", 0, what, 0, value);
			kind_failed();
			print_failure();
		}
		printf("Bail out! %s %lu\n", what, value);
		power_off();
	}
	for (;;)
		__asm__ volatile("wfi");
}

void forget_failure(void)
{
	kept = false;
}

/* ---- printing ---- */

static void print_what(const struct report *r)
{
	if (r->type == CALLED)
		print_call(r->call, 5);
	else if (r->type == EXCEPTION)
		printf("exception at vector %lu, ESR 0x%lx ELR 0x%lx FAR 0x%lx", r->vector, r->got, r->elr, r->far);
	else
		printf("%s", r->what);
}

void kind_failed(void)
{
	if (kept) {
		printf("# %u fails with a %s too: ", current->number, subject.kind);
		print_what(&now);
		printf("\n");
		return;
	}
	first = now;
	first.subject = subject;
	kept = true;
	if (have_host()) {
		printf("#! failed %u\n", current->number);
		host_forget();
		console_read(HOST_US);
	}
}

static void print_log(const struct report *r)
{
	uint32_t n = r->nr_calls;

	printf("  calls:\n");
	for (uint32_t i = n > MAX_LOG ? n - MAX_LOG : 0; i < n; i++) {
		const typeof(r->calls[0]) *c = &r->calls[i % MAX_LOG];

		printf("    - \"CPU %u: ", c->cpu);
		if (c->function) {
			print_call((const u64[6]){ c->function, c->x1, c->x2, c->x3 }, 3);
			printf(" = %ld\"\n", (int64_t)c->result);
		} else {
			printf("handler of 0x%lx begins, argument 0x%lx, interrupted at 0x%lx\"\n", c->x1, c->x2, c->x3);
		}
	}
}

void print_failure(void)
{
	const struct report *r = &first;

	printf("not ok %u - %s # source %s\n  ---\n", current->number, current->name, current->source);
	printf(r->type == CALLED ? "  call: " : "  what: \"");
	print_what(r);
	printf(r->type == CALLED ? "\n" : "\"\n");
	if (r->type == EXCEPTION) {
		printf("  expected: no exception\n  got: ESR 0x%lx (class 0x%lx)\n", r->got, r->got >> 26 & 0x3f);
	} else {
		printf("  expected: ");
		print_code(r->expected);
		printf("  got: ");
		print_code(r->got);
	}
	printf("  cpu: %u\n", r->cpu);
	if (current->flags & EACH)
		printf("  subject: \"%s 0x%lx\"\n", r->subject.kind, r->subject.event);
	if (r->line)
		printf("  where: \"%s:%d\"\n", r->file, r->line);
	print_log(r);
	printf("  ...\n");
}

void remark(const char *text)
{
	printf("# %u with a %s: %s\n", current->number, subject.kind, text);
}
