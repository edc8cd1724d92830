/* The conduit, and the entry points of SDEI handlers. */
#include "offsets.h"
#include "sdei.h"

	.text
	.global	smccc
smccc:
	adrp	x9, conduit_hvc
	ldr	x9, [x9, :lo12:conduit_hvc]
	cbnz	x9, 1f
	smc	#0
	ret
1:	hvc	#0
	ret

/* x1..x30 to the struct that x0 points to */
	.macro store_rest
	str	x1, [x0, #X(1)]
	stp	x2, x3, [x0, #X(2)]
	stp	x4, x5, [x0, #X(4)]
	stp	x6, x7, [x0, #X(6)]
	stp	x8, x9, [x0, #X(8)]
	stp	x10, x11, [x0, #X(10)]
	stp	x12, x13, [x0, #X(12)]
	stp	x14, x15, [x0, #X(14)]
	stp	x16, x17, [x0, #X(16)]
	stp	x18, x19, [x0, #X(18)]
	stp	x20, x21, [x0, #X(20)]
	stp	x22, x23, [x0, #X(22)]
	stp	x24, x25, [x0, #X(24)]
	stp	x26, x27, [x0, #X(26)]
	stp	x28, x29, [x0, #X(28)]
	str	x30, [x0, #X(30)]
	.endm

	.macro load_all
	ldp	x2, x3, [x0, #X(2)]
	ldp	x4, x5, [x0, #X(4)]
	ldp	x6, x7, [x0, #X(6)]
	ldp	x8, x9, [x0, #X(8)]
	ldp	x10, x11, [x0, #X(10)]
	ldp	x12, x13, [x0, #X(12)]
	ldp	x14, x15, [x0, #X(14)]
	ldp	x16, x17, [x0, #X(16)]
	ldp	x18, x19, [x0, #X(18)]
	ldp	x20, x21, [x0, #X(20)]
	ldp	x22, x23, [x0, #X(22)]
	ldp	x24, x25, [x0, #X(24)]
	ldp	x26, x27, [x0, #X(26)]
	ldp	x28, x29, [x0, #X(28)]
	ldr	x30, [x0, #X(30)]
	ldp	x0, x1, [x0]
	.endm

	.macro save_callee	/* and the struct's address on top: all registers are about to be replaced */
	stp	x19, x20, [sp, #-112]!
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	str	x0, [sp, #96]
	.endm

	.macro restore_callee
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	x19, x20, [sp], #112
	.endm

/* Registers and flags as they are now to the struct whose address save_callee kept; nothing here changes the flags. */
	.macro store_result
	str	x0, [sp, #104]
	ldr	x0, [sp, #96]
	store_rest
	ldr	x1, [sp, #104]
	mrs	x2, nzcv
	mov	x3, sp
	str	x1, [x0, #X(0)]
	str	x2, [x0, #X_NZCV]
	str	x3, [x0, #X_SP]
	.endm

	.global	smccc_full
smccc_full:
	save_callee
	mov	x1, sp
	str	x1, [x0, #X_SP_BEFORE]
	adrp	x1, conduit_hvc
	ldr	x1, [x1, :lo12:conduit_hvc]
	ldr	x2, [x0, #X_NZCV]
	cbnz	x1, 1f
	msr	nzcv, x2
	load_all
	smc	#0
return_smc:
	b	2f
1:	msr	nzcv, x2
	load_all
	hvc	#0
return_hvc:
2:	store_result
	restore_callee
	ret

	.global	smccc_full_return
smccc_full_return:
	adr	x0, return_smc
	adr	x1, return_hvc
	adrp	x2, conduit_hvc
	ldr	x2, [x2, :lo12:conduit_hvc]
	cmp	x2, #0
	csel	x0, x0, x1, eq
	ret

/* A loop to be interrupted in, with known registers. */
	.global	spin_full
spin_full:
	save_callee
	load_all
	.global	spin_begin
spin_begin:
	ldr	x29, [x30]
	cbnz	x29, 1f
	mrs	x28, cntvct_el0
	str	x28, [x30, #8]
	cmp	x28, x27
	b.lo	spin_begin
1:	nop
	.global	spin_end
spin_end:
	store_result
	restore_callee
	ret

/*
 * Handler entry: all registers as the firmware left them go into a struct regs for u64 sdei_handler(struct regs *),
 * whose result is the status for EVENT_COMPLETE. The interrupted stack is good enough: these guests never break theirs.
 */
	.global	sdei_entry
sdei_entry:
	sub	sp, sp, #REGS_ROOM
	str	x0, [sp, #X(0)]
	mov	x0, sp
	store_rest
	mrs	x1, nzcv
	add	x2, sp, #REGS_ROOM
	str	x1, [x0, #X_NZCV]
	str	x2, [x0, #X_SP]
	bl	sdei_handler
	mov	x1, x0
	ldr	x18, [sp, #X(18)]
	ldr	x30, [sp, #X(30)]
	add	sp, sp, #REGS_ROOM
	b	complete

/* The shortest handler: x1 (the registered argument) points to a counter. */
	.global	sdei_count_entry
sdei_count_entry:
	ldr	x4, [x1]
	add	x4, x4, #1
	str	x4, [x1]
	mov	x1, #0

complete:	/* x1: status */
	mov	x0, #(SDEI_EVENT_COMPLETE & 0xffff)
	movk	x0, #(SDEI_EVENT_COMPLETE >> 16), lsl #16
	adrp	x9, conduit_hvc
	ldr	x9, [x9, :lo12:conduit_hvc]
	cbnz	x9, 1f
	smc	#0
	b	complete_refused	/* both only come back if the firmware refused */
1:	hvc	#0
	b	complete_refused
