/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The EL3 monitor: carries register frames between a vCPU and the host. It knows nothing of SDEI or PSCI.
 *
 * Hot path (an SMC): where its answer is ready, the vector gives it. Else the vector saves the guest's registers straight
 * into the frame, posts the sequence number, waits for the answer, loads the context and returns. It runs no C. Everything
 * rare is in monitor.c.
 *
 * Register use between entry and ERET: x30 = frame, sp = per-CPU block.
 */
#include "monitor.h"

	.section .text.start, "ax"
	.global _start
_start:
	b	reset
	.balign	8
	/* Offset 8: patched per guest. */
	.quad	IMAGE_MAGIC
	.global config_window, config_nr_cpus, config_redist2, config_proof
config_window:
	.quad	0
config_nr_cpus:
	.quad	0
config_redist2:
	.quad	0x4000000000
config_proof:
	.quad	0
	.quad	W_VERSION			/* not patched: it says what this code is */

reset:
	msr	daifset, #0xf
	mrs	x0, mpidr_el1
	and	x1, x0, #0xff
	ubfx	x2, x0, #8, #8
	add	x19, x1, x2, lsl #4		/* index: QEMU puts 16 CPUs into an Aff1 cluster */
	adr	x3, config_nr_cpus
	ldr	x3, [x3]
	cmp	x19, x3
	b.hs	halt
	adr	x4, config_window
	ldr	x4, [x4]
	add	x4, x4, #W_MONITOR_OFFSET
	add	x5, x19, #1
	add	x4, x4, x5, lsl #W_MONITOR_SHIFT
	sub	x4, x4, #PCPU_BLOCK
	mov	sp, x4
	msr	tpidr_el3, x4
	ldr	x5, =0x30c51830			/* RES1 bits, I; MMU and D-cache off */
	msr	sctlr_el3, x5
	adr	x5, vectors
	msr	vbar_el3, x5
	isb

	adr	x5, config_window
	ldr	x5, [x5]
	add	x6, x5, #W_FRAME_OFFSET
	add	x6, x6, x19, lsl #W_FRAME_SHIFT
	str	x6, [sp, #P_FRAME]
	add	x6, x5, #W_SEQ_OFFSET
	add	x6, x6, x19, lsl #3
	str	x6, [sp, #P_SEQ_ADDR]
	add	x6, x5, #H_POLL
	str	x6, [sp, #P_POLL_ADDR]
	ldr	x6, =W_READY_OFFSET
	add	x6, x5, x6
	add	x6, x6, x19, lsl #W_READY_SHIFT
	str	x6, [sp, #P_READY]
	str	x19, [sp, #P_INDEX]
	str	xzr, [sp, #P_FIXUP]
	str	xzr, [sp, #P_SELF]
	str	xzr, [sp, #P_INTID]
	mov	x0, sp
	bl	monitor_init
	ldr	x30, [sp, #P_FRAME]
	str	xzr, [sp, #P_X30]
	b	post_own

halt:	/* A CPU that the image was not patched for. */
	wfi
	b	halt

/* Save the guest, but for its x30, into its frame. Leaves x30 = frame, x0 = ESR_EL3; x1-x17 free. */
	.macro	save_guest
	ldr	x30, [sp, #P_FRAME]
	stp	x0, x1, [x30, #F_X0]
	str	x0, [x30, #F_FUNCTION]
	stp	x2, x3, [x30, #F_X0 + 16]
	stp	x4, x5, [x30, #F_X0 + 32]
	stp	x6, x7, [x30, #F_X0 + 48]
	stp	x8, x9, [x30, #F_X0 + 64]
	stp	x10, x11, [x30, #F_X0 + 80]
	stp	x12, x13, [x30, #F_X0 + 96]
	stp	x14, x15, [x30, #F_X0 + 112]
	stp	x16, x17, [x30, #F_X0 + 128]
	ldr	x2, [sp, #P_POLL_ADDR]
	str	xzr, [x30, #F_COUNTER]
	ldr	x2, [x2, #H_SAVE - H_POLL]
	adr	x3, 8f
	cbnz	x2, save_more
8:	mrs	x0, elr_el3
	mrs	x1, spsr_el3
	stp	x0, x1, [x30, #F_PC]
	mrs	x0, esr_el3
	.endm

	.balign	2048
vectors:
	.macro	vector kind, index
	.balign	128
	.if \kind == 0		/* current EL: our own trouble, or a micro-operation that aborted */
	mov	x18, #\index
	b	own_exception
	.else
	str	x30, [sp, #P_X30]
	.if \kind == 1
	ldr	x30, [sp, #P_READY]
	stp	x3, x4, [sp, #P_SPARE]
	ldr	x3, [x30, #READY_VALID]
	lsr	x4, x3, x0			/* by x0 modulo 64 */
	tbnz	x4, #0, ready
not_ready:
	ldp	x3, x4, [sp, #P_SPARE]
	.endif
	save_guest
	mov	x2, #\index
	.if \kind == 1
	b	lower_sync
	.else
	.if \kind == 2
	b	lower_fiq
	.else
	b	lower_other
	.endif
	.endif
	.endif
	.endm

	vector	0, 0
	vector	0, 1
	vector	0, 2
	vector	0, 3
	.balign	128		/* current EL with SPx, synchronous: the only one of these four that can be expected */
	stp	x29, x30, [sp, #-16]!
	mrs	x30, tpidr_el3
	ldr	x29, [x30, #P_FIXUP]
	cbz	x29, 1f
	cmp	x29, #FIXUP_SKIP
	b.ne	2f
	mrs	x29, esr_el3
	lsr	x29, x29, #26			/* EC 0: undefined */
	cbnz	x29, 1f
	mrs	x29, elr_el3
	add	x29, x29, #4
2:	msr	elr_el3, x29
	ldp	x29, x30, [sp], #16
	eret
1:	ldp	x29, x30, [sp], #16
	mov	x18, #4
	b	own_exception
	vector	0, 5
	vector	0, 6
	vector	0, 7
	vector	1, 8
	vector	3, 9
	vector	2, 10
	vector	3, 11
	vector	3, 12		/* AArch32 EL0 below an AArch64 EL1 cannot reach EL3 by SMC */
	vector	3, 13
	vector	2, 14
	vector	3, 15
	.balign	128

/*
 * There may be an answer in this CPU's table. A guest can write there: it then gives itself a wrong x0, and nothing else.
 * x30 = table; x3 to x6 free, x3 and x4 saved.
 */
ready:
	stp	x5, x6, [sp, #P_SPARE + 16]
	mrs	x3, esr_el3
	ldr	x4, [x30, #READY_TRAP]
	cmp	x3, x4
	b.ne	no_answer
	mrs	x3, spsr_el3
	ldr	x4, [x30, #READY_CALLER]
	and	x3, x3, #0x1c
	cmp	x3, x4, lsr #32
	b.ne	no_answer
	lsr	x5, x0, #32			/* KEY has bits of its own there */
	cbnz	x5, no_answer
	cbz	x0, no_answer			/* KEY of an entry that is none */
	ldr	x6, =W_READY_HASH

	mul	x5, x0, x6			/* whatever its arguments are */
	lsr	x5, x5, #(64 - W_READY_ENTRIES_SHIFT)
	add	x3, x30, x5, lsl #W_ENTRY_SHIFT
	ldr	x5, [x3, #ENTRY_KEY]
	cmp	x5, x0
	b.eq	answered

	add	x5, x0, x1			/* by x1 */
	mul	x5, x5, x6
	lsr	x5, x5, #(64 - W_READY_ENTRIES_SHIFT)
	add	x3, x30, x5, lsl #W_ENTRY_SHIFT
	ldr	x5, [x3, #ENTRY_KEY]
	eor	x5, x5, x0
	eor	x5, x5, #W_READY_ONE
	cbnz	x5, 1f
	ldr	x5, [x3, #ENTRY_ARGUMENT]
	cmp	x5, x1
	b.eq	answered

1:	add	x5, x0, x1			/* by x1 and x2 */
	add	x5, x5, x2
	mul	x5, x5, x6
	lsr	x5, x5, #(64 - W_READY_ENTRIES_SHIFT)
	add	x3, x30, x5, lsl #W_ENTRY_SHIFT
	ldr	x5, [x3, #ENTRY_KEY]
	eor	x5, x5, x0
	eor	x5, x5, #W_READY_TWO
	cbnz	x5, no_answer
	ldr	x5, [x3, #ENTRY_ARGUMENT]
	cmp	x1, w5, uxtw
	b.ne	no_answer
	cmp	x2, x5, lsr #32
	b.ne	no_answer

answered:	/* x3 = entry, x4 = CALLER */
	cbz	w4, 2f
	mrs	x5, esr_el2			/* the exception that EL2 has passed on */
	cmp	x5, w4, uxtw
	b.ne	no_answer
	mrs	x6, spsr_el2
	and	x5, x6, #0x1c
	cmp	x5, #4				/* AArch64 EL1: never what a guest may have put there */
	b.ne	no_answer
	mrs	x5, elr_el2
	msr	elr_el3, x5
	msr	spsr_el3, x6
2:	ldr	x0, [x3, #ENTRY_RESULT]
	ldr	x5, [x3, #ENTRY_COUNT]
	add	x5, x5, #1
	str	x5, [x3, #ENTRY_COUNT]
	ldp	x5, x6, [sp, #P_SPARE + 16]
	ldp	x3, x4, [sp, #P_SPARE]
	ldr	x30, [sp, #P_X30]
	eret

no_answer:
	ldp	x5, x6, [sp, #P_SPARE + 16]
	b	not_ready

lower_sync:
	lsr	x1, x0, #26
	cmp	x1, #0x17			/* EC: SMC from AArch64 */
	mov	x3, #KIND_SMC
	mov	x4, #KIND_EXCEPTION
	csel	x1, x3, x4, eq
	b	describe

lower_other:
	mov	x1, #KIND_EXCEPTION
	b	describe

lower_fiq:
	mov	x0, sp
	bl	take_fiq
	ldr	x30, [sp, #P_FRAME]
	ldr	x1, [sp, #P_SEQ]
	cbz	x0, load_context		/* for another CPU: passed on, the host need not know */
	str	xzr, [sp, #P_SELF]
	ldr	x2, [sp, #P_INTID]
	str	xzr, [sp, #P_INTID]
	mov	x0, #KIND_KICK
	mov	x1, #KIND_INTERRUPT
	cmp	x2, #0
	csel	x1, x1, x0, ne
	mov	x0, xzr

describe:	/* x0 = ESR, x1 = kind, x2 = vector */
	stp	x1, x2, [x30, #F_KIND]
	mrs	x1, far_el3
	str	x0, [x30, #F_ESR_EL3]
	str	x1, [x30, #F_FAR_EL3]
	mrs	x0, sctlr_el1
	mrs	x1, sctlr_el2
	str	x0, [x30, #F_SCTLR_EL1]
	mrs	x2, hcr_el2
	stp	x1, x2, [x30, #F_SCTLR_EL2]
	stp	x18, x19, [x30, #F_X18]
	stp	x20, x21, [x30, #F_X18 + 16]
	stp	x22, x23, [x30, #F_X18 + 32]
	stp	x24, x25, [x30, #F_X18 + 48]
	stp	x26, x27, [x30, #F_X18 + 64]
	stp	x28, x29, [x30, #F_X18 + 80]
	ldr	x0, [sp, #P_X30]
	str	x0, [x30, #F_X30]

post:
	ldr	x1, [sp, #P_SEQ]
	ldr	x2, [sp, #P_SEQ_ADDR]
	ldr	x3, [sp, #P_POLL_ADDR]
	add	x1, x1, #1
	str	x1, [sp, #P_SEQ]
	stlr	x1, [x2]			/* the frame is visible before its number */
	dmb	ish				/* ... and the number before we look whether the host watches */
	ldr	x4, [x3]
	cbnz	x4, wait
	ldr	x4, =SECURE_UART		/* one byte rings; which byte does not matter */
	ldr	w5, [sp, #P_INDEX]
	str	w5, [x4]
wait:
	ldar	x3, [x30]			/* F_ACK */
	cmp	x3, x1
	b.ne	wait
	ldr	x2, [x30, #F_FLAGS]
	cbnz	x2, special

resume:		/* x1 = sequence number */
	ldp	x2, x3, [x30, #F_PC]
	and	x4, x3, #0x1c
	cmp	x4, #0xc			/* AArch64 EL3: the host may not send anybody there */
	b.eq	bad_pstate
	msr	elr_el3, x2
	msr	spsr_el3, x3
load_context:	/* ELR_EL3 and SPSR_EL3 are right */
	str	x1, [x30, #F_DONE]
	ldp	x0, x1, [x30, #F_X0]
	ldp	x2, x3, [x30, #F_X0 + 16]
	ldp	x4, x5, [x30, #F_X0 + 32]
	ldp	x6, x7, [x30, #F_X0 + 48]
	ldp	x8, x9, [x30, #F_X0 + 64]
	ldp	x10, x11, [x30, #F_X0 + 80]
	ldp	x12, x13, [x30, #F_X0 + 96]
	ldp	x14, x15, [x30, #F_X0 + 112]
	ldp	x16, x17, [x30, #F_X0 + 128]
	ldr	x30, [sp, #P_X30]
	eret

save_more:	/* x2 = what the host wants saved besides (bits that are not known here are none), x3 = where to go on */
	tbz	x2, #0, 1f			/* SAVE_COUNTER */
	mrs	x0, cntpct_el0
	str	x0, [x30, #F_COUNTER]
1:	tbz	x2, #1, 2f			/* SAVE_EL2: where there is no EL2, these read as 0 */
	add	x4, x30, #F_ESR_EL2
	mrs	x0, esr_el2
	mrs	x1, elr_el2
	stp	x0, x1, [x4]
	mrs	x0, spsr_el2
	mrs	x1, far_el2
	stp	x0, x1, [x4, #F_SPSR_EL2 - F_ESR_EL2]
	mrs	x0, hpfar_el2
	mrs	x1, scr_el3
	stp	x0, x1, [x4, #F_HPFAR_EL2 - F_ESR_EL2]
2:	br	x3

bad_pstate:
	mov	x3, #KIND_BAD_ANSWER
	mov	x4, #BAD_PSTATE
	stp	x3, x4, [x30, #F_KIND]
	str	x1, [x30, #F_DONE]
post_own:	/* a frame that the guest did not come for: its moment is now */
	ldr	x2, [sp, #P_POLL_ADDR]
	str	xzr, [x30, #F_COUNTER]
	ldr	x2, [x2, #H_SAVE - H_POLL]
	tbz	x2, #0, post			/* SAVE_COUNTER */
	mrs	x0, cntpct_el0
	str	x0, [x30, #F_COUNTER]
	b	post

special:	/* x2 = flags */
	mov	x0, x30
	mov	x1, sp
	bl	answer
	ldr	x30, [sp, #P_FRAME]
	ldr	x1, [sp, #P_SEQ]
	cbz	x0, resume
	cmp	x0, #DO_POST
	b.eq	1f
	ldp	x18, x19, [x30, #F_X18]
	ldp	x20, x21, [x30, #F_X18 + 16]
	ldp	x22, x23, [x30, #F_X18 + 32]
	ldp	x24, x25, [x30, #F_X18 + 48]
	ldp	x26, x27, [x30, #F_X18 + 64]
	ldp	x28, x29, [x30, #F_X18 + 80]
	ldr	x0, [x30, #F_X30]
	str	x0, [sp, #P_X30]
	b	resume
1:	str	x1, [x30, #F_DONE]
	b	post_own

own_exception:	/* x18 = vector. The guest's registers are in the frame already or lost; say what happened and wait. */
	mrs	x30, tpidr_el3
	mov	sp, x30
	str	xzr, [sp, #P_FIXUP]
	ldr	x30, [sp, #P_FRAME]
	mrs	x0, elr_el3
	mrs	x1, spsr_el3
	stp	x0, x1, [x30, #F_PC]
	str	xzr, [x30, #F_COUNTER]
	mrs	x0, esr_el3
	mov	x1, #KIND_FAULT
	mov	x2, x18
	b	describe

/* struct access phys_access(addr, value, code, pcpu): x0 = value read, x1 = 1 if it took an external abort. */
	.global phys_access
phys_access:
	adr	x4, aborted
	str	x4, [x3, #P_FIXUP]
	and	x5, x2, #0xff
	ubfx	x6, x2, #8, #8
	cmp	x5, #OP_WRITE_PHYS
	b.eq	1f
	cmp	x6, #1
	b.eq	2f
	cmp	x6, #2
	b.eq	3f
	cmp	x6, #4
	b.eq	4f
	ldr	x0, [x0]
	b	9f
2:	ldrb	w0, [x0]
	b	9f
3:	ldrh	w0, [x0]
	b	9f
4:	ldr	w0, [x0]
	b	9f
1:	cmp	x6, #1
	b.eq	5f
	cmp	x6, #2
	b.eq	6f
	cmp	x6, #4
	b.eq	7f
	str	x1, [x0]
	b	8f
5:	strb	w1, [x0]
	b	8f
6:	strh	w1, [x0]
	b	8f
7:	str	w1, [x0]
8:	mov	x0, x1
9:	dsb	sy				/* an abort arrives before we leave */
	str	xzr, [x3, #P_FIXUP]
	mov	x1, #0
	ret
aborted:
	mrs	x3, tpidr_el3
	str	xzr, [x3, #P_FIXUP]
	mov	x0, #0
	mov	x1, #1
	ret
	.ltorg
