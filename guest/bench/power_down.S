/*
 * u64 power_down(void): CPU_SUSPEND to a power-down. Returns 0 when this CPU is back, with its stack and its vectors;
 * what it returns else is the call's.
 */
#include "psci.h"

	.text
	.global	power_down
power_down:
	stp	x29, x30, [sp, #-96]!
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	mov	w0, #(PSCI_CPU_SUSPEND & 0xffff)
	movk	w0, #(PSCI_CPU_SUSPEND >> 16), lsl #16
	mov	x1, #(1 << 16)
	adr	x2, back
	mov	x3, sp
	smc	#0
	b	1f
back:	mov	x19, x0
	mrs	x0, mpidr_el1
	and	x0, x0, #0xf
	bl	cpu_setup
	mov	sp, x19
	mov	x0, #0
1:	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	x29, x30, [sp], #96
	ret
