/* What a CPU does in a step and in a handler, and what is noted of it. */
#include "compare.h"

#define TIMER_US 50
#define COMES_US 500000 /* until the timer's interrupt is pending at the GIC: a busy host is late */
#define LATE_US 3000    /* it is, and is not taken: it never will be */
#define TRIES 2
#define PATTERN 0xc0de000000000000ul
#define UNBOUND 0x7ffffff0ul /* the number of no event */
#define NOBODY 0xff00ul      /* the affinity of no CPU */
#define BAD_ADDRESS (1ul << 55)
#define NZCV_HERE 0x60000000ul

#define CONTEXT_UNKNOWN 2

unsigned depth[MAX_CPUS];
volatile bool going_off[MAX_CPUS], coming[MAX_CPUS];

static u64 bound[2]; /* event numbers of the PPI and of the SPI; 0: none */
/* Of each handler: whether it interrupted a call with the pattern in its registers. */
#define MAX_DEPTH 8
static bool at_call[MAX_CPUS][MAX_DEPTH];

/* ---- operands ---- */

static u64 operand(const struct op *op, unsigned n)
{
	const struct operand *o = &op->operands[n];

	if (n >= op->nr)
		return 0;
	switch (o->kind) {
	case 'A': /* affinity of a CPU */
		return o->value < MAX_CPUS ? affinity((unsigned)o->value) : NOBODY;
	case 'B': /* number of a bound event */
		return o->value < 2 && bound[o->value] ? bound[o->value] : UNBOUND + o->value;
	case 'H': /* a handler's entry */
		return (u64)compare_entry + o->value;
	case 'P': /* a handler's argument: what it does */
		return (u64)&programs[o->value % MAX_PROGRAMS];
	case 'R': /* where COMPLETE_AND_RESUME may go */
		return (u64)resume_entry + o->value;
	case 'S': /* where a CPU may start */
		return (u64)_start_secondary + o->value;
	case 'X': /* where nothing is */
		return BAD_ADDRESS + o->value;
	default: /* L: as it is */
		return o->value;
	}
}

/* Numbers that the firmware may choose as it likes, as names. */
static u64 event_name(u64 event)
{
	for (u64 n = 0; n < 2; n++) {
		if (bound[n] && event == bound[n])
			return 0xb0000000ul + n;
	}
	return event;
}

static unsigned program_of(u64 argument)
{
	u64 offset = argument - (u64)programs;

	return offset < sizeof(programs) && offset % sizeof(programs[0]) == 0 ?
		       (unsigned)(offset / sizeof(programs[0])) : 0xff;
}

void bindings_clear(void)
{
	bound[0] = bound[1] = 0;
}

/* ---- calls ---- */

/* What is compared of an answer: numbers of events and interrupted registers are not the same everywhere. */
static u64 answer(unsigned cpu, const struct regs *before, u64 x0)
{
	u64 function = before->x[0], index = before->x[1] & 0xffffffff;

	if (function == SDEI_INTERRUPT_BIND && (int64_t)x0 > 0) {
		u64 intid = before->x[1] & 0xffffffff;

		if (intid == TIMER_PPI)
			bound[0] = x0;
		if (intid == UART_SPI)
			bound[1] = x0;
		return event_name(x0) == x0 ? 0xb000000ful : event_name(x0);
	}
	if (function == SDEI_EVENT_CONTEXT && (int64_t)x0 < 0 && (int64_t)x0 > -16)
		return x0;
	if (function == SDEI_EVENT_CONTEXT) {
		bool known = depth[cpu] && depth[cpu] <= MAX_DEPTH && at_call[cpu][depth[cpu] - 1] && index > 5;

		return known ? x0 == (PATTERN | (u64)cpu << 8 | index) : CONTEXT_UNKNOWN;
	}
	return x0;
}

static volatile bool *cpu_that_is_off(u64 wanted)
{
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		if (wanted == affinity(cpu) && !is_on(cpu))
			return &coming[cpu];
	}
	return NULL;
}

static void note_call(unsigned index)
{
	const struct op *op = &ops[index];
	unsigned cpu = this_cpu();
	struct regs before, r;
	volatile bool *target;
	u64 changed = 0;

	for (unsigned i = 0; i < 31; i++)
		before.x[i] = PATTERN | (u64)cpu << 8 | i;
	for (unsigned i = 0; i < MAX_OPERANDS; i++)
		before.x[i] = operand(op, i);
	before.nzcv = NZCV_HERE;
	/* What it would go back to is gone: this CPU has left the handler. */
	if ((before.x[0] == SDEI_EVENT_COMPLETE || before.x[0] == SDEI_EVENT_COMPLETE_AND_RESUME) && depth[cpu]) {
		note(cpu, 's', index, 0, 0, 0);
		return;
	}
	r = before;
	target = before.x[0] == PSCI_CPU_ON ? cpu_that_is_off(before.x[1]) : NULL;
	if (target)
		*target = true; /* before it can come */
	smccc_full(&r);
	if (target && r.x[0] != SUCCESS)
		*target = false;
	for (unsigned i = 1; i < 31; i++)
		changed |= r.x[i] != before.x[i] ? 1ul << i : 0;
	changed |= (r.nzcv & NZCV_MASK) != before.nzcv ? 1ul << 31 : 0;
	changed |= r.sp != r.sp_before ? 1ul << 32 : 0;
	note(cpu, 'c', index, answer(cpu, &before, r.x[0]), changed, 0);
}

void go_off(unsigned op)
{
	unsigned cpu = this_cpu();
	u64 code;

	if (cpu == 0) { /* it has the console: it stays, and its handler completes */
		note(cpu, 's', op, 0, 0, 0);
		return;
	}
	going_off[cpu] = true;
	code = smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	going_off[cpu] = false;
	note(cpu, 'c', op, code, 0, 0);
}

/* ---- interrupts ---- */

/* The GIC has it, or this CPU took it. */
static bool timer_came(u64 before)
{
	u64 deadline = ticks() + ticks_of_us(COMES_US);

	while (irqs[this_cpu()] == before && ticks() < deadline) {
		if (timer_is_pending())
			return true;
	}
	return irqs[this_cpu()] != before;
}

bool takes_timer(void)
{
	unsigned cpu = this_cpu();
	u64 before = irqs[cpu];

	wake_enable(false);
	for (unsigned i = 0; i < TRIES && irqs[cpu] == before; i++) {
		u64 deadline;

		timer_arm(TIMER_US);
		irq_unmask();
		if (timer_came(before)) {
			deadline = ticks() + ticks_of_us(LATE_US);
			while (irqs[cpu] == before && ticks() < deadline)
				;
		}
		irq_mask();
		timer_stop();
	}
	wake_enable(true);
	return irqs[cpu] != before;
}

void note_timer(unsigned op)
{
	u64 priority = READ(S3_0_C12_C11_3); /* ICC_RPR_EL1 */
	bool taken = takes_timer();

	note(this_cpu(), 'i', op, taken, priority, READ(S3_0_C12_C12_7)); /* ICC_IGRPEN1_EL1 */
}

static volatile u64 checked[MAX_CPUS]; /* handlers of takes_event */
#define CHECK ((u64)&checked)

bool takes_event(void)
{
	unsigned cpu = this_cpu();
	u64 before = checked[cpu], deadline, code = 0;

	code |= smccc(SDEI_EVENT_REGISTER, 0, (u64)compare_entry, CHECK, 0, 0);
	code |= smccc(SDEI_EVENT_ENABLE, 0, 0, 0, 0, 0);
	code |= smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
	code |= smccc(SDEI_EVENT_SIGNAL, 0, affinity(cpu), 0, 0, 0);
	deadline = ticks() + ticks_of_us(code ? 0 : COMES_US);
	while (checked[cpu] == before && ticks() < deadline)
		;
	code |= smccc(SDEI_EVENT_UNREGISTER, 0, 0, 0, 0, 0);
	return !code && checked[cpu] == before + 1;
}

/* ---- operations ---- */

static bool ask_host(u64 event, u64 cpu)
{
	say("@j %lx %lx", event, cpu);
	return console_read(2 * JOB_US) == 'y';
}

void do_op(unsigned index)
{
	const struct op *op = &ops[index];
	unsigned cpu = this_cpu();

	switch (op->what) {
	case 'c':
		note_call(index);
		break;
	case 't':
		note_timer(index);
		break;
	case 'f':
		if (operand(op, 0))
			uart_fire();
		else
			ppi_fire();
		break;
	case 'o':
		go_off(index);
		break;
	case 'j': /* by CPU 0, which has the console */
		note(cpu, 'j', index, cpu == 0 && ask_host(operand(op, 0), operand(op, 1)), 0, 0);
		break;
	}
}

/* ---- handlers ---- */

/* From entry.S. */
struct end compare_handler(u64 event, u64 argument, u64 pc, u64 pstate, u64 here)
{
	unsigned cpu = this_cpu(), n = program_of(argument);
	struct program *program = &programs[n % MAX_PROGRAMS];
	struct end end = { SDEI_EVENT_COMPLETE, 0 };

	if (argument == CHECK) {
		checked[cpu] = checked[cpu] + 1;
		return end;
	}
	if (depth[cpu] < MAX_DEPTH)
		at_call[cpu][depth[cpu]] = pc == smccc_full_return();
	depth[cpu]++;
	note(cpu, 'h', NO_OP, event_name(event), (u64)n << 32 | (pstate & ~NZCV_MASK & 0xffffffff), here);
	if (bound[0] && event == bound[0])
		ppi_quiet();
	if (bound[1] && event == bound[1])
		uart_quiet();
	if (n < MAX_PROGRAMS && !program->ran[cpu]) {
		program->ran[cpu] = true;
		for (unsigned i = program->first; i < program->end; i++)
			do_op(i);
		if (program->ending.what == 'o')
			go_off(NO_OP);
		if (program->ending.what == 'l' || (program->ending.what == 'o' && cpu))
			leave();
		if (program->ending.what == 'r')
			end = (struct end){ SDEI_EVENT_COMPLETE_AND_RESUME, operand(&program->ending, 0) };
		else
			end.argument = operand(&program->ending, 0);
	}
	depth[cpu]--;
	return end;
}

/* From entry.S: nobody knows whether the handler has ended for the firmware. */
void compare_refused(u64 code)
{
	unsigned cpu = this_cpu();

	note(cpu, 'q', NO_OP, code, 0, 0);
	depth[cpu]++;
	leave();
}

/* From entry.S. */
void compare_resumed(u64 here)
{
	note(this_cpu(), 'z', NO_OP, 0, 0, here);
}

/* The library's own handler entry is not used here. */
u64 sdei_handler(struct regs *regs)
{
	(void)regs;
	return 0;
}
