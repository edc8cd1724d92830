/*
 * mode=wedge n=N: gets into the N-th of the situations that `qemu-sdei explain` recognises (docs/howto/explain.md), says
 * "wedge: ready" and stays there. CPU 0 is well and sleeps, where it can be. n=0: a healthy guest that looks busy.
 */
#include "bench.h"

#define PSCI_ALREADY_ON (-4)
#define SGI 3
#define WAKE_INTID 30 /* CNTP */

static u64 situation;
static volatile u64 there; /* CPU 1 has got where it is to be */
static volatile u64 handled;
static void (*in_handler)(void);

static void sleep_for_ever(void)
{
	for (;;)
		__asm__ volatile("wfi");
}

static void spin_for_ever(void)
{
	for (;;)
		__asm__ volatile("yield");
}

static void arrive(void)
{
	__atomic_store_n(&there, 1, __ATOMIC_RELEASE);
}

static void cpu_off(void)
{
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	fail("CPU_OFF came back");
}

u64 wedge_handler(struct regs *regs)
{
	(void)regs;
	if (in_handler)
		in_handler();
	handled++;
	return 0;
}

static void enter_handler(void (*inside)(void))
{
	in_handler = inside;
	expect("EVENT_SIGNAL to self", SUCCESS, smccc(SDEI_EVENT_SIGNAL, EVENT, affinity(this_cpu()), 0, 0, 0));
}

/* What a kernel's first calls are: the firmware counts kernels by this one. */
static void kernel_begins(void)
{
	smccc(PSCI_MIGRATE_INFO_TYPE, 0, 0, 0, 0, 0);
}

static void acknowledge_an_sgi(void)
{
	volatile uint32_t *sgi = (volatile uint32_t *)GICR_SGI(this_cpu());
	u64 intid;

	((volatile uint8_t *)sgi)[0x400 + SGI] = 0xa0;
	sgi[0x100 / 4] = 1u << SGI;
	__asm__ volatile("msr S3_0_C12_C11_5, %0\n\tisb" ::"r"((u64)SGI << 24 | 1ul << this_cpu())); /* ICC_SGI1R_EL1 */
	timer_wait_pending();
	__asm__ volatile("mrs %0, S3_0_C12_C12_0\n\tdsb sy" : "=r"(intid)::"memory"); /* ICC_IAR1_EL1 */
	expect_value("interrupt acknowledged", SGI, intid);
}

/* ---- what CPU 1 does ---- */

static void stay_in_handler(void)
{
	arrive();
	spin_for_ever();
}

static void new_kernel_in_handler(void)
{
	kernel_begins();
	expect("PRIVATE_RESET in a handler", DENIED, smccc(SDEI_PRIVATE_RESET, 0, 0, 0, 0, 0));
	expect("EVENT_REGISTER in a handler", DENIED, smccc(SDEI_EVENT_REGISTER, EVENT, (u64)sdei_entry, 0, 0, 0));
	arrive();
	spin_for_ever();
}

static void unregister_in_handler(void)
{
	for (unsigned i = 0; i < 3; i++)
		expect("EVENT_UNREGISTER in a handler", PENDING, smccc(SDEI_EVENT_UNREGISTER, EVENT, 0, 0, 0, 0));
	arrive();
	spin_for_ever();
}

static void off_in_handler(void)
{
	arrive();
	cpu_off();
}

static void wedge_cpu(unsigned cpu)
{
	(void)cpu;
	enable_event(EVENT, sdei_entry, 0);
	switch (situation) {
	case 1:
		enter_handler(off_in_handler);
		break;
	case 2:
		enter_handler(new_kernel_in_handler);
		break;
	case 3:
		gic_init();
		acknowledge_an_sgi();
		off_in_handler();
		break;
	case 4:
		smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
		break;
	case 5:
		enter_handler(unregister_in_handler);
		break;
	case 7:
		enter_handler(stay_in_handler);
		break;
	case 11:
		gic_init();
		acknowledge_an_sgi();
		irq_unmask();
		break;
	default:
		for (unsigned i = 0; i < 100; i++)
			enter_handler(NULL);
		break;
	}
	arrive();
	sleep_for_ever();
}

/* ---- what CPU 0 does ---- */

/* The timer wakes: it is a PPI of this CPU's. */
static void suspend(void)
{
	volatile uint32_t *sgi = (volatile uint32_t *)GICR_SGI(this_cpu());
	u64 when = ticks() + ticks_of_us(1000);

	((volatile uint8_t *)sgi)[0x400 + WAKE_INTID] = 0xa0;
	sgi[0x100 / 4] = 1u << WAKE_INTID;
	smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
	__asm__ volatile("msr cntp_cval_el0, %0\n\tmsr cntp_ctl_el0, %1\n\tisb" ::"r"(when), "r"(1ul));
	expect("CPU_SUSPEND to a power-down", SUCCESS, power_down());
	__asm__ volatile("msr cntp_ctl_el0, xzr\n\tisb");
	sgi[0x180 / 4] = 1u << WAKE_INTID;
}

static void wait_until_off(unsigned cpu)
{
	u64 deadline = ticks() + ticks_of_us(wait_us);

	while (smccc(PSCI_AFFINITY_INFO, affinity(cpu), 0, 0, 0, 0) != AFFINITY_OFF) {
		if (ticks() > deadline)
			fail("CPU %u is not off", cpu);
	}
}

static void with_cpu_1(void)
{
	start_one_cpu(1, wedge_cpu);
	wait_at_least(&there, 1, "CPU 1");
	if (situation == 1 || situation == 3)
		wait_until_off(1);
	if (situation == 7)
		expect("CPU_ON of a CPU in a handler", (u64)PSCI_ALREADY_ON,
		       smccc(PSCI_CPU_ON, affinity(1), (u64)sdei_entry, 0, 0, 0));
}

void mode_wedge(void)
{
	situation = arg_number("n", 0, 0, 12);
	args_done();
	sdei_version();
	kernel_begins();
	enable_event(EVENT, sdei_entry, 0);
	switch (situation) {
	case 6:
		kernel_begins();
		expect("EVENT_REGISTER by another kernel", DENIED,
		       smccc(SDEI_EVENT_REGISTER, EVENT, (u64)sdei_entry, 0, 0, 0));
		break;
	case 10: /* lost */
		gic_init();
		suspend();
		expect("PRIVATE_RESET", SUCCESS, smccc(SDEI_PRIVATE_RESET, 0, 0, 0, 0, 0));
		expect("SDEI_PE_UNMASK", SUCCESS, smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0));
		break;
	case 12: /* re-enabled */
		expect("EVENT_DISABLE", SUCCESS, smccc(SDEI_EVENT_DISABLE, EVENT, 0, 0, 0, 0));
		gic_init();
		suspend();
		expect("EVENT_ENABLE", SUCCESS, smccc(SDEI_EVENT_ENABLE, EVENT, 0, 0, 0, 0));
		expect("SDEI_PE_UNMASK", SUCCESS, smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0));
		break;
	default:
		with_cpu_1();
		break;
	}
	printf("wedge: ready\n");
	sleep_for_ever();
}
