/*
 * Entry of a flat guest, at EL1h or EL2h with the MMU off, and its exception vectors.
 * Data accesses are to Device memory all the time, hence -mstrict-align everywhere.
 */
#include "limits.h"
#include "offsets.h"

#define HCR_EL2_GUEST (1 << 31 | 1 << 5 | 1 << 4 | 1 << 3) /* RW, AMO, IMO, FMO: interrupts come to EL2 */

	.section .text.start, "ax"
	.global	_start
_start:	/* x0: device tree, x1: command line or 0 */
	b	1f
	.balign	8
	.global	command_slot
	/* For whoever loads this image and cannot say what the firmware will pass: a command line behind the mark. */
	.ascii	"QSDEIARG"
command_slot:
	.skip	MAX_LINE
1:	msr	daifset, #15
	mov	x19, x1
	mov	x20, x0
	/* Relocations: struct { offset, type, addend }, all of them R_AARCH64_RELATIVE. */
	adr	x4, _start
	ldr	x2, =LINK_ADDRESS
	sub	x4, x4, x2
	adrp	x2, __rela_start
	add	x2, x2, :lo12:__rela_start
	adrp	x3, __rela_end
	add	x3, x3, :lo12:__rela_end
0:	cmp	x2, x3
	b.hs	2f
	ldp	x5, x6, [x2], #16
	ldr	x6, [x2], #8
	add	x6, x6, x4
	str	x6, [x5, x4]
	b	0b
2:	adrp	x2, __bss_start
	add	x2, x2, :lo12:__bss_start
	adrp	x3, __bss_end
	add	x3, x3, :lo12:__bss_end
0:	cmp	x2, x3
	b.hs	1f
	stp	xzr, xzr, [x2], #16
	b	0b
1:	mov	x0, #0
	bl	cpu_setup
	mov	x0, x19
	mov	x1, x20
	bl	boot_primary
0:	wfi
	b	0b

	.global	_start_secondary
_start_secondary:	/* x0: CPU index, from PSCI CPU_ON's context id */
	msr	daifset, #15
	mov	x19, x0
	bl	cpu_setup
	mov	x0, x19
	bl	boot_secondary
0:	wfi
	b	0b

/* x0: CPU index. Sets the stack, and what el_setup does. */
	.global	cpu_setup
cpu_setup:
	msr	SPSel, #1
	adrp	x1, stacks
	add	x1, x1, :lo12:stacks
	add	x2, x0, #1
	mov	x3, #STACK_SIZE
	madd	x1, x2, x3, x1
	mov	sp, x1
/* Sets the vectors, and at EL2 what lets interrupts and the timer come to EL2. */
	.global	el_setup
el_setup:
	adrp	x1, vectors
	add	x1, x1, :lo12:vectors
	mrs	x2, CurrentEL
	cmp	x2, #(2 << 2)
	b.eq	1f
	msr	vbar_el1, x1
	isb
	ret
1:	msr	vbar_el2, x1
	mov	x2, #(HCR_EL2_GUEST & 0xffff)
	movk	x2, #(HCR_EL2_GUEST >> 16 & 0xffff), lsl #16
	msr	hcr_el2, x2
	msr	cntvoff_el2, xzr
	mov	x2, #0xf
	msr	S3_4_C12_C9_5, x2	/* ICC_SRE_EL2 */
	isb
	ret

	/* SP = the stack of this CPU for when its own one may be what is broken; uses x5..x7 */
	.macro	fatal_stack
	mrs	x5, mpidr_el1
	and	x5, x5, #(MAX_CPUS - 1)
	add	x5, x5, #1
	mov	x6, #FATAL_STACK_SIZE
	adrp	x7, fatal_stacks
	add	x7, x7, :lo12:fatal_stacks
	madd	x7, x5, x6, x7
	mov	sp, x7
	.endm

	/* void on_fatal_stack(void (*work)(void)): does not return */
	.global	on_fatal_stack
on_fatal_stack:
	mov	x8, x0
	msr	SPSel, #1
	fatal_stack
	blr	x8
0:	wfi
	b	0b

/* Any exception but an IRQ ends the guest; the stack may be what is broken, so this uses another one. */
	.macro fatal index
	.balign	128
	mov	x0, #\index
	b	fatal_exception
	.endm

	.text
	.balign	2048
	.global	vectors
vectors:
	fatal	0
	fatal	1
	fatal	2
	fatal	3
	fatal	4
	.balign	128
	b	irq_exception
	fatal	6
	fatal	7
	fatal	8
	fatal	9
	fatal	10
	fatal	11
	fatal	12
	fatal	13
	fatal	14
	fatal	15

fatal_exception:	/* x0: vector index */
	mov	x4, sp
	fatal_stack
	read_here	x1, esr
	read_here	x2, elr
	read_here	x3, far
	bl	exception_fatal
0:	wfi
	b	0b

irq_exception:
	sub	sp, sp, #176
	stp	x0, x1, [sp]
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x29, [sp, #144]
	str	x30, [sp, #160]
	bl	irq_handler
	ldp	x2, x3, [sp, #16]
	ldp	x4, x5, [sp, #32]
	ldp	x6, x7, [sp, #48]
	ldp	x8, x9, [sp, #64]
	ldp	x10, x11, [sp, #80]
	ldp	x12, x13, [sp, #96]
	ldp	x14, x15, [sp, #112]
	ldp	x16, x17, [sp, #128]
	ldp	x18, x29, [sp, #144]
	ldr	x30, [sp, #160]
	ldp	x0, x1, [sp]
	add	sp, sp, #176
	eret

	.bss
	.balign	16
stacks:
	.skip	MAX_CPUS * STACK_SIZE
fatal_stacks:
	.skip	MAX_CPUS * FATAL_STACK_SIZE
