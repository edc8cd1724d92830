/* Discovery and the calling convention (DEN0054 5.1.1, 5.1.17; SMCCC). */
#include "conformance.h"

#define FIRST SDEI_VERSION
#define LAST SDEI_SHARED_RESET
#define RANGE_END 0xc400003f

void discovery_version(void)
{
	IS("VERSION: bit 63", 0, version_word >> 63);
	IS("VERSION: major", 1, version_word >> 48 & 0x7fff);
	CALL(version_word, SDEI_VERSION);
	CALL(version_word, SDEI_VERSION);
}

void discovery_version_1_0(void)
{
	if (version_word >> 32 != 0x10000 || (uint32_t)version_word)
		skip("the firmware is not configured as 1.0 of vendor 0 (--sdei-version 1.0 --sdei-vendor 0)");
	CALL(0x0001000000000000, SDEI_VERSION);
}

/* One call with a pattern in all registers; x0 is the only one that may change. */
static u64 preserving(u64 function, u64 x1, u64 x2)
{
	struct regs r;
	u64 pattern = fill(&r, function, x1, x2), sp;

	smccc_full(&r);
	log_call(function, x1, x2, r.x[3], r.x[0]);
	sp = r.sp_before;
	IS("x1 after the call", x1, r.x[1]);
	IS("x2 after the call", x2, r.x[2]);
	for (unsigned i = 3; i < 31; i++)
		IS("a register of x3-x30 after the call", pattern + i, r.x[i]);
	IS("SP after the call", sp, r.sp);
	IS("NZCV after the call", 0x60000000, r.nzcv & NZCV_MASK);
	return r.x[0];
}

void discovery_unassigned(void)
{
	for (u64 id = LAST + 1; id <= RANGE_END; id++)
		IS("an unassigned id of the range", NOT_SUPPORTED, preserving(id, 0, 0));
}

void discovery_twins(void)
{
	for (u64 id = FIRST; id <= LAST; id++)
		CALL(NOT_SUPPORTED, id & ~0x40000000ul);
}

void discovery_garbage(void)
{
	IS("VERSION with garbage above W0", version_word, preserving(0xdeadbeef00000000 | SDEI_VERSION, 0x1234, ~0ul));
	IS("STATUS with garbage above W0", 0, preserving(0xffffffff00000000 | SDEI_EVENT_STATUS, 0, 0));
	IS("STATUS of event 0, garbage above W1", 0, preserving(SDEI_EVENT_STATUS, 0xdeadbeef00000000, 0));
}

void discovery_other_el(void)
{
	const u64 x[3] = { SDEI_VERSION, 0, 0 };
	struct entry after;
	u64 esr;

	ready(0, p0);
	if (at_el2()) {
		u64 hcr = READ(hcr_el2);

		esr = below(0x3c5, el1_call, x, &after);
		IS("the call from EL1 comes back by HVC", 0x16, esr >> 26);
		IS("VERSION from EL1 below the client", NOT_SUPPORTED, after.x[0]);
		WRITE(hcr_el2, hcr);
	} else {
		esr = below(0x3c0, el0_call_smc, x, &after);
		IS("SMC at EL0 is undefined", 0, esr >> 26);
		esr = below(0x3c0, el0_call_hvc, x, &after);
		IS("HVC at EL0 is undefined", 0, esr >> 26);
	}
	CALL(STATE_3, SDEI_EVENT_STATUS, 0);
}

void discovery_absent(void)
{
	if (version_word != (u64)NOT_SUPPORTED)
		skip("this firmware has SDEI; it is for one that has it switched off (--no-sdei)");
	for (u64 id = FIRST; id <= RANGE_END; id++)
		CALL(NOT_SUPPORTED, id);
}

static void only_x0(u64 expected, u64 function, u64 x1, u64 x2)
{
	static fp_words before, after;
	u64 got, sp0 = 0x5a5a0000 + (function & 0xff), elr = 0x1230 + (function & 0xff), spsr = 0x600003c5;

	WRITE(sp_el0, sp0);
	if (at_el2()) {
		WRITE(elr_el2, elr);
		WRITE(spsr_el2, spsr);
	} else {
		WRITE(elr_el1, elr);
		WRITE(spsr_el1, spsr);
	}
	fp_fill(function);
	fp_store(before);
	got = preserving(function, x1, x2);
	fp_store(after);
	IS("x0 after the call", expected, got);
	for (unsigned i = 0; i < 64; i++)
		IS("q0-q31 after the call", before[i], after[i]);
	IS("SP_EL0 after the call", sp0, READ(sp_el0));
	IS("ELR after the call", elr, at_el2() ? READ(elr_el2) : READ(elr_el1));
	IS("SPSR after the call", spsr, at_el2() ? READ(spsr_el2) : READ(spsr_el1));
}

void discovery_only_x0(void)
{
	u64 cpacr = at_el2() ? 0 : READ(cpacr_el1);

	if (!at_el2())
		WRITE(cpacr_el1, cpacr | 3 << 20);
	only_x0(version_word, SDEI_VERSION, 0, 0);
	only_x0(INVALID_PARAMETERS, SDEI_EVENT_REGISTER, 0, 0); /* flags and more are the pattern */
	reg(0, p0);
	only_x0(SUCCESS, SDEI_EVENT_ENABLE, 0, 0);
	only_x0(STATE_3, SDEI_EVENT_STATUS, 0, 0);
	only_x0(SUCCESS, SDEI_EVENT_DISABLE, 0, 0);
	only_x0(0, SDEI_EVENT_GET_INFO, 0, INFO_TYPE);
	only_x0(DENIED, SDEI_EVENT_CONTEXT, 0, 0);
	only_x0(DENIED, SDEI_EVENT_COMPLETE, 0, 0);
	only_x0(DENIED, SDEI_EVENT_COMPLETE_AND_RESUME, 0, 0);
	only_x0(INVALID_PARAMETERS, SDEI_EVENT_ROUTING_SET, 0, 0);
	only_x0(1, SDEI_PE_MASK, 0, 0);
	only_x0(SUCCESS, SDEI_PE_UNMASK, 0, 0);
	only_x0(INVALID_PARAMETERS, SDEI_EVENT_SIGNAL, 0x10000, 0);
	only_x0(INVALID_PARAMETERS, SDEI_FEATURES, 0x10, 0);
	only_x0(SUCCESS, SDEI_EVENT_UNREGISTER, 0, 0);
	only_x0(SUCCESS, SDEI_PRIVATE_RESET, 0, 0);
	only_x0(SUCCESS, SDEI_SHARED_RESET, 0, 0);
	if (private_slots + shared_slots) {
		only_x0(INVALID_PARAMETERS, SDEI_INTERRUPT_BIND, 0, 0);
		only_x0(INVALID_PARAMETERS, SDEI_INTERRUPT_RELEASE, 0, 0);
	}
}

void discovery_slots(void)
{
	u64 slots = sdei(SDEI_FEATURES, FEATURE_BIND_SLOTS, 0, 0, 0, 0);

	IS("FEATURES(0): bits 63-32", 0, slots >> 32);
	if (!slots)
		skip("FEATURES reports no slots for bound events");
	if ((slots & 0xffff) < 2)
		IS("FEATURES(0): private slots, at least", 2, slots & 0xffff);
	if (slots >> 16 < 2)
		IS("FEATURES(0): shared slots, at least", 2, slots >> 16);
}

void discovery_bad_feature(void)
{
	CALL(INVALID_PARAMETERS, SDEI_FEATURES, 0x10);
	CALL(INVALID_PARAMETERS, SDEI_FEATURES, 0xffffffff);
	CALL(INVALID_PARAMETERS, SDEI_FEATURES, 2);
}

void discovery_relative(void)
{
	if ((version_word >> 32 & 0xffff) == 0)
		CALL(INVALID_PARAMETERS, SDEI_FEATURES, FEATURE_RELATIVE_MODE);
	else
		CALL(relative_mode, SDEI_FEATURES, FEATURE_RELATIVE_MODE);
	CALL(relative_mode ? SUCCESS : INVALID_PARAMETERS, SDEI_EVENT_REGISTER, 0, 0x400, 0, 2);
}
