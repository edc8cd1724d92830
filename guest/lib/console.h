/* The console's inner side, for guest.c only. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdarg.h>

#include "guest.h"

void console_init(void);
void console_flush(void);
/* One message under one lock: `prefix` and the CPU number if prefix is set, the formatted text, `suffix`. */
void console_print(const char *prefix, unsigned cpu, const char *format, va_list args, const char *suffix);

/* The formatted text, cut to what fits, in place of printing it. */
void console_text(char *to, size_t size, const char *format, va_list args);

#endif
