/* SDEI handler: u64 fuzz_handler(event, argument, pc) says how it ends: 0 with COMPLETE, else COMPLETE_AND_RESUME to it. */
#include "sdei.h"

	.text
	.global	fuzz_entry
fuzz_entry:
	sub	sp, sp, #16
	stp	x18, x30, [sp]
	bl	fuzz_handler
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

/* Where COMPLETE_AND_RESUME goes: as an exception's vector, which goes straight back. */
	.global	fuzz_resume
fuzz_resume:
	eret
