/* The other CPUs: work for them, and their power. */
#include "harness.h"

#define WAKE_US 20000

static struct job {
	u64 (*work)(u64 argument);
	u64 argument, result;
	volatile u64 busy;
} jobs[MAX_CPUS];
static volatile u64 ups[MAX_CPUS]; /* how often a CPU came up */
static bool up[MAX_CPUS];

/* From entry.S too, when the CPU left what it was at. */
void worker_again(unsigned cpu)
{
	struct job *j = &jobs[cpu];

	for (;;) {
		while (!__atomic_load_n(&j->busy, __ATOMIC_ACQUIRE)) {
			end_interrupts(); /* none is active here, unless the firmware left one */
			watchdog_look(wait_for_wake());
		}
		j->result = j->work(j->argument);
		__atomic_store_n(&j->busy, 0, __ATOMIC_RELEASE);
	}
}

void worker(unsigned cpu)
{
	entry_rpr[cpu] = READ(S3_0_C12_C11_3); /* ICC_RPR_EL1 */
	device_init();
	watchdog_arm();
	__atomic_store_n(&ups[cpu], ups[cpu] + 1, __ATOMIC_RELEASE);
	worker_again(cpu);
}

void restart_worker(unsigned cpu)
{
	__atomic_store_n(&jobs[cpu].busy, 0, __ATOMIC_RELEASE);
	enter_worker(cpu);
}

/* start_cpus has been told to start these. */
void wait_workers(void)
{
	for (unsigned cpu = 1; cpu < nr_cpus; cpu++) {
		wait_at_least(&ups[cpu], 1, "CPU that CPU_ON started");
		up[cpu] = true;
	}
}

bool cpu_is_up(unsigned cpu)
{
	return cpu == 0 || up[cpu];
}

bool cpu_is_busy(unsigned cpu)
{
	return __atomic_load_n(&jobs[cpu].busy, __ATOMIC_ACQUIRE);
}

void start_on(unsigned cpu, u64 (*work)(u64 argument), u64 argument)
{
	struct job *j = &jobs[cpu];

	j->work = work;
	j->argument = argument;
	__atomic_store_n(&j->busy, 1, __ATOMIC_RELEASE);
	__asm__ volatile("dsb sy" ::: "memory");
	wake_cpu(cpu);
}

u64 finish_on(unsigned cpu)
{
	struct job *j = &jobs[cpu];
	u64 deadline = ticks() + ticks_of_us(LIMIT_US);

	while (__atomic_load_n(&j->busy, __ATOMIC_ACQUIRE)) {
		if (ticks() > deadline)
			give_up("another CPU finished its work; CPU", cpu);
	}
	if (failed)
		leave(); /* there, and the work with it may be lost */
	return j->result;
}

u64 on(unsigned cpu, u64 (*work)(u64 argument), u64 argument)
{
	if (cpu == this_cpu())
		return work(argument);
	start_on(cpu, work, argument);
	return finish_on(cpu);
}

void need_cpus(unsigned n)
{
	static char text[] = "needs N CPUs";

	if (nr_cpus < n) {
		text[6] = (char)('0' + n);
		skip(text);
	}
}

u64 power_of(unsigned cpu)
{
	return smccc(PSCI_AFFINITY_INFO, affinity(cpu), 0, 0, 0, 0);
}

static u64 off_work(u64 argument)
{
	(void)argument;
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	FAIL("CPU_OFF does not return");
	return 0;
}

void cpu_goes_off(unsigned cpu)
{
	u64 deadline = ticks() + ticks_of_us(LIMIT_US);

	up[cpu] = false;
	while (power_of(cpu) != 1) {
		if (ticks() > deadline)
			give_up("CPU_OFF: AFFINITY_INFO says OFF; CPU", cpu);
	}
	jobs[cpu].busy = 0;
	handler_depth[cpu] = 0;
}

void cpu_off(unsigned cpu)
{
	start_on(cpu, off_work, 0);
	cpu_goes_off(cpu);
}

u64 cpu_on_to(unsigned cpu, u64 (*work)(u64 argument), u64 argument)
{
	struct job *j = &jobs[cpu];

	j->work = work;
	j->argument = argument;
	__atomic_store_n(&j->busy, 1, __ATOMIC_RELEASE);
	cpu_on(cpu);
	return finish_on(cpu);
}

void cpu_on(unsigned cpu)
{
	u64 before = ups[cpu], deadline = ticks() + ticks_of_us(LIMIT_US);
	u64 code = psci_cpu_on(cpu);

	if (code)
		give_up("PSCI CPU_ON", code);
	while (__atomic_load_n(&ups[cpu], __ATOMIC_ACQUIRE) == before) {
		if (ticks() > deadline)
			give_up("CPU_ON: the CPU came up; CPU", cpu);
	}
	up[cpu] = true;
}

static u64 power_state;

static u64 suspend_work(u64 cpu)
{
	u64 code;

	timer_arm(WAKE_US);
	code = sdei(PSCI_CPU_SUSPEND, power_state, (u64)_start_secondary, cpu, 0, 0);
	timer_stop();
	return code;
}

u64 cpu_suspend(unsigned cpu, u64 state)
{
	u64 before = ups[cpu], deadline = ticks() + ticks_of_us(LIMIT_US);

	power_state = state;
	start_on(cpu, suspend_work, cpu);
	while (cpu_is_busy(cpu)) {
		if (__atomic_load_n(&ups[cpu], __ATOMIC_ACQUIRE) != before) {
			jobs[cpu].busy = 0; /* the job ended by coming up anew */
			return 1;
		}
		if (ticks() > deadline)
			give_up("CPU_SUSPEND: the timer wakes the CPU; CPU", cpu);
	}
	return jobs[cpu].result;
}

void mask_on(unsigned cpu)
{
	sdei_on(cpu, SDEI_PE_MASK, 0, 0);
}

void unmask_on(unsigned cpu)
{
	CALL_ON(cpu, SUCCESS, SDEI_PE_UNMASK);
}
