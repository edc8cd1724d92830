/* mode=deaf: a CPU that goes off, or suspends, inside an interrupt's handler takes interrupts when it is back. */
#include "bench.h"

#define WAKE_INTID 30 /* CNTP */
#define SGI 3

static volatile u64 started;
static u64 round;

static u64 running_priority(void)
{
	u64 priority;

	__asm__ volatile("mrs %0, S3_0_C12_C11_3" : "=r"(priority)); /* ICC_RPR_EL1 */
	return priority;
}

/* Has one more interrupt be active here. */
static void acknowledge(u64 wanted)
{
	u64 intid;

	timer_wait_pending();
	__asm__ volatile("mrs %0, S3_0_C12_C12_0\n\tdsb sy" : "=r"(intid)::"memory"); /* ICC_IAR1_EL1 */
	expect_value("interrupt acknowledged", wanted, intid);
}

static void be_in_an_sgi(void)
{
	volatile uint32_t *sgi = (volatile uint32_t *)GICR_SGI(this_cpu());

	((volatile uint8_t *)sgi)[0x400 + SGI] = 0xc0;
	sgi[0x100 / 4] = 1u << SGI;
	__asm__ volatile("msr S3_0_C12_C11_5, %0\n\tisb" ::"r"((u64)SGI << 24 | 1ul << this_cpu())); /* ICC_SGI1R_EL1 */
	acknowledge(SGI);
}

static void be_in_a_timer(void)
{
	timer_arm(0);
	acknowledge(TIMER_INTID);
	timer_stop();
}

static void off(void)
{
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	fail("CPU_OFF came back");
}

u64 deaf_handler(struct regs *regs)
{
	(void)regs;
	off();
	return 0;
}

static void (*const states[])(void) = { be_in_a_timer, be_in_an_sgi };

#define NESTED 2	/* a timer's in an SGI's */
#define IN_A_HANDLER 3	/* and in the handler of an event, which has interrupted them */
#define ROUNDS 4

static void be_inside(u64 which)
{
	if (which < NESTED) {
		states[which]();
		return;
	}
	be_in_an_sgi();
	be_in_a_timer();
	if (which == IN_A_HANDLER) {
		enable_event(EVENT, sdei_entry, 0);
		expect("EVENT_SIGNAL to self", SUCCESS, smccc(SDEI_EVENT_SIGNAL, EVENT, affinity(this_cpu()), 0, 0, 0));
		fail("the event's handler came back");
	}
}

static void check(const char *when)
{
	expect_value(when, 0xff, running_priority());
	gic_init();
	timer_check();
}

/* CPU 1, each time that it is started. */
static void deaf_cpu(unsigned cpu)
{
	(void)cpu;
	check("running priority after CPU_ON");
	if (round == ROUNDS) {
		__atomic_store_n(&started, round + 1, __ATOMIC_RELEASE);
		off();
	}
	__atomic_store_n(&started, round + 1, __ATOMIC_RELEASE);
	be_inside(round);
	off();
}

/* The interrupts that were acknowledged are active still, as a redistributor has no power of its CPU's: another one wakes. */
static void sleep_and_wake(void)
{
	volatile uint32_t *sgi = (volatile uint32_t *)GICR_SGI(this_cpu());
	u64 when = ticks() + ticks_of_us(1000);

	((volatile uint8_t *)sgi)[0x400 + WAKE_INTID] = 0xa0;
	sgi[0x100 / 4] = 1u << WAKE_INTID;
	__asm__ volatile("msr cntp_cval_el0, %0\n\tmsr cntp_ctl_el0, %1\n\tisb" ::"r"(when), "r"(1ul));
	expect("CPU_SUSPEND to a power-down", SUCCESS, power_down());
	__asm__ volatile("msr cntp_ctl_el0, xzr\n\tisb");
	sgi[0x180 / 4] = 1u << WAKE_INTID;
	expect_value("interrupts active after CPU_SUSPEND", 1u << TIMER_INTID, sgi[0x300 / 4] & 1u << TIMER_INTID);
	sgi[0x380 / 4] = ~0u;
}

void mode_deaf(void)
{
	args_done();
	gic_init();
	timer_check();
	for (round = 0; round <= ROUNDS; round++) {
		u64 deadline = ticks() + ticks_of_us(wait_us);

		start_one_cpu(1, deaf_cpu);
		wait_at_least(&started, round + 1, "interrupt at a CPU that went off in an interrupt's handler");
		while (smccc(PSCI_AFFINITY_INFO, affinity(1), 0, 0, 0, 0) != AFFINITY_OFF) {
			if (ticks() > deadline)
				fail("CPU 1 is not off");
		}
	}
	for (u64 i = 0; i < 2; i++) {
		be_in_an_sgi();
		be_in_a_timer();
		sleep_and_wake();
		check("running priority after CPU_SUSPEND");
	}
	printf("deaf: ok rounds=%u\n", ROUNDS);
}
