/* Sequences of calls that the host types, and the records of what came of them. main.c says how both look. */
#ifndef COMPARE_H
#define COMPARE_H

#include "guest.h"

#define READ(reg)                                                        \
	({                                                               \
		u64 v_;                                                  \
		__asm__ volatile("mrs %0, " #reg : "=r"(v_)::"memory"); \
		v_;                                                      \
	})
#define WRITE(reg, value) __asm__ volatile("msr " #reg ", %0\n\tisb" ::"r"((u64)(value)) : "memory")

void *memset(void *to, int value, size_t size);

/* ---- a sequence (sequence.c) ---- */

#define MAX_OPS 64
#define MAX_OPERANDS 6
#define MAX_PROGRAMS 8
#define MAX_LINE_IN 2048

struct operand {
	char kind; /* see main.c */
	u64 value;
};

struct op {
	char what;
	unsigned cpu, nr;
	struct operand operands[MAX_OPERANDS];
};

/* What a handler does the first time that it runs on a CPU; after that it completes at once. */
struct program {
	unsigned first, end;      /* its operations, without the ending */
	struct op ending;
	volatile bool ran[MAX_CPUS];
};

extern struct op ops[MAX_OPS];
extern unsigned nr_steps; /* the first of `ops`; those of programs are behind them */
extern struct program programs[MAX_PROGRAMS];
extern u64 sequence_id;

/* Reads one line from the console into these; false: it is none. */
bool sequence_read(void);

/* ---- records (records.c) ---- */

#define STEP_LEFT 0xf0  /* how the sequence left the CPUs */
#define STEP_BACK 0xf1  /* the state of the beginning is made again */
#define STEP_CHECK 0xf2 /* what each CPU can do then */
#define NO_OP 0xff

extern volatile unsigned at; /* the step */

void records_clear(void);
/* On any CPU, in handlers too; more than there is room for are dropped. */
void note(unsigned cpu, char kind, unsigned op, u64 a, u64 b, u64 c);
/* Prints those that are new. */
void records_print(void);
/* One line with a checksum behind it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned records_printed(void);

/* ---- what a CPU does (calls.c) ---- */

struct end {
	u64 function, argument;
};

extern unsigned depth[MAX_CPUS];           /* handlers that this CPU is in */
extern volatile bool going_off[MAX_CPUS];  /* calls CPU_OFF */
extern volatile bool coming[MAX_CPUS];     /* CPU_ON for it was answered with SUCCESS */

void do_op(unsigned index);
void bindings_clear(void);
/* Takes one interrupt of the timer: whether it came, and what the GIC's CPU interface shows. */
void note_timer(unsigned op);
bool takes_timer(void);
/* Registers event 0, signals it to this CPU, and unregisters it: whether its handler ran. */
bool takes_event(void);
/* CPU_OFF: does not come back, or is noted. */
void go_off(unsigned op);

/* ---- the other CPUs, and ways out (cpus.c) ---- */

#define JOB_US 2500000ul  /* limit of each wait for a CPU */

void cpus_setup(void);
/* Whether it is on, as far as this program knows. */
bool is_on(unsigned cpu);
/* Has that CPU do it; on CPU 0 it is done when this comes back, if it does. */
void post(unsigned cpu, void (*work)(unsigned argument), unsigned argument);
/* Waits for that. False: nothing is heard of the CPU any more. */
bool wait_done(unsigned cpu);
/* An exit of every CPU gives the firmware the chance to deliver what it should, and what it should not. */
void settle(void);
/* A CPU is lost: nothing that comes after it means anything. */
extern volatile bool lost;
/* An exception, or a failure of the library's, is noted, and its CPU goes on. */
void hooks_setup(void);
void exceptions_clear(void); /* and `lost` */
/* Ends the handlers that this CPU has left without an end. */
void unwind(unsigned cpu);
/* Leaves whatever this CPU is at. */
void leave(void) __attribute__((noreturn));
void nap(u64 us);
extern u64 escapes[MAX_CPUS][CONTEXT_WORDS];
void _start_secondary(void);

/* ---- devices (cpus.c) ---- */

#define TIMER_PPI 30 /* the physical timer: the virtual one is for interrupts */
#define UART_SPI 33

void device_init(void);
void wake_enable(bool enable);
bool timer_is_pending(void); /* the virtual one's interrupt, at the GIC */
void ppi_fire(void);
void ppi_quiet(void);
void uart_fire(void);
void uart_quiet(void);

/* ---- entry.S ---- */

void compare_entry(void);
void resume_entry(void);
void recover_entry(void);

#endif
