/* SPDX-License-Identifier: Apache-2.0 */
/* The rare half of the monitor: set-up at reset, interrupts, micro-operations, parking. */
#include "regs.h"

struct access {
	u64 value, aborted;
};

extern const u64 config_window, config_nr_cpus, config_redist2, config_proof;
struct access phys_access(u64 address, u64 value, u64 code, struct pcpu *me);

static u32 read32(u64 address)
{
	return *(volatile u32 *)address;
}

static void write32(u64 address, u32 value)
{
	*(volatile u32 *)address = value;
}

static struct pcpu *pcpu_of(u64 index)
{
	return (struct pcpu *)(config_window + W_MONITOR_OFFSET + (index + 1) * W_MONITOR_SIZE - PCPU_BLOCK);
}

/* Let the lower levels use what the CPU has: each bit below traps to EL3 when clear. The ID registers decide. */
static void enable_features(void)
{
	u64 pfr0 = read_reg("id_aa64pfr0_el1"), pfr1 = read_reg("id_aa64pfr1_el1");
	u64 mmfr0 = read_reg("id_aa64mmfr0_el1"), mmfr1 = read_reg("id_aa64mmfr1_el1");
	u64 mmfr3 = read_reg(ID_AA64MMFR3_EL1);
	u64 isar1 = read_reg("id_aa64isar1_el1"), isar2 = read_reg(ID_AA64ISAR2_EL1);
	u64 scr = 1UL << 0 | 1UL << 2 | 3UL << 4 | 1UL << 10; /* NS, FIQ to EL3, RES1, RW */
	u64 cptr = 0;

	if (field(pfr0, 8))
		scr |= 1UL << 8; /* HCE */
	if (field(isar1, 4) || field(isar1, 8) || field(isar1, 24) || field(isar1, 28) || field(isar2, 8) || field(isar2, 12))
		scr |= 1UL << 16 | 1UL << 17; /* APK, API: pointer authentication */
	if (field(pfr0, 56) >= 2 || field(pfr1, 32) >= 2)
		scr |= 1UL << 25; /* EnSCXT: CSV2_2 */
	if (field(pfr1, 8) >= 2)
		scr |= 1UL << 26; /* ATA: MTE2 */
	if (field(mmfr0, 56))
		scr |= 1UL << 27; /* FGTEn */
	if (field(mmfr0, 56) >= 2)
		scr |= 1UL << 59; /* FGTEn2 */
	if (field(mmfr0, 60))
		scr |= 1UL << 28; /* ECVEn */
	if (field(pfr0, 44) >= 2)
		scr |= 1UL << 35; /* AMVOFFEN */
	if (field(isar1, 60) >= 3)
		scr |= 1UL << 36; /* EnAS0: LS64_ACCDATA */
	if (field(isar1, 60) >= 3)
		scr |= 1UL << 37; /* ADEn */
	if (field(mmfr1, 40))
		scr |= 1UL << 38; /* HXEn: HCRX_EL2 */
	if (field(pfr1, 44))
		scr |= 1UL << 39; /* GCSEn */
	if (field(pfr1, 24))
		scr |= 1UL << 41; /* EnTP2: TPIDR2_EL0 of SME */
	if (field(mmfr3, 0))
		scr |= 1UL << 43; /* TCR2En */
	if (field(pfr1, 48))
		scr |= 1UL << 42; /* RCWMASKEn: THE */
	if (field(mmfr3, 4))
		scr |= 1UL << 44; /* SCTLR2En */
	if (field(mmfr3, 8) || field(mmfr3, 16))
		scr |= 1UL << 45; /* PIEn: permission indirection, and overlays */
	if (field(mmfr3, 24))
		scr |= 1UL << 46; /* AIEn */
	if (field(mmfr3, 32))
		scr |= 1UL << 47; /* D128En */
	if (field(read_reg(ID_AA64PFR2_EL1), 32))
		scr |= 1UL << 50; /* EnFPM: FPMR */
	if (field(pfr1, 60))
		scr |= 1UL << 53; /* PFAREn */
	write_reg("scr_el3", scr);

	if (field(pfr0, 32))
		cptr |= 1UL << 8; /* EZ: SVE */
	if (field(pfr1, 24))
		cptr |= 1UL << 12; /* ESM: SME */
	write_reg("cptr_el3", cptr);
	write_reg("mdcr_el3", 0);
	isb();
	/* The largest vectors there are: lengths are capped by what the CPU has. */
	if (field(pfr0, 32))
		write_reg(ZCR_EL3, 0xf);
	if (field(pfr1, 24))
		/* FA64 if ID_AA64SMFR0 says so; EZT0: SME2. */
		write_reg(SMCR_EL3, 0xf | (read_reg("S3_0_C0_C4_5") >> 63) << 31 | (field(pfr1, 24) >= 2 ? 1UL << 30 : 0));
	isb();
}

static void init_distributor(void)
{
	u32 lines = (read32(GICD + 4) & 0x1f) + 1; /* GICD_TYPER.ITLinesNumber, in words of 32 */

	write32(GICD, 0x30); /* ARE_S, ARE_NS: before anything that depends on them */
	for (u32 i = 1; i < lines; i++) {
		write32(GICD + GIC_IGROUPR + 4 * i, ~0u);  /* all SPIs are the guest's (Non-secure Group 1) ... */
		write32(GICD + GIC_IGRPMODR + 4 * i, 0);
	}
	/* ... but the doorbell: Group 0, priority 0, to CPU 0. */
	write32(GICD + GIC_IGROUPR + 4 * (SECURE_UART_INTID / 32), ~(1u << (SECURE_UART_INTID % 32)));
	*(volatile unsigned char *)(u64)(GICD + GIC_IPRIORITYR + SECURE_UART_INTID) = 0;
	*(volatile u64 *)(u64)(GICD + GIC_IROUTER + 8 * SECURE_UART_INTID) = 0;
	write32(GICD + GIC_ISENABLER + 4 * (SECURE_UART_INTID / 32), 1u << (SECURE_UART_INTID % 32));
	write32(GICD, 0x31); /* EnableGrp0; Group 1 is for the guest to enable */
}

static void init_redistributor(u64 index)
{
	u64 base = index < GICR_FIRST_REGION ? GICR_BASE + index * GICR_STRIDE
					     : config_redist2 + (index - GICR_FIRST_REGION) * GICR_STRIDE;
	u64 sgi = base + 0x10000;

	write32(base + 0x14, read32(base + 0x14) & ~2u); /* GICR_WAKER.ProcessorSleep */
	while (read32(base + 0x14) & 4)
		;
	write32(sgi + 0x80, 0xffff00ff); /* IGROUPR0: SGIs 8-15 are ours */
	write32(sgi + 0xd00, 0);
	*(volatile unsigned char *)(sgi + 0x400 + KICK_SGI) = 0;
	write32(sgi + 0x100, 1u << KICK_SGI);
}

static void init_cpu_interface(void)
{
	u64 scr = read_reg("scr_el3");

	write_reg(ICC_SRE_EL3, 0xf);
	isb();
	if (has_el2())
		write_reg(ICC_SRE_EL2, 0xf);
	write_reg(ICC_SRE_EL1, 7); /* the Non-secure copy: SCR_EL3.NS is set */
	write_reg("scr_el3", scr & ~1UL);
	isb();
	write_reg(ICC_SRE_EL1, 7);
	write_reg(ICC_PMR_EL1, 0xff);
	write_reg(ICC_IGRPEN0_EL1, 1);
	isb();
	write_reg("scr_el3", scr);
	isb();
}

static void init_uart(void)
{
	write32(SECURE_UART + 0x30, 0);	    /* CR: off while it is set up */
	write32(SECURE_UART + 0x2c, 0x70);  /* LCR_H: 8n1, FIFO: sixteen rings may wait in place of one */
	write32(SECURE_UART + 0x38, 0x10);  /* IMSC: receive */
	write32(SECURE_UART + 0x30, 0x301); /* CR: UARTEN, TXE, RXE */
}

/* Called by each CPU at each reset; fills the RESET frame. */
void monitor_init(struct pcpu *me)
{
	volatile u64 *frame = me->frame;

	enable_features();
	if (me->index == 0) {
		init_distributor();
		init_uart();
		/* Kicks from before the reset are void. */
		for (u64 cpu = 0; cpu < config_nr_cpus; cpu++)
			pcpu_of(cpu)->kicked = *(volatile u64 *)(config_window + W_KICK_OFFSET + 8 * cpu);
	}
	init_redistributor(me->index);
	init_cpu_interface();

	for (unsigned int i = 0; i < 31; i++)
		frame[WORD(F_X0) + i] = 0;
	frame[WORD(F_PC)] = 0;
	frame[WORD(F_PSTATE)] = 0;
	frame[WORD(F_KIND)] = KIND_RESET;
	frame[WORD(F_VECTOR)] = 0;
	frame[WORD(F_ESR_EL3)] = 0;
	frame[WORD(F_FAR_EL3)] = 0;
	frame[WORD(F_MPIDR_EL1)] = read_reg("mpidr_el1");
	frame[WORD(F_SCTLR_EL1)] = read_reg("sctlr_el1");
	frame[WORD(F_SCTLR_EL2)] = read_reg("sctlr_el2");
	frame[WORD(F_HCR_EL2)] = read_reg("hcr_el2");
	frame[WORD(F_FUNCTION)] = 0;
	frame[WORD(F_MONITOR_VERSION)] = W_VERSION;
	/* Only this code can read it: it is in secure flash. The host clears it before the guest runs. */
	frame[WORD(F_PROOF)] = me->index == 0 ? config_proof : 0;
	frame[WORD(F_RESET_MIDR_EL1)] = read_reg("midr_el1");
	frame[WORD(F_RESET_ID_AA64PFR0_EL1)] = read_reg("id_aa64pfr0_el1");
	frame[WORD(F_RESET_ID_AA64PFR1_EL1)] = read_reg("id_aa64pfr1_el1");
	frame[WORD(F_RESET_ID_AA64MMFR0_EL1)] = read_reg("id_aa64mmfr0_el1");
	frame[WORD(F_RESET_ID_AA64MMFR1_EL1)] = read_reg("id_aa64mmfr1_el1");
	frame[WORD(F_RESET_ID_AA64MMFR2_EL1)] = read_reg("id_aa64mmfr2_el1");
	frame[WORD(F_RESET_ID_AA64ISAR0_EL1)] = read_reg("id_aa64isar0_el1");
	frame[WORD(F_RESET_ID_AA64ISAR1_EL1)] = read_reg("id_aa64isar1_el1");
	frame[WORD(F_RESET_ID_AA64DFR0_EL1)] = read_reg("id_aa64dfr0_el1");
	frame[WORD(F_RESET_CNTFRQ_EL0)] = read_reg("cntfrq_el0");
}

static void send_kick(u64 cpu)
{
	write_reg(ICC_SGI0R_EL1, (u64)KICK_SGI << 24 | (cpu >> 4) << 16 | 1UL << (cpu & 15));
}

/* CPU 0 took the doorbell: empty the UART, then pass the kicks on. */
static void forward_kicks(struct pcpu *me)
{
	volatile u64 *kick = (volatile u64 *)(config_window + W_KICK_OFFSET);

	while (!(read32(SECURE_UART + 0x18) & 0x10)) /* FR.RXFE */
		(void)read32(SECURE_UART);
	dsb();
	for (u64 cpu = 0; cpu < config_nr_cpus; cpu++) {
		struct pcpu *target = pcpu_of(cpu);
		u64 count = kick[cpu];

		if (count == target->kicked)
			continue;
		target->kicked = count;
		if (cpu == me->index)
			me->self = 1;
		else
			send_kick(cpu);
	}
	isb();
}

/* Take the pending Group 0 interrupts, up to the first that is the host's to deal with. Returns 1 if there is something to post. */
u64 take_fiq(struct pcpu *me)
{
	while ((read_reg(ICC_HPPIR0_EL1) & 0xffffff) < 1020) {
		u64 intid = read_reg(ICC_IAR0_EL1) & 0xffffff;

		if (intid >= 1020)
			break;
		if (intid == SECURE_UART_INTID) {
			forward_kicks(me);
		} else if (intid == KICK_SGI) {
			me->self = 1;
		} else {
			me->intid = intid;
			return 1;
		}
		write_reg(ICC_EOIR0_EL1, intid);
		isb();
	}
	return me->self;
}

/* Wait for an interrupt of the guest, or of this CPU's own: a doorbell that rings for others (CPU 0 hears all) ends no
 * standby. A kick for this CPU is left pending, and comes as its frame when the guest runs again.
 */
static void standby(struct pcpu *me)
{
	wfi();
	while ((read_reg(ICC_HPPIR0_EL1) & 0xffffff) == SECURE_UART_INTID) {
		u64 intid = read_reg(ICC_IAR0_EL1) & 0xffffff;

		if (intid == SECURE_UART_INTID)
			forward_kicks(me);
		if (intid < 1020)
			write_reg(ICC_EOIR0_EL1, intid);
		if (me->self) {
			me->self = 0;
			send_kick(me->index);
		}
		isb();
		wfi();
	}
}

static int do_op(volatile u64 *op, struct pcpu *me)
{
	u64 code = op[0], argument = op[1], value = op[2];
	u64 size = (code >> 8) & 0xff;
	struct access access;

	switch (code & 0xff) {
	case OP_READ_PHYS:
	case OP_WRITE_PHYS:
		if ((size != 1 && size != 2 && size != 4 && size != 8) || argument & (size - 1))
			return 0;
		if (argument < SECURE_FLASH_END) /* our code, and the proof: a guest may have forged this */
			access = (struct access){ 0, 1 };
		else
			access = phys_access(argument, value, code, me);
		op[2] = access.value;
		if (access.aborted)
			op[0] = code | W_OP_ABORTED;
		return 1;
	case OP_READ_SYSREG:
		if (!read_sysreg(me, argument, &value))
			return 0;
		op[2] = value;
		return 1;
	case OP_WRITE_SYSREG:
		return write_sysreg(me, argument, value);
	case OP_CLEAR_SYSREGS:
		for (u64 n = 0; n < 64; n++)
			if (value >> n & 1 && !write_sysreg(me, argument + n, 0))
				return 0;
		return 1;
	case OP_SGI:
		write_reg(ICC_SGI0R_EL1, argument);
		isb();
		return 1;
	}
	return 0;
}

/* Wait until this CPU is kicked; pass on kicks for others meanwhile. */
static void park(volatile u64 *frame, struct pcpu *me)
{
	/* An interrupt of the guest that is still pending for a CPU that is off must not keep WFI from waiting. */
	write_reg(ICC_IGRPEN1_EL3, 0);
	isb();
	while (!take_fiq(me))
		wfi();
	me->self = 0;
	frame[WORD(F_KIND)] = me->intid ? KIND_INTERRUPT : KIND_KICK;
	frame[WORD(F_VECTOR)] = me->intid;
	me->intid = 0;
}

static u64 bad_answer(volatile u64 *frame, u64 why)
{
	frame[WORD(F_KIND)] = KIND_BAD_ANSWER;
	frame[WORD(F_VECTOR)] = why;
	return DO_POST;
}

/* An answer that asks for more than loading the context. */
u64 answer(volatile u64 *frame, struct pcpu *me, u64 flags)
{
	u64 count = (flags >> W_OPS_SHIFT) & 0xff;

	/* The first answer after a reset: does the host speak of the same window? */
	if (frame[WORD(F_KIND)] == KIND_RESET && *(volatile u64 *)(config_window + H_VERSION) != W_VERSION)
		return bad_answer(frame, BAD_VERSION);
	if (count > W_MAX_OPS)
		return bad_answer(frame, BAD_COUNT);
	for (u64 i = 0; i < count; i++)
		if (!do_op(&frame[WORD(F_OPS) + i * W_OP_WORDS], me))
			return bad_answer(frame, BAD_OP);
	if (flags & ANSWER_WFI)
		standby(me);
	if (flags & ANSWER_REPOST) {
		frame[WORD(F_KIND)] = KIND_OPS;
		return DO_POST;
	}
	if (flags & ANSWER_PARK) {
		frame[WORD(F_DONE)] = me->seq; /* out of the exchange: a parked CPU waits for nobody */
		park(frame, me);
		return DO_POST;
	}
	return flags & ANSWER_ALL ? DO_RESUME_ALL : DO_RESUME;
}
