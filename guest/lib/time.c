/* The virtual counter and timer (CNTV): same registers at EL1 and EL2. */
#include "guest.h"

#define CTL_ENABLE 1
#define CTL_ISTATUS 4
#define ISR_I (1 << 7)

#define TIMER_CHECK_US 100

u64 wait_us = 30000000;

u64 ticks_per_second(void)
{
	u64 frequency;

	__asm__ volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
	return frequency;
}

u64 ticks_of_us(u64 us)
{
	return us * (ticks_per_second() / 1000) / 1000;
}

u64 ns_of_ticks(u64 count)
{
	return count * 1000000 / (ticks_per_second() / 1000);
}

void wait_at_least(const volatile u64 *word, u64 wanted, const char *what)
{
	u64 deadline = ticks() + ticks_of_us(wait_us);

	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) < wanted) {
		if (ticks() > deadline)
			fail("%s: waited for %lu s", what, wait_us / 1000000);
	}
}

void timer_arm(u64 us)
{
	u64 when = ticks() + ticks_of_us(us);

	__asm__ volatile("msr cntv_cval_el0, %0\n\tmsr cntv_ctl_el0, %1\n\tisb" ::"r"(when), "r"((u64)CTL_ENABLE) : "memory");
}

void timer_stop(void)
{
	__asm__ volatile("msr cntv_ctl_el0, xzr\n\tisb" ::: "memory");
}

bool timer_expired(void)
{
	u64 ctl;

	__asm__ volatile("isb\n\tmrs %0, cntv_ctl_el0" : "=r"(ctl)::"memory");
	return ctl & CTL_ISTATUS;
}

bool irq_pending(void)
{
	u64 isr;

	__asm__ volatile("isb\n\tmrs %0, isr_el1" : "=r"(isr)::"memory");
	return isr & ISR_I;
}

void timer_wait_expired(void)
{
	u64 deadline = ticks() + ticks_of_us(wait_us), taken = irqs[this_cpu()];

	while (!timer_expired() && irqs[this_cpu()] == taken) {
		if (ticks() > deadline)
			fail("the timer's expiry: waited for %lu s", wait_us / 1000000);
	}
}

void timer_wait_pending(void)
{
	u64 deadline = ticks() + ticks_of_us(wait_us), taken = irqs[this_cpu()];

	while (!irq_pending() && irqs[this_cpu()] == taken) {
		if (ticks() > deadline)
			fail("timer interrupt pending at this CPU (%s): waited for %lu s",
			     timer_expired() ? "timer expired" : "timer did not expire", wait_us / 1000000);
	}
}

void timer_check(void)
{
	volatile u64 *taken = &irqs[this_cpu()];
	u64 before = *taken;

	irq_mask();
	timer_arm(TIMER_CHECK_US);
	timer_wait_pending();
	expect_value("timer interrupts taken while masked", before, *taken);
	irq_unmask();
	wait_at_least(taken, before + 1, "timer interrupt");
	irq_mask();
}
