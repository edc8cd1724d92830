/* The other CPUs, the ways out of what a CPU is at, and the devices. Addresses are those of QEMU's virt. */
#include "compare.h"

#define UART_IMSC (UART + 0x38)
#define IMSC_TX (1 << 5)
#define WAKE_SGI 1
#define ISR_I (1 << 7)

#define SPIN_US 60   /* who waits spins so long before it sleeps */
#define SEEN_US 20   /* in which an own SGI is seen, unless no interrupt comes here */
#define SETTLE_US 40
#define MOST_EXCEPTIONS 8

u64 escapes[MAX_CPUS][CONTEXT_WORDS];
volatile bool lost;

static struct job {
	void (*work)(unsigned argument);
	unsigned argument;
	volatile bool busy, begun, asleep;
} jobs[MAX_CPUS];
static volatile bool on[MAX_CPUS];
static uint32_t exceptions;

static uint32_t get(u64 address)
{
	return *(volatile uint32_t *)address;
}

static void set(u64 address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

/* ---- devices ---- */

void device_init(void)
{
	u64 sgi = GICR_SGI(this_cpu());

	gic_init();
	set(sgi + GIC_IGROUPR, get(sgi + GIC_IGROUPR) | 1u << WAKE_SGI | 1u << TIMER_PPI);
	*(volatile uint8_t *)(sgi + GIC_IPRIORITYR + WAKE_SGI) = 0xa0;
	wake_enable(true);
	ppi_quiet();
	timer_stop();
}

void wake_enable(bool enable)
{
	set(GICR_SGI(this_cpu()) + (enable ? GIC_ISENABLER : GIC_ICENABLER), 1u << WAKE_SGI);
}

bool timer_is_pending(void)
{
	return get(GICR_SGI(this_cpu()) + GIC_ISPENDR) & 1u << TIMER_INTID;
}

void ppi_fire(void)
{
	WRITE(cntp_cval_el0, 0);
	WRITE(cntp_ctl_el0, 1);
}

void ppi_quiet(void)
{
	WRITE(cntp_ctl_el0, 0);
}

/* The console's transmitter asks for more, as it always could since the first message; a level that stays up to quiet. */
void uart_fire(void)
{
	set(UART_IMSC, IMSC_TX);
}

void uart_quiet(void)
{
	set(UART_IMSC, 0);
}

/* ---- waiting ---- */

static void send_sgi(unsigned cpu)
{
	__asm__ volatile("dsb sy" ::: "memory");
	WRITE(S3_0_C12_C11_5, (u64)WAKE_SGI << 24 | 1ul << cpu % 16); /* ICC_SGI1R_EL1 */
}

static void end_interrupt(void)
{
	u64 intid = READ(S3_0_C12_C12_0); /* ICC_IAR1_EL1 */

	if (intid < SPURIOUS)
		WRITE(S3_0_C12_C12_1, intid); /* ICC_EOIR1_EL1 */
}

/* No interrupt would end the sleep of a CPU that the firmware has left deaf. */
static bool would_wake(void)
{
	u64 deadline = ticks() + ticks_of_us(SEEN_US);
	bool seen;

	send_sgi(this_cpu());
	do
		seen = READ(isr_el1) & ISR_I;
	while (!seen && ticks() < deadline);
	end_interrupt();
	return seen;
}

static void sleep(void)
{
	__asm__ volatile("dsb sy\n\twfi" ::: "memory");
	end_interrupt();
}

void nap(u64 us)
{
	u64 deadline = ticks() + ticks_of_us(us);

	if (would_wake()) {
		timer_arm(us);
		sleep();
		timer_stop();
	} else {
		while (ticks() < deadline)
			;
	}
}

static void rest(struct job *j)
{
	u64 deadline = ticks() + ticks_of_us(SPIN_US);

	while (!__atomic_load_n(&j->busy, __ATOMIC_ACQUIRE) && ticks() < deadline)
		;
	if (j->busy || !would_wake())
		return;
	__atomic_store_n(&j->asleep, true, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&j->busy, __ATOMIC_SEQ_CST))
		sleep();
	__atomic_store_n(&j->asleep, false, __ATOMIC_SEQ_CST);
}

/* ---- jobs ---- */

static void finish(struct job *j)
{
	j->begun = false;
	__atomic_store_n(&j->busy, false, __ATOMIC_RELEASE);
}

static void worker(unsigned cpu)
{
	u64 priority = READ(S3_0_C12_C11_3); /* ICC_RPR_EL1 */
	struct job *j;

	device_init();
	depth[cpu] = 0;
	finish(&jobs[cpu]);
	note(cpu, 'u', NO_OP, 0, priority, 0);
	coming[cpu] = false;
	__atomic_store_n(&on[cpu], true, __ATOMIC_RELEASE);
	context_save(escapes[cpu]);
	j = &jobs[this_cpu()];
	for (;;) {
		while (!__atomic_load_n(&j->busy, __ATOMIC_ACQUIRE))
			rest(j);
		j->begun = true;
		j->work(j->argument);
		finish(j);
	}
}

void cpus_setup(void)
{
	device_init();
	on[0] = true;
	start_cpus(worker);
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++) {
		while (!on[cpu])
			nap(100);
	}
}

bool is_on(unsigned cpu)
{
	return on[cpu];
}

void post(unsigned cpu, void (*work)(unsigned argument), unsigned argument)
{
	struct job *j = &jobs[cpu];

	if (cpu == this_cpu()) {
		work(argument);
		return;
	}
	j->work = work;
	j->argument = argument;
	__atomic_store_n(&j->busy, true, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&j->asleep, __ATOMIC_SEQ_CST))
		send_sgi(cpu);
}

static void lose(unsigned cpu)
{
	note(cpu, 'w', NO_OP, 0, 0, 0);
	lost = true;
}

/* True: it is off, and that is noted. */
static bool has_gone_off(unsigned cpu)
{
	if (!going_off[cpu] || smccc(PSCI_AFFINITY_INFO, affinity(cpu), 0, 0, 0, 0) != AFFINITY_OFF)
		return false;
	going_off[cpu] = false;
	on[cpu] = false;
	depth[cpu] = 0;
	finish(&jobs[cpu]);
	note(cpu, 'd', NO_OP, 0, 0, 0);
	return true;
}

static bool wait_while(unsigned cpu, const volatile bool *flag)
{
	u64 start = ticks();

	while (__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
		if (has_gone_off(cpu))
			return true;
		if (ticks() - start > ticks_of_us(JOB_US)) {
			lose(cpu);
			return false;
		}
		if (ticks() - start > ticks_of_us(4 * SPIN_US))
			nap(SPIN_US);
	}
	return true;
}

bool wait_done(unsigned cpu)
{
	return cpu == this_cpu() || wait_while(cpu, &jobs[cpu].busy);
}

/* No call whose answer may be known before: there a firmware need not look at anything else, nor even be asked. */
static void poke(unsigned argument)
{
	(void)argument;
	smccc(PSCI_AFFINITY_INFO, affinity(this_cpu()), 0, 0, 0, 0);
}

void settle(void)
{
	u64 deadline;

	for (unsigned cpu = 0; cpu < nr_cpus && !lost; cpu++) {
		if (coming[cpu] && !wait_while(cpu, &coming[cpu]))
			return;
		if (!on[cpu])
			continue;
		post(cpu, poke, 0);
		if (!wait_done(cpu))
			return;
	}
	deadline = ticks() + ticks_of_us(SETTLE_US);
	while (ticks() < deadline)
		;
	/* A handler that came meanwhile and went off. */
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++)
		has_gone_off(cpu);
}

/* ---- ways out ---- */

void leave(void)
{
	unsigned cpu = this_cpu();

	__asm__ volatile("msr daifset, #15" ::: "memory");
	if (jobs[cpu].begun)
		finish(&jobs[cpu]);
	context_load(escapes[cpu]);
}

static void on_other_stack(void)
{
	el_setup();
	exception_recovered();
	leave();
}

/* From entry.S, after COMPLETE_AND_RESUME; and from where else nothing of what this CPU was at counts any more. */
void recover(void)
{
	__asm__ volatile("msr daifset, #15" ::: "memory");
	on_fatal_stack(on_other_stack);
}

void unwind(unsigned cpu)
{
	u64 code;

	if (!depth[cpu])
		return;
	depth[cpu]--;
	code = smccc(SDEI_EVENT_COMPLETE_AND_RESUME, (u64)recover_entry, 0, 0, 0, 0);
	note(cpu, 'q', NO_OP, code, 0, 0);
}

static void give_up(unsigned kind, u64 vector, u64 class)
{
	note(this_cpu(), 'x', NO_OP, kind, vector, class);
	if (__atomic_add_fetch(&exceptions, 1, __ATOMIC_RELAXED) <= MOST_EXCEPTIONS && escapes[this_cpu()][CONTEXT_SP / 8])
		recover();
	records_print();
	say("@x");
	fail_hook = NULL;
	power_off();
}

static void on_exception(u64 vector, u64 esr, u64 elr, u64 far)
{
	(void)elr, (void)far;
	give_up(0, vector, esr >> 26);
}

static void on_failure(const char *what)
{
	(void)what;
	give_up(1, 0, 0);
}

void hooks_setup(void)
{
	exception_hook = on_exception;
	fail_hook = on_failure;
}

void exceptions_clear(void)
{
	exceptions = 0;
	lost = false;
}
