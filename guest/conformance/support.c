/* Calls that are checked and logged, and handlers that are counted. */
#include "entry.h"
#include "harness.h"

_Static_assert(offsetof(struct entry, x) == X(0) && offsetof(struct entry, sp) == X_SP, "entry.S");
_Static_assert(offsetof(struct entry, nzcv) == X_NZCV && offsetof(struct entry, elr) == E_ELR, "entry.S");
_Static_assert(offsetof(struct entry, spsr) == E_SPSR && offsetof(struct entry, sp_el0) == E_SP_EL0, "entry.S");
_Static_assert(offsetof(struct entry, daif) == E_DAIF && offsetof(struct entry, spsel) == E_SPSEL, "entry.S");
_Static_assert(offsetof(struct entry, el) == E_EL, "entry.S");
_Static_assert(sizeof(struct entry) <= E_ROOM && E_ROOM % 16 == 0, "entry.S");

struct probe probes[NR_PROBES];
struct probe *const p0 = &probes[0], *const p1 = &probes[1];
struct entry resumed[MAX_CPUS];
volatile u64 resumes[MAX_CPUS];
unsigned handler_depth[MAX_CPUS];
static u64 nr_runs;

/* ---- calls ---- */

u64 sdei(u64 function, u64 x1, u64 x2, u64 x3, u64 x4, u64 x5)
{
	u64 result = smccc(function, x1, x2, x3, x4, x5);

	log_call(function, x1, x2, x3, result);
	return result;
}

static u64 call_words(u64 words)
{
	const u64 *c = (const u64 *)words;

	return sdei(c[0], c[1], c[2], c[3], c[4], c[5]);
}

void call_is(const char *file, int line, u64 expected, const u64 *c)
{
	u64 got = call_words((u64)c);

	if (got != expected)
		note_call(file, line, this_cpu(), expected, got, c);
}

void call_on_is(const char *file, int line, unsigned cpu, u64 expected, const u64 *c)
{
	u64 got = on(cpu, call_words, (u64)c);

	if (got != expected)
		note_call(file, line, cpu, expected, got, c);
}

u64 sdei_on(unsigned cpu, u64 function, u64 x1, u64 x2)
{
	const u64 words[6] = { function, x1, x2 };

	return on(cpu, call_words, (u64)words);
}

void value_is(const char *file, int line, const char *what, u64 expected, u64 got)
{
	if (got != expected)
		note_value(file, line, what, expected, got);
}

void broken(const char *file, int line, const char *what)
{
	note_value(file, line, what, 1, 0);
}

/* ---- handlers ---- */

struct end {
	u64 function, argument;
};

/* From entry.S. */
struct end conf_handler(struct entry *e)
{
	struct probe *p = (struct probe *)e->x[1];
	unsigned cpu = this_cpu();
	u64 deadline;

	handler_depth[cpu]++;
	log_entry(cpu, e->x[0], e->x[1], e->x[2]);
	if (p < probes || p >= probes + NR_PROBES || ((u64)p - (u64)probes) % sizeof(*p)) {
		value_is(__FILE_NAME__, __LINE__, "handler entry: x1 is a registered argument", (u64)p0, (u64)p);
		handler_depth[cpu]--;
		return (struct end){ SDEI_EVENT_COMPLETE, 0 };
	}
	if (__atomic_add_fetch(&p->active, 1, __ATOMIC_ACQ_REL) > 1)
		p->overlap++;
	p->event = e->x[0];
	p->cpu = cpu;
	p->entry = *e;
	p->order = __atomic_add_fetch(&nr_runs, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&p->begun, 1, __ATOMIC_RELEASE);
	if (p->hook)
		p->hook(p, e);
	deadline = ticks() + ticks_of_us(LIMIT_US);
	while (__atomic_load_n(&p->hold, __ATOMIC_ACQUIRE)) {
		if (ticks() > deadline) {
			FAIL("the handler was let go");
			break;
		}
	}
	p->runs_on[cpu]++;
	__atomic_sub_fetch(&p->active, 1, __ATOMIC_ACQ_REL);
	__atomic_add_fetch(&p->runs, 1, __ATOMIC_RELEASE);
	handler_depth[cpu]--;
	if (p->resume)
		return (struct end){ SDEI_EVENT_COMPLETE_AND_RESUME, p->resume };
	return (struct end){ SDEI_EVENT_COMPLETE, p->status };
}

/* From entry.S: COMPLETE came back, and the interrupted code is lost. */
void conf_refused(u64 code)
{
	give_up("COMPLETE in a handler came back", code);
}

/* From entry.S. */
void conf_resumed(struct entry *e)
{
	unsigned cpu = this_cpu();

	resumed[cpu] = *e;
	resumes[cpu]++;
}

/* The library's own handler entry is not used here. */
u64 sdei_handler(struct regs *regs)
{
	(void)regs;
	return 0;
}

void reg(u64 event, struct probe *p)
{
	CALL(SUCCESS, SDEI_EVENT_REGISTER, event, (u64)conf_entry, (u64)p);
}

void ready(u64 event, struct probe *p)
{
	reg(event, p);
	CALL(SUCCESS, SDEI_EVENT_ENABLE, event);
}

void ready_on(unsigned cpu, u64 event, struct probe *p)
{
	CALL_ON(cpu, SUCCESS, SDEI_EVENT_REGISTER, event, (u64)conf_entry, (u64)p);
	CALL_ON(cpu, SUCCESS, SDEI_EVENT_ENABLE, event);
}

void spin_us(u64 us)
{
	u64 deadline = ticks() + ticks_of_us(us);

	while (ticks() < deadline)
		;
}

/* An exit of every CPU gives the firmware the chance to deliver what it should not; the rest is for asynchronous ones. */
void settle(void)
{
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		if (cpu == 0 || (cpu_is_up(cpu) && !cpu_is_busy(cpu)))
			sdei_on(cpu, PSCI_AFFINITY_INFO, affinity(cpu), 0); /* never known before the call */
	}
	spin_us(SETTLE_US);
}

static void count_is(const volatile u64 *count, u64 n, const char *what)
{
	u64 deadline = ticks() + ticks_of_us(LIMIT_US);

	while (__atomic_load_n(count, __ATOMIC_ACQUIRE) < n && !failed && ticks() < deadline)
		;
	if (*count >= n)
		settle();
	value_is(__FILE_NAME__, __LINE__, what, n, *count);
}

void runs_are(struct probe *p, u64 n, const char *what)
{
	count_is(&p->runs, n, what);
}

void begun_is(struct probe *p, u64 n, const char *what)
{
	count_is(&p->begun, n, what);
}

/* A handler of the subject that quiets its source before anything else. */
static void (*inner_hook)(struct probe *p, struct entry *e);

static void quiet_hook(struct probe *p, struct entry *e)
{
	quiet();
	inner_hook(p, e);
}

void quiet_only(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	quiet();
}

void in_handler(void (*hook)(struct probe *p, struct entry *e))
{
	inner_hook = hook;
	p0->hook = quiet_hook;
	ready(subject.event, p0);
	trigger(0);
	runs_are(p0, 1, "handler runs");
}

void state_is(u64 state)
{
	CALL(state, SDEI_EVENT_STATUS, subject.event);
}
