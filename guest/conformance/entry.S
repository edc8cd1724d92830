/* Handlers with all that they find, code below the client's EL, and a way out of a scenario. */
#include "entry.h"
#include "limits.h"
#include "sdei.h"

	.arch	armv8-a+fp+simd

	.macro	save_entry	/* all of struct entry on the stack; x0 points to it */
	sub	sp, sp, #E_ROOM
	stp	x0, x1, [sp, #X(0)]
	stp	x2, x3, [sp, #X(2)]
	stp	x4, x5, [sp, #X(4)]
	stp	x6, x7, [sp, #X(6)]
	stp	x8, x9, [sp, #X(8)]
	stp	x10, x11, [sp, #X(10)]
	stp	x12, x13, [sp, #X(12)]
	stp	x14, x15, [sp, #X(14)]
	stp	x16, x17, [sp, #X(16)]
	stp	x18, x19, [sp, #X(18)]
	stp	x20, x21, [sp, #X(20)]
	stp	x22, x23, [sp, #X(22)]
	stp	x24, x25, [sp, #X(24)]
	stp	x26, x27, [sp, #X(26)]
	stp	x28, x29, [sp, #X(28)]
	mrs	x1, nzcv
	add	x2, sp, #E_ROOM
	stp	x30, x2, [sp, #X(30)]
	str	x1, [sp, #X_NZCV]
	read_here x1, elr
	read_here x2, spsr
	stp	x1, x2, [sp, #E_ELR]
	mrs	x1, sp_el0
	mrs	x2, daif
	stp	x1, x2, [sp, #E_SP_EL0]
	mrs	x1, SPSel
	mrs	x2, CurrentEL
	stp	x1, x2, [sp, #E_SPSEL]
	mov	x0, sp
	.endm

	.text
	.global	conf_entry
conf_entry:
	save_entry
	bl	conf_handler		/* struct end { function, argument } */
	ldr	x18, [sp, #X(18)]
	ldr	x30, [sp, #X(30)]
	add	sp, sp, #E_ROOM
	adrp	x9, conduit_hvc
	ldr	x9, [x9, :lo12:conduit_hvc]
	cbnz	x9, 1f
	smc	#0
	b	conf_refused		/* both only come back if the firmware refused */
1:	hvc	#0
	b	conf_refused

	/* Where COMPLETE_AND_RESUME goes: notes what it finds and returns to the interrupted context. */
	.global	resume_entry
resume_entry:
	save_entry
	bl	conf_resumed
	ldp	x2, x3, [sp, #X(2)]
	ldp	x4, x5, [sp, #X(4)]
	ldp	x6, x7, [sp, #X(6)]
	ldp	x8, x9, [sp, #X(8)]
	ldp	x10, x11, [sp, #X(10)]
	ldp	x12, x13, [sp, #X(12)]
	ldp	x14, x15, [sp, #X(14)]
	ldp	x16, x17, [sp, #X(16)]
	ldr	x18, [sp, #X(18)]
	ldr	x30, [sp, #X(30)]
	ldp	x0, x1, [sp, #X(0)]
	add	sp, sp, #E_ROOM
	eret

	/* Where COMPLETE_AND_RESUME goes when nothing of the interrupted context counts any more. */
	.global	recover_entry
recover_entry:
	b	recover

	.global	enter_worker
enter_worker:	/* x0: CPU index */
	mov	x19, x0
	bl	cpu_setup
	mov	x0, x19
	b	worker_again

	.global	scribble
scribble:
	ldr	x0, =0xbadc0ffee0ddf00d
	.irp	n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
	add	x\n, x0, #\n
	.endr
	msr	nzcv, x0
	ret

	.global	fp_fill, fp_store
fp_fill:
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	add	x0, x0, #1
	dup	v\n\().2d, x0
	.endr
	.irp	n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	add	x0, x0, #1
	dup	v\n\().2d, x0
	.endr
	ret
/* To x0, a multiple of 16: with the MMU off memory is Device memory, where each access is aligned or aborts. QEMU knows that
 * since 9.0.
 */
fp_store:
	.irp	n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
	str	q\n, [x0, #(16 * \n)]
	.endr
	.irp	n, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
	str	q\n, [x0, #(16 * \n)]
	.endr
	ret

/*
 * u64 below(u64 pstate, const void *code, const u64 *x, struct entry *after): the stack pointer of this EL stays where it
 * is while the code below runs, so whatever brings us back finds all on the stack.
 */
#define BELOW 144
	.global	below
below:
	stp	x19, x20, [sp, #-BELOW]!
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	read_here x9, vbar
	stp	x3, x9, [sp, #96]
	adr	x9, below_vectors
	write_here vbar, x9, x10
	write_here spsr, x0, x10
	write_here elr, x1, x10
	isb
	ldp	x0, x1, [x2]
	ldr	x2, [x2, #16]
	eret

back_from_below:
	stp	x0, x1, [sp, #112]
	ldr	x0, [sp, #96]
	ldr	x1, [sp, #112]
	str	x1, [x0, #X(0)]
	ldr	x1, [sp, #120]
	stp	x1, x2, [x0, #X(1)]
	stp	x3, x4, [x0, #X(3)]
	stp	x5, x6, [x0, #X(5)]
	stp	x7, x8, [x0, #X(7)]
	stp	x9, x10, [x0, #X(9)]
	stp	x11, x12, [x0, #X(11)]
	stp	x13, x14, [x0, #X(13)]
	stp	x15, x16, [x0, #X(15)]
	str	x17, [x0, #X(17)]
	read_here x1, elr
	read_here x2, spsr
	stp	x1, x2, [x0, #E_ELR]
	ldr	x9, [sp, #104]
	write_here vbar, x9, x10
	isb
	read_here x0, esr
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	x19, x20, [sp], #BELOW
	ret

	.balign	2048
below_vectors:
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7
	.balign	128
	b	vectors + 128 * \n
	.endr
	.balign	128
	b	back_from_below		/* synchronous, AArch64 */
	.irp	n, 9, 10, 11
	.balign	128
	b	vectors + 128 * \n
	.endr
	.balign	128
	b	back_from_below		/* synchronous, AArch32 */
	.irp	n, 13, 14, 15
	.balign	128
	b	vectors + 128 * \n
	.endr

	/* x0: flag that ends it, x1: rounds at most, x2: word that says that it runs */
	.global	el0_spin, el0_spin_end
el0_spin:
	ldr	x3, [x0]
	cbnz	x3, 1f
	str	x1, [x2]
	subs	x1, x1, #1
	b.ne	el0_spin
1:	svc	#0
el0_spin_end:

	.balign	4
	.global	el0_spin_aarch32
el0_spin_aarch32:	/* the same in A32 */
	.inst	0xe5903000		/* ldr r3, [r0] */
	.inst	0xe3530000		/* cmp r3, #0 */
	.inst	0x1a000002		/* bne to svc */
	.inst	0xe2511001		/* subs r1, r1, #1 */
	.inst	0xe5821000		/* str r1, [r2] */
	.inst	0x1afffff9		/* bne to the start */
	.inst	0xef000000		/* svc #0 */

	.global	el0_call_smc, el0_call_hvc, el1_call
el0_call_smc:
	smc	#0
	svc	#0
el0_call_hvc:
	hvc	#0
	svc	#0
el1_call:
	smc	#0
	hvc	#0			/* back to EL2 */
