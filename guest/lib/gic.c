/* GICv3, just enough for one PPI: the virtual timer's, as a Non-secure Group 1 interrupt. */
#include "guest.h"

#define GICD_CTLR (GICD + 0x0)
#define GICR_WAKER 0x14

#define CTLR_ENABLE_GRP1NS (1 << 1)
#define CTLR_ARE_NS (1 << 4)
#define WAKER_PROCESSOR_SLEEP (1 << 1)
#define WAKER_CHILDREN_ASLEEP (1 << 2)

volatile u64 irqs[MAX_CPUS];
void (*irq_hook)(void);

static uint32_t get(u64 address)
{
	return *(volatile uint32_t *)address;
}

static void set(u64 address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

/* GICR_WAKER and GICR_IGROUPR0 are for a GIC without Secure world; otherwise they ignore us and the firmware did it. */
void gic_init(void)
{
	u64 gicr = GICR(this_cpu()), sgi = gicr + GICR_SGI_FRAME;
	u64 deadline = ticks() + ticks_of_us(wait_us);

	set(GICD_CTLR, get(GICD_CTLR) | CTLR_ARE_NS | CTLR_ENABLE_GRP1NS);
	set(gicr + GICR_WAKER, get(gicr + GICR_WAKER) & ~(uint32_t)WAKER_PROCESSOR_SLEEP);
	while (get(gicr + GICR_WAKER) & WAKER_CHILDREN_ASLEEP) {
		if (ticks() > deadline)
			fail("redistributor wake-up: waited for %lu s", wait_us / 1000000);
	}
	set(sgi + GIC_IGROUPR, get(sgi + GIC_IGROUPR) | 1u << TIMER_INTID);
	*(volatile uint8_t *)(sgi + GIC_IPRIORITYR + TIMER_INTID) = 0xa0;
	set(sgi + GIC_ISENABLER, 1u << TIMER_INTID);
	__asm__ volatile("msr S3_0_C12_C12_5, %0\n\tisb\n\t" /* ICC_SRE_EL1 */
			 "msr S3_0_C4_C6_0, %1\n\t"          /* ICC_PMR_EL1 */
			 "msr S3_0_C12_C12_7, %2\n\tisb"     /* ICC_IGRPEN1_EL1 */
			 ::"r"(7ul), "r"(0xfful), "r"(1ul) : "memory");
}

/* From start.S, interrupts masked. */
void irq_handler(void)
{
	u64 intid;

	__asm__ volatile("mrs %0, S3_0_C12_C12_0\n\tdsb sy" : "=r"(intid)::"memory"); /* ICC_IAR1_EL1 */
	if (intid >= SPURIOUS)
		return;
	if (intid != TIMER_INTID)
		fail("unexpected interrupt %lu", intid);
	timer_stop();
	if (irq_hook)
		irq_hook();
	irqs[this_cpu()]++;
	__asm__ volatile("msr S3_0_C12_C12_1, %0\n\tisb" ::"r"(intid) : "memory"); /* ICC_EOIR1_EL1 */
}
