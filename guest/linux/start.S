/* Where Linux enters a static program: sp, a multiple of 16, points to argc, argv and, behind a NULL, the environment. */
	.text
	.globl _start
_start:
	mov	x29, #0
	mov	x30, #0
	mov	x0, sp
	bl	program
	mov	x8, #94			/* exit_group */
	svc	#0
	brk	#0
