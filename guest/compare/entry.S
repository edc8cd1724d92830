/* SDEI handlers, where COMPLETE_AND_RESUME goes, and the way out of both. */
#include "sdei.h"

	.text
	.global	compare_entry
compare_entry:	/* x0..x3: event, argument, interrupted PC and PSTATE */
	stp	x18, x30, [sp, #-16]!
	mrs	x4, daif
	mrs	x5, SPSel
	orr	x4, x4, x5
	mrs	x5, CurrentEL
	orr	x4, x4, x5
	bl	compare_handler		/* struct end { function, argument } */
	ldp	x18, x30, [sp], #16
	adrp	x9, conduit_hvc
	ldr	x9, [x9, :lo12:conduit_hvc]
	cbnz	x9, 1f
	smc	#0
	b	compare_refused		/* both only come back if the firmware refused */
1:	hvc	#0
	b	compare_refused

	.global	resume_entry
resume_entry:	/* as an exception's vector */
	sub	sp, sp, #160
	stp	x0, x1, [sp]
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x30, [sp, #144]
	mrs	x0, daif
	mrs	x1, SPSel
	orr	x0, x0, x1
	mrs	x1, CurrentEL
	orr	x0, x0, x1
	bl	compare_resumed
	ldp	x2, x3, [sp, #16]
	ldp	x4, x5, [sp, #32]
	ldp	x6, x7, [sp, #48]
	ldp	x8, x9, [sp, #64]
	ldp	x10, x11, [sp, #80]
	ldp	x12, x13, [sp, #96]
	ldp	x14, x15, [sp, #112]
	ldp	x16, x17, [sp, #128]
	ldp	x18, x30, [sp, #144]
	ldp	x0, x1, [sp]
	add	sp, sp, #160
	eret

	.global	recover_entry
recover_entry:
	b	recover
