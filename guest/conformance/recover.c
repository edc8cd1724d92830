/*
 * No scenario takes the others with it: an exception, or a wait that nothing ends, is that scenario's failure, and the CPU
 * goes back to where the next one finds it. Where that cannot be, the guest says `Bail out!` and powers off.
 */
#include "harness.h"

#define PRIORITIES 32         /* more than can be active at once */
#define MOST_EXCEPTIONS 8     /* of one scenario: a firmware that answers each with another must not hold us */

static uint32_t exceptions;
static u64 watchdog_us;
u64 entry_rpr[MAX_CPUS];

/* ---- back to the next scenario ---- */

void end_interrupts(void)
{
	for (unsigned i = 0; i < PRIORITIES && READ(S3_0_C12_C11_3) != IDLE; i++) /* ICC_RPR_EL1 */
		WRITE(S3_0_C12_C12_1, TIMER_INTID); /* ICC_EOIR1_EL1 */
}

/*
 * Ends the handlers of this CPU, each of which comes back here, and then what it was at. A firmware that refuses has ended
 * the handler already, as when it accepted an address that faults.
 */
static void go_back(void)
{
	unsigned cpu = this_cpu();

	el_setup();
	while (handler_depth[cpu]) {
		handler_depth[cpu]--;
		smccc(SDEI_EVENT_COMPLETE_AND_RESUME, (u64)recover_entry, 0, 0, 0, 0);
	}
	end_interrupts();
	exception_recovered();
	if (cpu == 0)
		leave_scenario();
	restart_worker(cpu);
}

/* From entry.S, after COMPLETE_AND_RESUME; and from where else nothing of what this CPU was at counts any more. */
void recover(void)
{
	__asm__ volatile("msr daifset, #15" ::: "memory");
	on_fatal_stack(go_back);
}

static void on_exception(u64 vector, u64 esr, u64 elr, u64 far)
{
	unsigned count = __atomic_add_fetch(&exceptions, 1, __ATOMIC_RELAXED);

	note_exception(vector, esr, elr, far);
	if (!in_scenario() || count > MOST_EXCEPTIONS)
		bail_out("an exception that cannot be left behind; ESR", esr);
	recover();
}

static void on_failure(const char *what)
{
	give_up(what, 0);
}

/* ---- a scenario that does not come to its end ---- */

/* The last CPU looks after the others where there are several: it is woken, unless each scenario ends in time. */
static bool is_watchdog(unsigned cpu)
{
	return cpu && cpu == nr_cpus - 1;
}

void watchdog_arm(void)
{
	if (is_watchdog(this_cpu()))
		timer_arm(watchdog_us);
}

void watchdog_look(u64 intid)
{
	if (intid != TIMER_INTID || !is_watchdog(this_cpu()) || !timer_expired())
		return;
	timer_stop();
	if (current)
		bail_out("the scenario did not end; seconds", watchdog_us / 1000000);
}

void recover_setup(u64 watchdog_seconds)
{
	watchdog_us = watchdog_seconds * 1000000;
	exception_hook = on_exception;
	fail_hook = on_failure;
}

void recover_begin(void)
{
	__atomic_store_n(&exceptions, 0, __ATOMIC_RELAXED);
}

/* ---- what a CPU must be able to do ---- */

u64 takes_interrupt(u64 argument)
{
	unsigned cpu = this_cpu();
	u64 before = irqs[cpu], deadline = ticks() + ticks_of_us(LIMIT_US / 2); /* who waits for this waits longer */

	(void)argument;
	timer_arm(50);
	irq_unmask();
	while (irqs[cpu] == before && ticks() < deadline)
		;
	irq_mask();
	timer_stop();
	return irqs[cpu] != before;
}

u64 takes_event(u64 argument)
{
	struct probe *p = &probes[NR_PROBES - 1];
	u64 before = p->runs, deadline = ticks() + ticks_of_us(LIMIT_US / 2), masked;

	(void)argument;
	masked = !sdei(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	if (sdei(SDEI_EVENT_REGISTER, 0, (u64)conf_entry, (u64)p, 0, 0) || sdei(SDEI_EVENT_ENABLE, 0, 0, 0, 0, 0))
		return false;
	sdei(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
	sdei(SDEI_EVENT_SIGNAL, 0, affinity(this_cpu()), 0, 0, 0);
	while (p->runs == before && ticks() < deadline)
		;
	sdei(SDEI_EVENT_UNREGISTER, 0, 0, 0, 0, 0);
	if (masked)
		sdei(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	return p->runs != before;
}
