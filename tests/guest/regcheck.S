// SPDX-License-Identifier: Apache-2.0
// A Linux program for AArch64 that keeps a pattern in every register that a program has, for a while touches none of
// them, and then looks whether all are as they were: x0-x30, sp, NZCV, TPIDR_EL0, FPSR, FPCR, v0-v31. For ever; a
// register that has changed ends it with status 1 + its place in the table below.

	.equ	WORDS, 128
	.equ	VECTORS, 512		// offset of v0 in table and area, in bytes

	.altmacro
	.macro	two op, kind, base, n, next, offset
	\op	\kind\n, \kind\next, [\base, #\offset]
	.endm
	.macro	pair op, base, n	// registers n and n + 1 at their place
	two	\op, x, \base, \n, %(\n + 1), %(\n * 8)
	.endm
	.macro	vectors op, base, n
	two	\op, q, \base, \n, %(\n + 1), %(VECTORS + \n * 16)
	.endm

	.text
	.global	_start
_start:
	adrp	x30, table
	add	x30, x30, :lo12:table
	ldr	x0, [x30, #31 * 8]
	mov	sp, x0
	ldr	x0, [x30, #32 * 8]
	msr	nzcv, x0
	ldr	x0, [x30, #33 * 8]
	msr	tpidr_el0, x0
	ldr	x0, [x30, #34 * 8]
	msr	fpsr, x0
	ldr	x0, [x30, #35 * 8]
	msr	fpcr, x0
	.irp	n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
	vectors	ldp, x30, \n
	.endr
	.irp	n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28
	pair	ldp, x30, \n
	.endr
	ldr	x30, [x30, #30 * 8]

	.rept	20000			// here is where most events should find it
	nop
	.endr

	.irp	n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28
	pair	stp, sp, \n
	.endr
	str	x30, [sp, #30 * 8]
	mov	x0, sp
	str	x0, [sp, #31 * 8]
	mrs	x0, nzcv
	str	x0, [sp, #32 * 8]
	mrs	x0, tpidr_el0
	str	x0, [sp, #33 * 8]
	mrs	x0, fpsr
	str	x0, [sp, #34 * 8]
	mrs	x0, fpcr
	str	x0, [sp, #35 * 8]
	.irp	n, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
	vectors	stp, sp, \n
	.endr

	adrp	x1, table
	add	x1, x1, :lo12:table
	adrp	x2, area
	add	x2, x2, :lo12:area
	mov	x0, #0
1:	ldr	x3, [x1, x0, lsl #3]
	ldr	x4, [x2, x0, lsl #3]
	add	x0, x0, #1
	cmp	x3, x4
	b.ne	2f
	cmp	x0, #WORDS
	b.ne	1b
	b	_start
2:	mov	x8, #93			// exit
	svc	#0

	.data
	.balign	VECTORS
table:	// x0..x30
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
	.quad	0xa5c3000000000000 + \n * 0x0001010101010101
	.endr
	.quad	area			// sp
	.quad	0xa0000000		// NZCV: N and C
	.quad	0x1357924680acebdf	// TPIDR_EL0
	.quad	0x08000015		// FPSR: QC, IXC, OFC, IOC
	.quad	0x00400000		// FPCR: rounds to plus infinity
	.balign	VECTORS
vector_table:
	.irp	n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	.quad	0x5a00000000000000 + \n * 0x0000111111111111, ~(\n * 0x0123456789ab)
	.endr

	.bss
	.balign	512
area:	.skip	WORDS * 8
