/*
 * mode=registers: what a power-down clears is as after a reset.
 *
 * CPU 0 reads all registers at its boot: so they are after QEMU's own reset. CPU 1 changes every one, goes off, is
 * started, and must read the same; and once more after a suspend, and after a reset of the machine.
 */
#include "bench.h"
#include "registers.h"

#define WAKE_INTID 30
#define SGI 3
#define GUESTS 0xffff00ffu /* SGIs 8-15 are the firmware's */
#define KEPT_MAGIC 0x5245474953544552ul

enum group { EL1, EL2, OPTIONAL, OPTIONAL_EL2, TIMER, TIMER_EL2 };

struct reg {
	const char *name;
	void (*read)(void), (*write)(void); /* by x0: the value read, or to be written */
	u64 dirty;
	enum group group;
};

#define FUNCTIONS(name, from, to, dirty) \
	void read_##name(void); void write_##name(void); \
	__asm__(".text\nread_" #name ": mrs x0, " from "\n\tret\nwrite_" #name ": adrp x1, to_write\n\t" \
		"add x1, x1, :lo12:to_write\n\tldr x0, [x1]\n\tmsr " to ", x0\n\tisb\n\tret\n");
EACH_EL1(FUNCTIONS) EACH_EL2(FUNCTIONS) EACH_OPTIONAL(FUNCTIONS) EACH_OPTIONAL_EL2(FUNCTIONS) EACH_TIMER(FUNCTIONS) EACH_TIMER_EL2(FUNCTIONS)

volatile u64 to_write;

#define ENTRY_EL1(name, from, to, dirty) { #name, read_##name, write_##name, dirty, EL1 },
#define ENTRY_EL2(name, from, to, dirty) { #name, read_##name, write_##name, dirty, EL2 },
#define ENTRY_OPTIONAL(name, from, to, dirty) { #name, read_##name, write_##name, dirty, OPTIONAL },
#define ENTRY_OPTIONAL_EL2(name, from, to, dirty) { #name, read_##name, write_##name, dirty, OPTIONAL_EL2 },
#define ENTRY_TIMER(name, from, to, dirty) { #name, read_##name, write_##name, dirty, TIMER },
#define ENTRY_TIMER_EL2(name, from, to, dirty) { #name, read_##name, write_##name, dirty, TIMER_EL2 },

static const struct reg regs[] = {
	EACH_EL1(ENTRY_EL1) EACH_EL2(ENTRY_EL2) EACH_TIMER(ENTRY_TIMER)
	EACH_OPTIONAL(ENTRY_OPTIONAL) EACH_OPTIONAL_EL2(ENTRY_OPTIONAL_EL2) EACH_TIMER_EL2(ENTRY_TIMER_EL2)
};

#define NR_REGS (sizeof(regs) / sizeof(regs[0]))

/* Words of the redistributor's SGI frame, and what makes them differ. */
static const struct {
	const char *name;
	unsigned read, write;
	uint32_t mask, dirty;
} words[] = {
	{ "GICR_ISENABLER0", 0x100, 0x100, GUESTS, GUESTS },	    { "GICR_IPRIORITYR0", 0x400, 0x400, ~0u, 0x40404040 },
	{ "GICR_IPRIORITYR4", 0x410, 0x410, ~0u, 0x40404040 },	    { "GICR_IPRIORITYR7", 0x41c, 0x41c, ~0u, 0x40404040 },
	{ "GICR_ICFGR1", 0xc04, 0xc04, ~0u, 0xaaaaaaaa },	    { "GICR_ISPENDR0", 0x200, 0x200, GUESTS, GUESTS },
	{ "GICR_ISACTIVER0", 0x300, 0x300, GUESTS, GUESTS },
};

#define NR_WORDS (sizeof(words) / sizeof(words[0]))

struct state {
	u64 reg[NR_REGS];
	bool there[NR_REGS];
	uint32_t word[NR_WORDS];
	u64 running;
};

/* No reset clears it: RAM that the image does not reach. */
static struct kept {
	u64 magic;
	struct state reset;
} *const kept = (struct kept *)0x42000000;

static struct state now;
static volatile u64 round;
static unsigned changed, wrong;

static bool is_el2(enum group group)
{
	return group == EL2 || group == OPTIONAL_EL2 || group == TIMER_EL2;
}

static bool is_timer(enum group group)
{
	return group == TIMER || group == TIMER_EL2;
}

static bool is_everywhere(const struct reg *reg)
{
	return reg->group == EL1 || reg->group == EL2 || reg->group == TIMER;
}

static bool is_for_us(const struct reg *reg)
{
	return at_el2() || !is_el2(reg->group);
}

static volatile uint32_t *word_at(unsigned offset)
{
	return (volatile uint32_t *)(GICR_SGI(this_cpu()) + offset);
}

/* CPACR_EL1 and CPTR_EL2 come first in the tables; what they trap comes after. */
static void open_up(const struct reg *reg)
{
	if (reg->read == read_CPACR_EL1)
		__asm__ volatile("msr cpacr_el1, %0\n\tisb" ::"r"(0x03330000ul));
	if (reg->read == read_CPTR_EL2)
		__asm__ volatile("msr cptr_el2, %0\n\tisb" ::"r"(0x22fful));
}

static bool read_one(const struct reg *reg, u64 *value)
{
	if (is_everywhere(reg)) {
		*value = ((u64(*)(void))reg->read)();
		return true;
	} else {
		struct trap trap = trapped(reg->read);

		*value = trap.x0;
		return (uint32_t)trap.esr == ~0u;
	}
}

static void read_all(struct state *state)
{
	__asm__ volatile("mrs %0, S3_0_C12_C11_3" : "=r"(state->running)); /* ICC_RPR_EL1 */
	for (unsigned i = 0; i < NR_WORDS; i++)
		state->word[i] = *word_at(words[i].read) & words[i].mask;
	for (unsigned i = 0; i < NR_REGS; i++) {
		if (!is_for_us(&regs[i]))
			continue;
		state->there[i] = read_one(&regs[i], &state->reg[i]);
		open_up(&regs[i]);
	}
}

static void wrong_value(const char *name, const char *when, u64 got, u64 expected)
{
	printf("registers: CPU %u: %s after %s: 0x%lx, and 0x%lx after a reset\n", this_cpu(), name, when, got, expected);
	wrong++;
}

/* `all`: the timers and the redistributor too. */
static void check_all(const char *when, bool all)
{
	const struct state *reset = &kept->reset;

	read_all(&now);
	if (now.running != reset->running)
		wrong_value("ICC_RPR_EL1", when, now.running, reset->running);
	for (unsigned i = 0; i < NR_WORDS && all; i++) {
		if (now.word[i] != reset->word[i])
			wrong_value(words[i].name, when, now.word[i], reset->word[i]);
	}
	for (unsigned i = 0; i < NR_REGS; i++) {
		u64 expected = reset->reg[i];

		if (!is_for_us(&regs[i]) || !reset->there[i] || (is_timer(regs[i].group) && !all))
			continue;
		if (regs[i].read == read_VMPIDR_EL2)
			__asm__ volatile("mrs %0, mpidr_el1" : "=r"(expected));
		if (now.reg[i] != expected)
			wrong_value(regs[i].name, when, now.reg[i], expected);
	}
}

static void change_one(const struct reg *reg, bool there)
{
	u64 value;

	if (!there)
		return;
	to_write = reg->dirty;
	if (is_everywhere(reg))
		reg->write(); /* TPIDR_EL0 is not for `trapped` to use then */
	else
		trapped(reg->write);
	read_one(reg, &value);
	changed += value != kept->reset.reg[reg - regs]; /* some are constants in QEMU */
}

static void acknowledge_an_sgi(void)
{
	u64 intid, deadline = ticks() + ticks_of_us(wait_us);

	gic_init();
	*(volatile uint8_t *)(GICR_SGI(this_cpu()) + 0x400 + SGI) = 0xc0;
	*word_at(0x100) = 1u << SGI;
	__asm__ volatile("msr S3_0_C12_C11_5, %0\n\tisb" ::"r"((u64)SGI << 24 | 1ul << this_cpu())); /* ICC_SGI1R_EL1 */
	while (!irq_pending()) {
		if (ticks() > deadline)
			fail("no interrupt");
	}
	__asm__ volatile("mrs %0, S3_0_C12_C12_0\n\tdsb sy" : "=r"(intid)::"memory"); /* ICC_IAR1_EL1 */
	expect_value("interrupt acknowledged", SGI, intid);
}

/* Those first that trap, or that the others need: from the end. What an exception changes is changed last. */
static void change_all(bool all)
{
	acknowledge_an_sgi();
	for (unsigned i = 0; i < NR_WORDS && all; i++)
		*word_at(words[i].write) = words[i].dirty;
	for (unsigned i = NR_REGS; i-- > 0;) {
		if (is_for_us(&regs[i]) && (all || !is_timer(regs[i].group)))
			change_one(&regs[i], kept->reset.there[i]);
	}
}

static void off(void)
{
	smccc(PSCI_CPU_OFF, 0, 0, 0, 0, 0);
	fail("CPU_OFF came back");
}

static void suspend(void)
{
	u64 when, found;

	change_all(false);
	when = ticks() + ticks_of_us(1000);
	*(volatile uint8_t *)(GICR_SGI(this_cpu()) + 0x400 + WAKE_INTID) = 0x40;
	*word_at(0x100) = 1u << WAKE_INTID;
	__asm__ volatile("msr cntp_cval_el0, %0\n\tmsr cntp_ctl_el0, %1\n\tisb" ::"r"(when), "r"(1ul));
	expect("CPU_SUSPEND to a power-down", SUCCESS, power_down());
	check_all("CPU_SUSPEND", false);
	__asm__ volatile("mrs %0, cntp_cval_el0" : "=r"(found));
	expect_value("CNTP_CVAL_EL0 after CPU_SUSPEND", when, found);
	__asm__ volatile("mrs %0, cntp_ctl_el0" : "=r"(found));
	expect_value("CNTP_CTL_EL0 after CPU_SUSPEND", 5, found);
	expect_value("what woke it, pending", 1u << WAKE_INTID, *word_at(0x200) & 1u << WAKE_INTID);
	expect_value("an SGI, active", 1u << SGI, *word_at(0x300) & 1u << SGI);
}

/* CPU 1, each time that it is started. */
static void registers_cpu(unsigned cpu)
{
	(void)cpu;
	check_all(round ? "CPU_ON" : "its first CPU_ON", true);
	if (round == 1) {
		suspend();
		off();
	}
	changed = 0;
	change_all(true);
	off();
}

static void wait_until_off(void)
{
	u64 deadline = ticks() + ticks_of_us(wait_us);

	while (smccc(PSCI_AFFINITY_INFO, affinity(1), 0, 0, 0, 0) != AFFINITY_OFF) {
		if (ticks() > deadline)
			fail("CPU 1 is not off");
	}
}

void mode_registers(void)
{
	if (kept->magic == KEPT_MAGIC) {
		kept->magic = 0;
		check_all("SYSTEM_RESET", true);
		args_done();
		start_one_cpu(1, registers_cpu);
		wait_until_off();
		if (wrong)
			fail("%u registers are not as after a reset", wrong);
		printf("registers: ok\n");
		return;
	}
	read_all(&kept->reset);
	args_done();
	for (; round < 3; round++) {
		start_one_cpu(1, registers_cpu);
		wait_until_off();
	}
	if (wrong)
		fail("%u registers are not as after a reset", wrong);
	printf("registers: %u of %u changed\n", changed, (unsigned)NR_REGS);
	kept->magic = KEPT_MAGIC;
	change_all(true);
	__asm__ volatile("dsb sy" ::: "memory");
	smccc(PSCI_SYSTEM_RESET, 0, 0, 0, 0, 0);
	fail("SYSTEM_RESET came back");
}
