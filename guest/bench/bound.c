/*
 * mode=bound: interrupts that are SDEI events. Each CPU's virtual timer at once, then the RTC's alarm, an SPI: one handler
 * per expiry with IRQs masked, none without, and after EVENT_UNREGISTER the GIC is as it was and the ordinary interrupt
 * comes again.
 */
#include "bench.h"

#define ALARM_WORD 4 /* the second word of 32 */
#define ALARM_BIT (1u << (RTC_INTID - 32))
#define ALARM_PRIORITY 0xb0

#define RTC_DATA (RTC + 0x0)
#define RTC_MATCH (RTC + 0x4)
#define RTC_MASK (RTC + 0x10)
#define RTC_CLEAR (RTC + 0x1c)

#define QUIET_US 300

static u64 timer_event, alarm_event, alarm_target;
static volatile u64 timers[MAX_CPUS], alarms;
static u64 count, total_timers;
static bool given_back; /* UNREGISTER leaves the interrupt as REGISTER found it; else a client sets it up anew */

static uint32_t get(u64 address)
{
	return *(volatile uint32_t *)address;
}

static void set(u64 address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
	__asm__ volatile("dsb sy" ::: "memory");
}

static u64 call(u64 function, u64 x1)
{
	return smccc(function, x1, 0, 0, 0, 0);
}

static void wait_quietly(void)
{
	u64 deadline = ticks() + ticks_of_us(QUIET_US);

	while (ticks() < deadline)
		;
}

/* Quiesces the device: an asserted line would fire again at once. */
u64 bound_handler(struct regs *regs)
{
	unsigned cpu = this_cpu();

	if (regs->x[0] == timer_event) {
		expect_value("timer handler: argument", 0x7000 + cpu, regs->x[1]);
		if (!timer_expired())
			fail("timer handler without an expired timer");
		timer_stop();
		timers[cpu]++;
	} else {
		expect_value("alarm handler: event", alarm_event, regs->x[0]);
		if (alarm_target < nr_cpus)
			expect_value("alarm handler: CPU", alarm_target, cpu);
		set(RTC_CLEAR, 1);
		__atomic_add_fetch(&alarms, 1, __ATOMIC_RELEASE);
	}
	return 0;
}

static void enable_bound(u64 event, u64 argument, u64 flags, u64 target)
{
	expect("EVENT_REGISTER of a bound event", SUCCESS,
	       smccc(SDEI_EVENT_REGISTER, event, (u64)sdei_entry, argument, flags, target));
	expect("EVENT_ENABLE of a bound event", SUCCESS, call(SDEI_EVENT_ENABLE, event));
}

static void timer_on_this_cpu(unsigned cpu)
{
	u64 sgi = GICR_SGI(cpu), priority;
	uint32_t enabled;

	gic_init();
	timer_check();
	enabled = get(sgi + GIC_ISENABLER);
	priority = *(volatile uint8_t *)(sgi + GIC_IPRIORITYR + TIMER_INTID);
	for (unsigned round = 0; round < 3; round++) {
		u64 before = irqs[cpu];

		barrier("timer registration");
		enable_bound(timer_event, 0x7000 + cpu, 0, 0);
		expect_value("GICR_ISENABLER0 of an interrupt that is not ours", 0, get(sgi + GIC_ISENABLER) >> TIMER_INTID & 1);
		expect("SDEI_PE_UNMASK", SUCCESS, call(SDEI_PE_UNMASK, 0));
		barrier("timers");
		for (u64 i = 0; i < count; i++) {
			u64 due = timers[cpu] + 1;

			timer_arm(i % 4 * 20);
			wait_at_least(&timers[cpu], due, "handler of the timer's interrupt");
			expect_value("handlers of one expiry", due, timers[cpu]);
			progress[cpu]++;
		}
		wait_quietly();
		expect_value("timer handlers", count * (round + 1), timers[cpu]);
		expect_value("ordinary timer interrupts", before, irqs[cpu]);
		expect("INTERRUPT_RELEASE of a registered event", DENIED, call(SDEI_INTERRUPT_RELEASE, timer_event));
		expect("EVENT_UNREGISTER", SUCCESS, call(SDEI_EVENT_UNREGISTER, timer_event));
		if (!given_back)
			gic_init();
		expect_value("GICR_ISENABLER0 given back", enabled, get(sgi + GIC_ISENABLER));
		expect_value("GICR_IPRIORITYR given back", priority, *(volatile uint8_t *)(sgi + GIC_IPRIORITYR + TIMER_INTID));
		timer_check();
		expect_value("timer handlers after EVENT_UNREGISTER", count * (round + 1), timers[cpu]);
	}
	__atomic_add_fetch(&total_timers, timers[cpu], __ATOMIC_RELAXED);
	expect("SDEI_PE_MASK", 1, call(SDEI_PE_MASK, 0));
	expect("SDEI_PE_UNMASK", SUCCESS, call(SDEI_PE_UNMASK, 0));
	barrier("all timers");
}

static void sleep_cpu(unsigned cpu)
{
	timer_on_this_cpu(cpu);
	for (;;)
		__asm__ volatile("wfi");
}

/* The alarm rings now. */
static void ring(void)
{
	set(RTC_MATCH, get(RTC_DATA));
}

static void alarm_rounds(u64 flags, u64 target)
{
	alarm_target = flags ? target : MAX_CPUS;
	for (u64 i = 0; i < 20; i++) {
		enable_bound(alarm_event, 0, flags, affinity(target));
		for (u64 n = 0; n < 3; n++) {
			u64 due = alarms + 1;

			ring();
			wait_at_least(&alarms, due, "handler of the alarm's interrupt");
			wait_quietly();
			expect_value("handlers of one alarm", due, alarms);
		}
		while (call(SDEI_EVENT_STATUS, alarm_event) & RUNNING)
			;
		expect("EVENT_UNREGISTER", SUCCESS, call(SDEI_EVENT_UNREGISTER, alarm_event));
		if (!given_back) {
			*(volatile uint8_t *)(GICD + GIC_IPRIORITYR + RTC_INTID) = ALARM_PRIORITY;
			set(GICD + GIC_ISENABLER + ALARM_WORD, ALARM_BIT);
		}
		expect_value("GICD_ISENABLER given back", ALARM_BIT, get(GICD + GIC_ISENABLER + ALARM_WORD) & ALARM_BIT);
		expect_value("GICD_IPRIORITYR given back", ALARM_PRIORITY, *(volatile uint8_t *)(GICD + GIC_IPRIORITYR + RTC_INTID));
	}
}

static void alarm_as_an_interrupt(void)
{
	u64 deadline = ticks() + ticks_of_us(wait_us), before = alarms, intid;

	ring();
	while (!irq_pending()) {
		if (ticks() > deadline)
			fail("the alarm's ordinary interrupt: waited for %lu s", wait_us / 1000000);
	}
	__asm__ volatile("mrs %0, S3_0_C12_C12_2" : "=r"(intid)); /* ICC_HPPIR1_EL1 */
	expect_value("ordinary interrupt", RTC_INTID, intid);
	set(RTC_CLEAR, 1);
	expect_value("alarm handlers", before, alarms);
}

static void alarm_everywhere(void)
{
	set(RTC_MASK, 1);
	set(RTC_CLEAR, 1);
	*(volatile uint8_t *)(GICD + GIC_IPRIORITYR + RTC_INTID) = ALARM_PRIORITY;
	*(volatile u64 *)(GICD + GIC_IROUTER + 8 * RTC_INTID) = affinity(0);
	set(GICD + GIC_ISENABLER + ALARM_WORD, ALARM_BIT);
	alarm_as_an_interrupt();
	alarm_rounds(0, 0);
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
		alarm_rounds(1, cpu);
	*(volatile u64 *)(GICD + GIC_IROUTER + 8 * RTC_INTID) = affinity(nr_cpus - 1);
	alarm_rounds(0, 0);
	*(volatile u64 *)(GICD + GIC_IROUTER + 8 * RTC_INTID) = affinity(0);
	alarm_as_an_interrupt();

	/* What came before EVENT_REGISTER is dropped; what comes before EVENT_ENABLE is not. */
	set(GICD + GIC_ICENABLER + ALARM_WORD, ALARM_BIT);
	set(GICD + GIC_ISPENDR + ALARM_WORD, ALARM_BIT);
	alarm_target = MAX_CPUS;
	{
		u64 before = alarms;

		enable_bound(alarm_event, 0, 0, 0);
		wait_quietly();
		expect_value("handlers of an interrupt from before EVENT_REGISTER", before, alarms);
		expect("EVENT_DISABLE", SUCCESS, call(SDEI_EVENT_DISABLE, alarm_event));
		ring();
		wait_quietly();
		expect_value("handlers of a disabled event", before, alarms);
		expect("EVENT_ENABLE", SUCCESS, call(SDEI_EVENT_ENABLE, alarm_event));
		wait_at_least(&alarms, before + 1, "handler after EVENT_ENABLE");
		wait_quietly();
		expect_value("handlers after EVENT_ENABLE", before + 1, alarms);
		expect("SDEI_SHARED_RESET", SUCCESS, call(SDEI_SHARED_RESET, 0));
		expect_value("GICD_ISENABLER given back", 0, get(GICD + GIC_ISENABLER + ALARM_WORD) & ALARM_BIT);
	}
}

static u64 bind(u64 intid, u64 type)
{
	u64 event = call(SDEI_INTERRUPT_BIND, intid);

	if ((int64_t)event < 0)
		expect("INTERRUPT_BIND", SUCCESS, event);
	expect_value("INTERRUPT_BIND again", event, call(SDEI_INTERRUPT_BIND, intid));
	expect_value("EVENT_GET_INFO(type)", type, smccc(SDEI_EVENT_GET_INFO, event, INFO_TYPE, 0, 0, 0));
	return event;
}

void mode_bound(void)
{
	u64 refused = arg_number("refused", 40, 0, 1019);

	given_back = arg_number("given_back", 1, 0, 1);
	count = arg_number("count", 200, 1, 1000000);
	args_done();
	sdei_version();
	timer_event = bind(TIMER_INTID, 0);
	alarm_event = bind(RTC_INTID, 1);
	expect("INTERRUPT_BIND of an SGI", INVALID_PARAMETERS, call(SDEI_INTERRUPT_BIND, 1));
	if (refused)
		expect("INTERRUPT_BIND of the firmware's own", INVALID_PARAMETERS, call(SDEI_INTERRUPT_BIND, refused));
	start_cpus(sleep_cpu);
	timer_on_this_cpu(0);
	expect("INTERRUPT_RELEASE", SUCCESS, call(SDEI_INTERRUPT_RELEASE, timer_event));
	expect("INTERRUPT_RELEASE again", INVALID_PARAMETERS, call(SDEI_INTERRUPT_RELEASE, timer_event));
	alarm_everywhere();
	expect("INTERRUPT_RELEASE after SHARED_RESET", INVALID_PARAMETERS, call(SDEI_INTERRUPT_RELEASE, alarm_event));
	printf("bound: ok timers=%lu alarms=%lu\n", total_timers, alarms);
}
