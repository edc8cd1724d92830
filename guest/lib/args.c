/* The command line: words `name=value`, separated by spaces. */
#include "guest.h"

#define MAX_WORDS 16

static char line[MAX_LINE];
static struct {
	const char *name;
	const char *value;
	bool used;
} words[MAX_WORDS];
static unsigned nr_words;

bool text_is(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

void args_init(const char *from)
{
	char *p = line;
	unsigned n = 0;

	while (from && from[n]) {
		if (n == MAX_LINE - 1)
			fail("command line of more than %d characters", MAX_LINE - 1);
		line[n] = from[n];
		n++;
	}
	while (*p) {
		if (*p == ' ' || *p == '\n') {
			*p++ = 0;
			continue;
		}
		if (nr_words == MAX_WORDS)
			fail("command line of more than %d words", MAX_WORDS);
		words[nr_words].name = p;
		words[nr_words].value = "";
		while (*p && *p != ' ' && *p != '\n') {
			if (*p == '=' && !*words[nr_words].value) {
				*p = 0;
				words[nr_words].value = p + 1;
			}
			p++;
		}
		nr_words++;
	}
}

static const char *find(const char *name)
{
	const char *value = NULL;

	for (unsigned i = 0; i < nr_words; i++) {
		if (text_is(words[i].name, name)) {
			words[i].used = true;
			value = words[i].value;
		}
	}
	return value;
}

const char *arg_text(const char *name, const char *value_if_absent)
{
	const char *value = find(name);

	return value ? value : value_if_absent;
}

static unsigned digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned)(c - 'A') + 10;
	return 99;
}

bool text_number(const char *from, const char *end, u64 *number)
{
	unsigned base = 10;
	u64 value = 0;

	if (end - from > 2 && from[0] == '0' && (from[1] == 'x' || from[1] == 'X')) {
		base = 16;
		from += 2;
	}
	if (from == end)
		return false;
	for (; from < end; from++) {
		unsigned digit = digit_of(*from);

		if (digit >= base || value > (~0ul - digit) / base)
			return false;
		value = value * base + digit;
	}
	*number = value;
	return true;
}

u64 arg_number(const char *name, u64 value_if_absent, u64 lowest, u64 highest)
{
	const char *value = find(name), *end = value;
	u64 number = 0;

	if (!value)
		return value_if_absent;
	while (*end)
		end++;
	if (!text_number(value, end, &number) || number < lowest || number > highest)
		fail("%s=%s: want a number from %lu to %lu", name, value, lowest, highest);
	return number;
}

void args_done(void)
{
	for (unsigned i = 0; i < nr_words; i++) {
		if (!words[i].used)
			fail("unknown word '%s' on the command line", words[i].name);
	}
}
