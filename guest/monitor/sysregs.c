/* SPDX-License-Identifier: Apache-2.0 */
/* The system registers that micro-operations reach: the list is `SysReg` in qemu_sdei/monitor/layout.py. */
#include "regs.h"

#define EACH_REG(DO) \
	DO(SCTLR_EL1, "sctlr_el1") DO(ELR_EL1, "elr_el1") DO(SPSR_EL1, "spsr_el1") DO(ESR_EL1, "esr_el1") \
	DO(FAR_EL1, "far_el1") DO(VBAR_EL1, "vbar_el1") DO(SP_EL0, "sp_el0") DO(SP_EL1, "sp_el1") \
	DO(TTBR0_EL1, "ttbr0_el1") DO(TTBR1_EL1, "ttbr1_el1") DO(TCR_EL1, "tcr_el1") DO(MAIR_EL1, "mair_el1") \
	DO(CPACR_EL1, "cpacr_el1") DO(CONTEXTIDR_EL1, "contextidr_el1") DO(TPIDR_EL0, "tpidr_el0") \
	DO(TPIDR_EL1, "tpidr_el1") DO(CNTFRQ_EL0, "cntfrq_el0") DO(CNTKCTL_EL1, "cntkctl_el1") \
	DO(ICC_PMR_EL1, ICC_PMR_EL1) DO(ICC_IGRPEN1_EL1, ICC_IGRPEN1_EL1)

#define EACH_REG_EL2(DO) \
	DO(SCTLR_EL2, "sctlr_el2") DO(ELR_EL2, "elr_el2") DO(SPSR_EL2, "spsr_el2") DO(ESR_EL2, "esr_el2") \
	DO(FAR_EL2, "far_el2") DO(HPFAR_EL2, "hpfar_el2") DO(VBAR_EL2, "vbar_el2") DO(HCR_EL2, "hcr_el2") \
	DO(SP_EL2, "sp_el2") DO(CPTR_EL2, "cptr_el2") DO(CNTHCTL_EL2, "cnthctl_el2") \
	DO(CNTVOFF_EL2, "cntvoff_el2") DO(VTTBR_EL2, "vttbr_el2") DO(VTCR_EL2, "vtcr_el2") \
	DO(VPIDR_EL2, "vpidr_el2") DO(VMPIDR_EL2, "vmpidr_el2") DO(MDCR_EL2, "mdcr_el2") DO(HSTR_EL2, "hstr_el2")

/* By encoding, so that old assemblers do. Not every CPU has all of these. */
#define EACH_REG_MORE(DO) \
	DO(ICC_CTLR_EL1, "S3_0_C12_C12_4") DO(ICC_BPR1_EL1, "S3_0_C12_C12_3") DO(ICC_AP0R0_EL1, "S3_0_C12_C8_4") \
	DO(ICC_AP1R0_EL1, "S3_0_C12_C9_0") DO(AFSR0_EL1, "S3_0_C5_C1_0") DO(AFSR1_EL1, "S3_0_C5_C1_1") \
	DO(AMAIR_EL1, "S3_0_C10_C3_0") DO(PAR_EL1, "S3_0_C7_C4_0") DO(TPIDRRO_EL0, "S3_3_C13_C0_3") \
	DO(TPIDR2_EL0, "S3_3_C13_C0_5") DO(CSSELR_EL1, "S3_2_C0_C0_0") DO(FPCR, "S3_3_C4_C4_0") \
	DO(FPSR, "S3_3_C4_C4_1") DO(MDSCR_EL1, "S2_0_C0_C2_2") DO(MDCCINT_EL1, "S2_0_C0_C2_0") \
	DO(OSDLR_EL1, "S2_0_C1_C3_4") DO(PMCR_EL0, "S3_3_C9_C12_0") DO(PMUSERENR_EL0, "S3_3_C9_C14_0") \
	DO(PMSELR_EL0, "S3_3_C9_C12_5") DO(PMCCFILTR_EL0, "S3_3_C14_C15_7") DO(PMCNTENCLR_EL0, "S3_3_C9_C12_2") \
	DO(PMINTENCLR_EL1, "S3_0_C9_C14_2") DO(PMOVSCLR_EL0, "S3_3_C9_C12_3") DO(CNTV_CTL_EL0, "S3_3_C14_C3_1") \
	DO(CNTV_CVAL_EL0, "S3_3_C14_C3_2") DO(CNTP_CTL_EL0, "S3_3_C14_C2_1") DO(CNTP_CVAL_EL0, "S3_3_C14_C2_2") \
	DO(APIAKEYLO_EL1, "S3_0_C2_C1_0") DO(APIAKEYHI_EL1, "S3_0_C2_C1_1") DO(APIBKEYLO_EL1, "S3_0_C2_C1_2") \
	DO(APIBKEYHI_EL1, "S3_0_C2_C1_3") DO(APDAKEYLO_EL1, "S3_0_C2_C2_0") DO(APDAKEYHI_EL1, "S3_0_C2_C2_1") \
	DO(APDBKEYLO_EL1, "S3_0_C2_C2_2") DO(APDBKEYHI_EL1, "S3_0_C2_C2_3") DO(APGAKEYLO_EL1, "S3_0_C2_C3_0") \
	DO(APGAKEYHI_EL1, "S3_0_C2_C3_1") DO(RGSR_EL1, "S3_0_C1_C0_5") DO(GCR_EL1, "S3_0_C1_C0_6") \
	DO(TFSR_EL1, "S3_0_C5_C6_0") DO(TFSRE0_EL1, "S3_0_C5_C6_1") DO(SCXTNUM_EL0, "S3_3_C13_C0_7") \
	DO(SCXTNUM_EL1, "S3_0_C13_C0_7") DO(ZCR_EL1, "S3_0_C1_C2_0") DO(SMCR_EL1, "S3_0_C1_C2_6") \
	DO(SMPRI_EL1, "S3_0_C1_C2_4") DO(SVCR, "S3_3_C4_C2_2") DO(FPMR, "S3_3_C4_C4_2") \
	DO(DISR_EL1, "S3_0_C12_C1_1") DO(ERRSELR_EL1, "S3_0_C5_C3_1") DO(SCTLR2_EL1, "S3_0_C1_C0_3") \
	DO(TCR2_EL1, "S3_0_C2_C0_3") DO(MAIR2_EL1, "S3_0_C10_C2_1") DO(AMAIR2_EL1, "S3_0_C10_C3_1") \
	DO(PIRE0_EL1, "S3_0_C10_C2_2") DO(PIR_EL1, "S3_0_C10_C2_3") DO(POR_EL0, "S3_3_C10_C2_4") \
	DO(POR_EL1, "S3_0_C10_C2_4") DO(GCSCR_EL1, "S3_0_C2_C5_0") DO(GCSCRE0_EL1, "S3_0_C2_C5_2") \
	DO(GCSPR_EL0, "S3_3_C2_C5_1") DO(GCSPR_EL1, "S3_0_C2_C5_1") DO(TTBR0_EL2, "S3_4_C2_C0_0") \
	DO(TTBR1_EL2, "S3_4_C2_C0_1") DO(TCR_EL2, "S3_4_C2_C0_2") DO(MAIR_EL2, "S3_4_C10_C2_0") \
	DO(AMAIR_EL2, "S3_4_C10_C3_0") DO(AFSR0_EL2, "S3_4_C5_C1_0") DO(AFSR1_EL2, "S3_4_C5_C1_1") \
	DO(TPIDR_EL2, "S3_4_C13_C0_2") DO(CONTEXTIDR_EL2, "S3_4_C13_C0_1") DO(HACR_EL2, "S3_4_C1_C1_7") \
	DO(HCRX_EL2, "S3_4_C1_C2_2") DO(HFGRTR_EL2, "S3_4_C1_C1_4") DO(HFGWTR_EL2, "S3_4_C1_C1_5") \
	DO(HFGITR_EL2, "S3_4_C1_C1_6") DO(HDFGRTR_EL2, "S3_4_C3_C1_4") DO(HDFGWTR_EL2, "S3_4_C3_C1_5") \
	DO(HAFGRTR_EL2, "S3_4_C3_C1_6") DO(HFGRTR2_EL2, "S3_4_C3_C1_2") DO(HFGWTR2_EL2, "S3_4_C3_C1_3") \
	DO(HFGITR2_EL2, "S3_4_C3_C1_7") DO(HDFGRTR2_EL2, "S3_4_C3_C1_0") DO(HDFGWTR2_EL2, "S3_4_C3_C1_1") \
	DO(ZCR_EL2, "S3_4_C1_C2_0") DO(SMCR_EL2, "S3_4_C1_C2_6") DO(SMPRIMAP_EL2, "S3_4_C1_C2_5") \
	DO(TFSR_EL2, "S3_4_C5_C6_0") DO(SCXTNUM_EL2, "S3_4_C13_C0_7") DO(VDISR_EL2, "S3_4_C12_C1_1") \
	DO(VSESR_EL2, "S3_4_C5_C2_3") DO(VNCR_EL2, "S3_4_C2_C2_0") DO(DBGVCR32_EL2, "S2_4_C0_C7_0") \
	DO(SCTLR2_EL2, "S3_4_C1_C0_3") DO(TCR2_EL2, "S3_4_C2_C0_3") DO(MAIR2_EL2, "S3_4_C10_C1_1") \
	DO(AMAIR2_EL2, "S3_4_C10_C3_1") DO(PIRE0_EL2, "S3_4_C10_C2_2") DO(PIR_EL2, "S3_4_C10_C2_3") \
	DO(POR_EL2, "S3_4_C10_C2_4") DO(GCSCR_EL2, "S3_4_C2_C5_0") DO(GCSPR_EL2, "S3_4_C2_C5_1") \
	DO(CNTHP_CTL_EL2, "S3_4_C14_C2_1") DO(CNTHP_CVAL_EL2, "S3_4_C14_C2_2") DO(CNTHV_CTL_EL2, "S3_4_C14_C3_1") \
	DO(CNTHV_CVAL_EL2, "S3_4_C14_C3_2") DO(CNTPOFF_EL2, "S3_4_C14_C0_6") DO(ICH_HCR_EL2, "S3_4_C12_C11_0") \
	DO(ICH_VMCR_EL2, "S3_4_C12_C11_7") DO(ICH_AP0R0_EL2, "S3_4_C12_C8_0") DO(ICH_AP1R0_EL2, "S3_4_C12_C9_0")

/* SCR_EL3: a guest that forges an answer would be Secure by it, and read the flash that has the proof. */
#define EACH_REG_READ_ONLY(DO) \
	DO(CNTPCT_EL0, "cntpct_el0") DO(ISR_EL1, "isr_el1") DO(SCR_EL3, "scr_el3") DO(CPTR_EL3, "cptr_el3")

#define EACH_REG_WRITE_ONLY(DO) \
	DO(ICC_EOIR0_EL1, "S3_0_C12_C8_1") DO(ICC_EOIR1_EL1, "S3_0_C12_C12_1") DO(OSLAR_EL1, "S2_0_C1_C0_4")

#define EACH_0_TO_7(DO, id, first) \
	DO(id + 0, first "0") DO(id + 1, first "1") DO(id + 2, first "2") DO(id + 3, first "3") \
	DO(id + 4, first "4") DO(id + 5, first "5") DO(id + 6, first "6") DO(id + 7, first "7")

#define EACH_CRM(DO, id, op2) \
	DO(id + 0, "S2_0_C0_C0_" op2) DO(id + 1, "S2_0_C0_C1_" op2) DO(id + 2, "S2_0_C0_C2_" op2) \
	DO(id + 3, "S2_0_C0_C3_" op2) DO(id + 4, "S2_0_C0_C4_" op2) DO(id + 5, "S2_0_C0_C5_" op2) \
	DO(id + 6, "S2_0_C0_C6_" op2) DO(id + 7, "S2_0_C0_C7_" op2) DO(id + 8, "S2_0_C0_C8_" op2) \
	DO(id + 9, "S2_0_C0_C9_" op2) DO(id + 10, "S2_0_C0_C10_" op2) DO(id + 11, "S2_0_C0_C11_" op2) \
	DO(id + 12, "S2_0_C0_C12_" op2) DO(id + 13, "S2_0_C0_C13_" op2) DO(id + 14, "S2_0_C0_C14_" op2) \
	DO(id + 15, "S2_0_C0_C15_" op2)

#define EACH_OF_A_FAMILY(DO) \
	EACH_CRM(DO, DBGBVR0_EL1, "4") EACH_CRM(DO, DBGBCR0_EL1, "5") \
	EACH_CRM(DO, DBGWVR0_EL1, "6") EACH_CRM(DO, DBGWCR0_EL1, "7") \
	EACH_0_TO_7(DO, PMEVTYPER0_EL0, "S3_3_C14_C12_") EACH_0_TO_7(DO, PMEVTYPER0_EL0 + 8, "S3_3_C14_C13_") \
	EACH_0_TO_7(DO, PMEVTYPER0_EL0 + 16, "S3_3_C14_C14_") \
	DO(PMEVTYPER0_EL0 + 24, "S3_3_C14_C15_0") DO(PMEVTYPER0_EL0 + 25, "S3_3_C14_C15_1") \
	DO(PMEVTYPER0_EL0 + 26, "S3_3_C14_C15_2") DO(PMEVTYPER0_EL0 + 27, "S3_3_C14_C15_3") \
	DO(PMEVTYPER0_EL0 + 28, "S3_3_C14_C15_4") DO(PMEVTYPER0_EL0 + 29, "S3_3_C14_C15_5") \
	DO(PMEVTYPER0_EL0 + 30, "S3_3_C14_C15_6") \
	EACH_0_TO_7(DO, ICH_LR0_EL2, "S3_4_C12_C12_") EACH_0_TO_7(DO, ICH_LR0_EL2 + 8, "S3_4_C12_C13_")

#define READ(id, name) case REG_##id: __asm__ volatile("mov %0, #0; mrs %0, " name : "=&r"(v)); break;
#define WRITE(id, name) case REG_##id: write_reg(name, value); break;

int read_sysreg(struct pcpu *me, u64 number, u64 *value)
{
	int known = 1;
	u64 v = 0;

	me->fixup = FIXUP_SKIP;
	switch (number) {
	EACH_REG(READ)
	EACH_REG_EL2(READ)
	EACH_REG_MORE(READ)
	EACH_REG_READ_ONLY(READ)
	EACH_OF_A_FAMILY(READ)
	default:
		known = 0;
	}
	me->fixup = 0;
	*value = v;
	return known;
}

int write_sysreg(struct pcpu *me, u64 number, u64 value)
{
	int known = 1;

	me->fixup = FIXUP_SKIP;
	switch (number) {
	EACH_REG(WRITE)
	EACH_REG_EL2(WRITE)
	EACH_REG_MORE(WRITE)
	EACH_REG_WRITE_ONLY(WRITE)
	EACH_OF_A_FAMILY(WRITE)
	default:
		known = 0;
	}
	isb();
	me->fixup = 0;
	return known;
}
