/*
 * Code that is expected to trap, run under vectors of its own; one exception brings it back.
 *
 * struct trap trapped(void (*code)(void))	at this EL
 * struct trap smc_from_el0(u64 x0)		at EL1; x0 of the result is what the call left there
 * struct trap smc_from_el1(u64 x0)		at EL2
 */
#include "offsets.h"

	/* The stack keeps all that must survive; its address is in TPIDR_EL0, which these guests use for nothing else. */
	.macro	enter
	stp	x19, x20, [sp, #-128]!
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	str	x8, [sp, #96]
	read_here x9, vbar
	str	x9, [sp, #104]
	mov	x9, sp
	msr	tpidr_el0, x9
	adr	x9, trap_vectors
	write_here vbar, x9, x10
	isb
	.endm

	.text
	.global	trapped
trapped:	/* x8: where the struct goes */
	enter
	blr	x0
	mov	x9, #-1			/* it did not trap: ESR of all ones */
	write_here esr, x9, x10
	b	leave

	.global	smc_from_el0
smc_from_el0:
	enter
	mov	x9, #0x3c0		/* EL0t, masked */
	b	1f
	.global	smc_from_el1
smc_from_el1:
	enter
	mov	x9, #0x3c5		/* EL1h, masked */
1:	write_here spsr, x9, x10
	adr	x9, 2f
	write_here elr, x9, x10
	isb
	eret
2:	smc	#0
	hvc	#0			/* back to EL2, if that was not undefined already */
	b	.

/* struct trap { esr, elr, x0 } through x8 */
leave:
	mrs	x9, tpidr_el0
	mov	sp, x9
	ldr	x8, [sp, #96]
	str	x0, [x8, #16]
	read_here x9, esr
	str	x9, [x8]
	read_here x9, elr
	str	x9, [x8, #8]
	ldr	x9, [sp, #104]
	write_here vbar, x9, x10
	isb
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	x19, x20, [sp], #128
	ret

	.balign	2048
trap_vectors:
	.rept	4			/* SP0: ours is SPx */
	.balign	128
	b	.
	.endr
	.balign	128
	b	leave			/* synchronous, from here */
	.rept	3
	.balign	128
	b	.
	.endr
	.balign	128
	b	leave			/* synchronous, from below */
	.rept	7
	.balign	128
	b	.
	.endr

	.global	read_iar0, write_sgi0r
read_iar0:
	mrs	x0, S3_0_C12_C8_0
	ret
write_sgi0r:
	msr	S3_0_C12_C11_7, x0
	ret

	.global	smc_1, smc_0x1234, smc_0xffff
smc_1:
	smc	#1
	ret
smc_0x1234:
	smc	#0x1234
	ret
smc_0xffff:
	smc	#0xffff
	ret
