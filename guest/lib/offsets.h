/* Offsets in structures of C that assembly knows, and macros of the assembler. guest.c and its kin compare the offsets. */
#ifndef OFFSETS_H
#define OFFSETS_H

/* struct regs (smccc.h), and the beginning of conformance's struct entry */
#define X(n) (8 * (n))
#define X_SP X(31)
#define X_NZCV X(32)
#define X_SP_BEFORE X(33)
#define REGS_ROOM 288 /* struct regs, rounded up to 16 */

/* context_save's buffer: x19 to x30, SP */
#define CONTEXT_SP 96
#define CONTEXT_WORDS 13

#ifdef __ASSEMBLER__
	.macro	read_here dest, name	/* this EL's own copy of a register; uses the flags */
	mrs	\dest, CurrentEL
	cmp	\dest, #(2 << 2)
	b.eq	8f
	mrs	\dest, \name\()_el1
	b	9f
8:	mrs	\dest, \name\()_el2
9:
	.endm

	.macro	write_here name, source, scratch	/* uses the flags */
	mrs	\scratch, CurrentEL
	cmp	\scratch, #(2 << 2)
	b.eq	8f
	msr	\name\()_el1, \source
	b	9f
8:	msr	\name\()_el2, \source
9:
	.endm
#endif

#endif
