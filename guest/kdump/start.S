/* Where Linux enters a static program: sp, a multiple of 16, points to argc and argv. */
	.text
	.globl _start
_start:
	mov	x29, #0
	mov	x30, #0
	ldr	x0, [sp]
	add	x1, sp, #8
	bl	run
	mov	x8, #93			/* exit */
	svc	#0
	brk	#0
