/* Where Linux enters the program: argc and argv are on the stack. */
	.text
	.global _start
_start:
	mov	x29, xzr
	mov	x30, xzr
	mov	x0, sp
	bl	reseed
	brk	#0
