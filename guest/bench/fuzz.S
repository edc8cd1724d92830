/* SDEI handlers: u64 NAME_handler(event, argument, pc) says how NAME_entry ends: 0 with COMPLETE, else COMPLETE_AND_RESUME to it. */
#include "sdei.h"

	.macro	ending_entry name
	.global	\name\()_entry
\name\()_entry:
	sub	sp, sp, #16
	stp	x18, x30, [sp]
	bl	\name\()_handler
	mov	x1, x0
	ldp	x18, x30, [sp], #16
	mov	x0, #(SDEI_EVENT_COMPLETE & 0xffff)
	movk	x0, #(SDEI_EVENT_COMPLETE >> 16), lsl #16
	cmp	x1, #0
	cinc	x0, x0, ne		/* COMPLETE_AND_RESUME is the next number */
	adrp	x9, conduit_hvc
	ldr	x9, [x9, :lo12:conduit_hvc]
	cbnz	x9, 1f
	smc	#0
	b	complete_refused
1:	hvc	#0
	b	complete_refused
	.endm

	.text
	ending_entry fuzz
	ending_entry journey

/* Where COMPLETE_AND_RESUME goes: as an exception's vector, which goes straight back. */
	.global	fuzz_resume
fuzz_resume:
	eret
