/* The command line: words `name=value`, separated by spaces. */
#include "guest.h"

#define MAX_LINE 256
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

u64 arg_number(const char *name, u64 value_if_absent, u64 lowest, u64 highest)
{
	const char *value = find(name);
	u64 number = 0;

	if (!value)
		return value_if_absent;
	for (const char *p = value; *p; p++) {
		if (*p < '0' || *p > '9' || number > highest)
			number = highest + 1;
		else
			number = number * 10 + (u64)(*p - '0');
	}
	if (!*value || number < lowest || number > highest)
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
