/* What happened, kept by CPU until CPU 0 prints it: nobody else prints, so that what the firmware prints is all that mixes. */
#include <stdarg.h>

#include "compare.h"
#include "console.h"

#define MAX_RECORDS 96 /* of a CPU, in one sequence */
#define MAX_SAID 160

static struct record {
	volatile char kind; /* written last */
	unsigned char step, op;
	u64 a, b, c;
} records[MAX_CPUS][MAX_RECORDS];
static volatile unsigned noted[MAX_CPUS];
static unsigned told[MAX_CPUS], printed;

volatile unsigned at;

void records_clear(void)
{
	for (unsigned cpu = 0; cpu < MAX_CPUS; cpu++) {
		for (unsigned i = 0; i < noted[cpu] && i < MAX_RECORDS; i++)
			records[cpu][i].kind = 0;
		noted[cpu] = told[cpu] = 0;
	}
	printed = 0;
}

void note(unsigned cpu, char kind, unsigned op, u64 a, u64 b, u64 c)
{
	unsigned n = __atomic_fetch_add(&noted[cpu], 1, __ATOMIC_ACQ_REL);
	struct record *r = &records[cpu][n];

	if (n >= MAX_RECORDS)
		return;
	r->step = (unsigned char)at;
	r->op = (unsigned char)op;
	r->a = a;
	r->b = b;
	r->c = c;
	__atomic_store_n(&r->kind, kind, __ATOMIC_RELEASE);
}

void say(const char *format, ...)
{
	char text[MAX_SAID];
	unsigned sum = 0;
	va_list args;

	va_start(args, format);
	console_text(text, sizeof(text), format, args);
	va_end(args);
	for (const char *p = text; *p; p++)
		sum = (sum * 31 + (unsigned char)*p) & 0xffff;
	printf("%s ~%04x\n", text, sum);
}

void records_print(void)
{
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		for (; told[cpu] < MAX_RECORDS; told[cpu]++) {
			struct record *r = &records[cpu][told[cpu]];
			char kind = __atomic_load_n(&r->kind, __ATOMIC_ACQUIRE);

			if (!kind)
				break;
			say("@r %x %x %c %x %lx %lx %lx", cpu, r->step, kind, r->op, r->a, r->b, r->c);
			printed++;
		}
	}
}

unsigned records_printed(void)
{
	return printed;
}
