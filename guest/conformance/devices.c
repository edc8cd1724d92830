/* Interrupts: SGIs that wake a parked CPU, and the sources for bound events. Addresses are those of QEMU's virt. */
#include "conformance.h"

#define UART_IMSC (UART + 0x38)
#define IMSC_TX (1 << 5)

#define WAKE_SGI 1
#define NS_PRIORITY 0xa0

static uint32_t get(u64 address)
{
	return *(volatile uint32_t *)address;
}

static void set(u64 address, uint32_t value)
{
	*(volatile uint32_t *)address = value;
}

/* Registers of `intid`: the distributor's, or those of this CPU's redistributor. */
static u64 frame(unsigned intid)
{
	return intid < 32 ? GICR_SGI(this_cpu()) : GICD;
}

static u64 word(unsigned intid)
{
	return 4 * (intid / 32);
}

static uint32_t bit(unsigned intid)
{
	return 1u << intid % 32;
}

void device_init(void)
{
	gic_init();
	set(frame(0) + GIC_IGROUPR, get(frame(0) + GIC_IGROUPR) | bit(WAKE_SGI) | bit(TIMER_PPI));
	intid_set_priority(WAKE_SGI, NS_PRIORITY);
	set(frame(0) + GIC_ISENABLER, bit(WAKE_SGI));
	ppi_quiet();
}

void wake_cpu(unsigned cpu)
{
	WRITE(S3_0_C12_C11_5, (u64)WAKE_SGI << 24 | 1ul << cpu % 16); /* ICC_SGI1R_EL1 */
}

/* Interrupts stay masked: a pending one ends WFI, and is ended here. */
u64 wait_for_wake(void)
{
	u64 intid;

	__asm__ volatile("dsb sy\n\twfi" ::: "memory");
	intid = READ(S3_0_C12_C12_0); /* ICC_IAR1_EL1 */
	if (intid < SPURIOUS)
		WRITE(S3_0_C12_C12_1, intid); /* ICC_EOIR1_EL1 */
	return intid;
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

void spi_set_pending(unsigned intid, bool pending)
{
	set(frame(intid) + (pending ? GIC_ISPENDR : GIC_ICPENDR) + word(intid), bit(intid));
}

bool spi_is_pending(unsigned intid)
{
	return get(frame(intid) + GIC_ISPENDR + word(intid)) & bit(intid);
}

void intid_enable(unsigned intid, bool enable)
{
	if (intid >= 32)
		*(volatile u64 *)(GICD + GIC_IROUTER + 8 * intid) = affinity(this_cpu());
	set(frame(intid) + (enable ? GIC_ISENABLER : GIC_ICENABLER) + word(intid), bit(intid));
}

bool intid_is_enabled(unsigned intid)
{
	return get(frame(intid) + GIC_ISENABLER + word(intid)) & bit(intid);
}

unsigned intid_priority(unsigned intid)
{
	return *(volatile uint8_t *)(frame(intid) + GIC_IPRIORITYR + intid);
}

void intid_set_priority(unsigned intid, unsigned priority)
{
	*(volatile uint8_t *)(frame(intid) + GIC_IPRIORITYR + intid) = (uint8_t)priority;
}

void spi_set_edge(unsigned intid, bool edge)
{
	u64 address = GICD + GIC_ICFGR + 4 * (intid / 16);
	uint32_t flag = 2u << 2 * (intid % 16);

	set(address, edge ? get(address) | flag : get(address) & ~flag);
}

bool take_interrupt(unsigned intid, u64 us)
{
	u64 deadline = ticks() + ticks_of_us(us);

	do {
		u64 got = READ(S3_0_C12_C12_0);

		if (got < SPURIOUS) {
			if (got == UART_SPI)
				uart_quiet();
			if (got == TIMER_PPI)
				ppi_quiet();
			WRITE(S3_0_C12_C12_1, got);
			if (got == intid)
				return true;
		}
	} while (ticks() < deadline);
	return false;
}
