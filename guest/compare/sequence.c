/* One line of the console as a sequence. Whoever types may be wrong: what does not fit is no sequence. */
#include "compare.h"

#define LINE_US 2000000ul /* a line that began ends within this */
#define POLL_US 300

struct op ops[MAX_OPS];
unsigned nr_steps;
struct program programs[MAX_PROGRAMS];
u64 sequence_id;

static char line[MAX_LINE_IN];

/* False: it was too long, or not whole. */
static bool read_line(void)
{
	unsigned n = 0;
	int c;

	while ((c = console_read(0)) < 0)
		nap(POLL_US);
	for (; c != '\n'; c = console_read(LINE_US)) {
		if (c < 0)
			return false;
		if (n < MAX_LINE_IN - 1)
			line[n++] = (char)c;
	}
	line[n] = 0;
	return n < MAX_LINE_IN - 1;
}

static bool read_hex(const char **p, u64 *value)
{
	const char *from = *p;

	for (*value = 0;; (*p)++) {
		char c = **p;

		if (c >= '0' && c <= '9')
			*value = *value << 4 | (u64)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = *value << 4 | (u64)(c - 'a' + 10);
		else
			return *p > from && *p - from <= 16;
	}
}

static bool read_op(const char **p, struct op *op)
{
	op->nr = 0;
	op->what = *(*p)++;
	if (op->what < 'a' || op->what > 'z')
		return false;
	for (bool more = **p && **p != ' '; more; more = **p == ',' && (*p)++) {
		struct operand *o = &op->operands[op->nr];

		if (op->nr == MAX_OPERANDS)
			return false;
		op->nr++;
		o->kind = *(*p)++;
		if (o->kind < 'A' || o->kind > 'Z' || !read_hex(p, &o->value))
			return false;
	}
	return **p == ' ' || !**p;
}

/* Behind the last space is `~` and the sum of what is before. */
static bool check_sum(void)
{
	unsigned sum = 0, end = 0;
	const char *p;
	u64 wanted;

	for (unsigned i = 0; line[i]; i++) {
		if (line[i] == ' ' && line[i + 1] == '~')
			end = i;
	}
	if (!end)
		return false;
	for (unsigned i = 0; i < end; i++)
		sum = (sum * 31 + (unsigned char)line[i]) & 0xffff;
	line[end] = 0;
	p = line + end + 2;
	return read_hex(&p, &wanted) && wanted == sum;
}

static bool is_ending(char what)
{
	return what == 'e' || what == 'r' || what == 'o' || what == 'l';
}

bool sequence_read(void)
{
	struct program *program = NULL;
	bool ended = false;
	unsigned n = 0;
	const char *p = line;

	nr_steps = 0;
	sequence_id = 0;
	memset(programs, 0, sizeof(programs));
	for (unsigned i = 0; i < MAX_PROGRAMS; i++)
		programs[i].ending.what = 'e';
	if (!read_line() || !check_sum() || *p++ != '#' || !read_hex(&p, &sequence_id))
		return false;
	while (*p == ' ') {
		u64 number = 0;

		p++;
		if (*p == '=') {
			p++;
			if (!read_hex(&p, &number) || number >= MAX_PROGRAMS || programs[number].end)
				return false;
			program = &programs[number];
			program->first = program->end = n;
			ended = false;
			continue;
		}
		if (!program) {
			if (*p < '0' || *p > 'f')
				return false;
			number = *p <= '9' ? (u64)(*p - '0') : (u64)(*p - 'a' + 10);
			p++;
			if (number >= nr_cpus || n == MAX_OPS || !read_op(&p, &ops[n]))
				return false;
			ops[n++].cpu = (unsigned)number;
			nr_steps = n;
			continue;
		}
		if (ended || n == MAX_OPS || !read_op(&p, &ops[n]))
			return false;
		if (is_ending(ops[n].what)) {
			program->ending = ops[n];
			ended = true;
			continue;
		}
		program->end = ++n;
	}
	return !*p;
}
