/* A firmware for EL3 of QEMU's virt that does as little as a test wants, and that wrong. */
#define UART		0x09000000
#define SECURE_GPIO	0x090b0000	/* pin 0 powers off, pin 1 resets */
#ifndef ENTRY
#define ENTRY		0x40200000
#endif

	.macro	gpio pin
	ldr	x10, =SECURE_GPIO
	mov	w11, #(1 << \pin)
	str	w11, [x10, #0x400]		/* direction */
	str	w11, [x10, #(4 << \pin)]	/* data, under its mask */
	b	.
	.endm

	.text
	.global	_start
_start:
	mrs	x0, mpidr_el1
	and	x0, x0, #0xff
	cbnz	x0, sleep
#if defined(POWERS_OFF)
	gpio	0
#elif defined(RESETS)
	gpio	1
#elif defined(HANGS)
	b	.
#elif defined(PRINTS)
	ldr	x0, =UART
1:	adr	x1, words
2:	ldrb	w2, [x1], #1
	cbz	w2, 1b
	str	w2, [x0]
	b	2b
words:	.asciz	WORDS
	.balign	4
#else
	adr	x0, vectors
	msr	vbar_el3, x0
	mov	x0, #0xf
	msr	S3_6_C12_C12_5, x0	/* ICC_SRE_EL3 */
	isb
	mov	x0, #0x431		/* SCR_EL3: NS, RW, and what is RES1 */
	msr	scr_el3, x0
	mov	x0, #0x30d00000		/* SCTLR_EL1: what is RES1 */
	movk	x0, #0x0800
	msr	sctlr_el1, x0
	mov	x0, #0x3c5		/* EL1h, masked */
	msr	spsr_el3, x0
	ldr	x0, =ENTRY
	msr	elr_el3, x0
	mov	x0, #0			/* no device tree, no words */
	mov	x1, #0
	isb
	eret
#endif
sleep:	wfi
	b	sleep

	.balign	2048
vectors:
	.rept	8
	.balign	128
	b	.
	.endr
	.balign	128
	/* The only calls that this firmware knows; all others are NOT_SUPPORTED. Only x0 changes. */
	msr	tpidr_el3, x9
	ldr	w9, =0x84000008		/* SYSTEM_OFF */
	cmp	w0, w9
	b.eq	off
	ldr	w9, =0xc4000020		/* SDEI_VERSION */
	cmp	w0, w9
	b.eq	version
	ldr	w9, =0xc4000030		/* SDEI_FEATURES of no feature */
	cmp	w0, w9
	b.ne	1f
	cmp	x1, #0x10
	b.eq	.
1:	ldr	w9, =0xc4000031		/* the resets */
	sub	w9, w0, w9
	mov	x0, #0
	cmp	w9, #1
	b.ls	2f
	mov	x0, #-1
2:	mrs	x9, tpidr_el3
	eret
version:
	mov	x0, #(1 << 48)
	b	2b
off:	gpio	0
	.balign	2048
