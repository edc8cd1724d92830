/* SPDX-License-Identifier: Apache-2.0 */
/* What the C files share: the per-CPU block as a struct, system registers. */
#ifndef REGS_H
#define REGS_H

#include "monitor.h"

typedef unsigned int u32;
typedef unsigned long u64;

struct pcpu {
	volatile u64 *frame;
	u64 seq_addr, poll_addr, seq, x30;
	volatile u64 fixup;
	u64 index, kicked, self, intid;
	u64 ready, unused, spare[4];
};

#define AT(member, offset) _Static_assert(__builtin_offsetof(struct pcpu, member) == (offset), "monitor.S")
AT(frame, P_FRAME);
AT(seq_addr, P_SEQ_ADDR);
AT(poll_addr, P_POLL_ADDR);
AT(seq, P_SEQ);
AT(x30, P_X30);
AT(fixup, P_FIXUP);
AT(index, P_INDEX);
AT(kicked, P_KICKED);
AT(self, P_SELF);
AT(intid, P_INTID);
AT(ready, P_READY);
AT(spare, P_SPARE);
_Static_assert(sizeof(struct pcpu) <= PCPU_BLOCK, "monitor.S");
#undef AT

#define WORD(offset) ((offset) / 8)

#define read_reg(name) ({ u64 v_; __asm__ volatile("mrs %0, " name : "=r"(v_)); v_; })
#define write_reg(name, value) __asm__ volatile("msr " name ", %0" ::"r"((u64)(value)))
#define isb() __asm__ volatile("isb" ::: "memory")
#define dsb() __asm__ volatile("dsb sy" ::: "memory")
#define wfi() __asm__ volatile("dsb sy; wfi" ::: "memory")

/* Registers by encoding, so that old assemblers do. */
#define ICC_SRE_EL3 "S3_6_C12_C12_5"
#define ICC_IGRPEN1_EL3 "S3_6_C12_C12_7"
#define ICC_SRE_EL2 "S3_4_C12_C9_5"
#define ICC_SRE_EL1 "S3_0_C12_C12_5"
#define ICC_PMR_EL1 "S3_0_C4_C6_0"
#define ICC_IGRPEN0_EL1 "S3_0_C12_C12_6"
#define ICC_IGRPEN1_EL1 "S3_0_C12_C12_7"
#define ICC_IAR0_EL1 "S3_0_C12_C8_0"
#define ICC_EOIR0_EL1 "S3_0_C12_C8_1"
#define ICC_HPPIR0_EL1 "S3_0_C12_C8_2"
#define ICC_SGI0R_EL1 "S3_0_C12_C11_7"
#define ZCR_EL3 "S3_6_C1_C2_0"
#define SMCR_EL3 "S3_6_C1_C2_6"
#define ID_AA64PFR2_EL1 "S3_0_C0_C4_2"
#define ID_AA64MMFR3_EL1 "S3_0_C0_C7_3"
#define ID_AA64ISAR2_EL1 "S3_0_C0_C6_2"

static inline u64 field(u64 reg, unsigned int low)
{
	return (reg >> low) & 0xf;
}

static inline int has_el2(void)
{
	return field(read_reg("id_aa64pfr0_el1"), 8) != 0;
}

/* sysregs.c. Both return 0 for a register that is not of the list; one that this CPU does not have is 0 and ignores writes. */
int read_sysreg(struct pcpu *me, u64 number, u64 *value);
int write_sysreg(struct pcpu *me, u64 number, u64 value);

#endif
