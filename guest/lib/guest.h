/* What a flat guest has: console, command line, other CPUs, time, one interrupt, and a way to fail. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"
#include "offsets.h"
#include "psci.h"
#include "sdei.h"
#include "smccc.h"
#include "virt.h"

/* ---- the way back ---- */

/* What calls preserve. Returns 0, and 1 after context_load of the same buffer. context.S */
u64 context_save(u64 buffer[CONTEXT_WORDS]) __attribute__((returns_twice));
void context_load(u64 buffer[CONTEXT_WORDS]) __attribute__((noreturn));

/* ---- the program ---- */

/* On CPU 0, after boot. When it returns, the machine is powered off. */
void guest_main(void);
/* SDEI handler behind sdei_entry; returns the status for EVENT_COMPLETE. */
u64 sdei_handler(struct regs *regs);
/* Printed after a FAIL line, if set. */
extern const char *fail_epilogue;
/*
 * If set, told of an exception that nothing expects, and of a failure, before either ends the guest: a program may know how
 * to go on, and does not return then. It runs on a stack of its own after an exception, and calls exception_recovered()
 * when it leaves that.
 */
extern void (*exception_hook)(u64 vector, u64 esr, u64 elr, u64 far);
extern void (*fail_hook)(const char *what);
void exception_recovered(void);
/* start.S: goes on in `work`, which must not return, on the stack that an exception's hook has. */
void on_fatal_stack(void (*work)(void)) __attribute__((noreturn));
/* start.S: vectors and EL2's controls as at the start. */
void el_setup(void);

void sdei_entry(void);
void sdei_count_entry(void);

/* ---- console (console.c) ---- */

/* %s %c %d %u %x with l, 0 and a width. */
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The next character that was typed, or -1 if none is within `us`. */
int console_read(u64 us);

/* ---- the end (guest.c) ---- */

/* Prints `FAIL: CPU n: <message>` and powers off. Safe in handlers. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void power_off(void) __attribute__((noreturn));
/* Fails unless a call returned what it must; both are shown as return codes. */
void expect(const char *call, u64 expected, u64 got);
/* The same for values that are no return code. */
void expect_value(const char *what, u64 expected, u64 got);

/* ---- command line (args.c) ---- */

void args_init(const char *line);
/* A property of a node below the root of a flattened device tree, as text (fdt.c); NULL if there is none, or no tree. */
const char *fdt_text(const void *fdt, const char *node, const char *property);
/* The whole text from `from` to `end` as a number of 64 bits, decimal or 0x...; false: it is none, or does not fit. */
bool text_number(const char *from, const char *end, u64 *number);
/* Fails on what is no such number, or not from `lowest` to `highest`. */
u64 arg_number(const char *name, u64 value_if_absent, u64 lowest, u64 highest);
const char *arg_text(const char *name, const char *value_if_absent);
bool text_is(const char *a, const char *b);
/* Fails on any word that nobody asked for. */
void args_done(void);

/* ---- CPUs (guest.c) ---- */

static inline unsigned this_cpu(void)
{
	u64 mpidr;

	__asm__ volatile("mrs %0, mpidr_el1" : "=r"(mpidr));
	return mpidr & (MAX_CPUS - 1);
}

/* Affinity of a CPU of QEMU's virt with a GICv3. */
static inline u64 affinity(unsigned cpu)
{
	return (u64)(cpu / 16) << 8 | cpu % 16;
}

static inline bool at_el2(void)
{
	u64 el;

	__asm__ volatile("mrs %0, CurrentEL" : "=r"(el));
	return el >> 2 == 2;
}

extern unsigned nr_cpus; /* the word smp=N */

/* Starts CPUs 1..nr_cpus-1 in `entry`, and waits until they are there. */
void start_cpus(void (*entry)(unsigned cpu));
/* Starts one that is off, and does not wait. */
void start_one_cpu(unsigned cpu, void (*entry)(unsigned cpu));
/* Counts what a CPU has done, for barriers: a CPU that gets on with its work is not late. */
extern volatile u64 progress[MAX_CPUS];
/* Waits for all nr_cpus CPUs; fails if nothing moves for twice wait_us. */
void barrier(const char *what);

/* ---- time (time.c) ---- */

/* Limit of every wait. Long: a firmware that is being restarted may take its time. */
extern u64 wait_us;

static inline u64 ticks(void)
{
	u64 now;

	__asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(now)::"memory");
	return now;
}

u64 ticks_per_second(void);
u64 ticks_of_us(u64 us);
u64 ns_of_ticks(u64 count);
/* Spins until *word >= wanted; fails after wait_us, saying what was waited for. */
void wait_at_least(const volatile u64 *word, u64 wanted, const char *what);

/* ---- the virtual timer's interrupt (time.c, gic.c) ---- */

void gic_init(void);
/* Interrupts of the timer that this CPU took. */
extern volatile u64 irqs[MAX_CPUS];
/* Called in the interrupt's handler, if set. */
extern void (*irq_hook)(void);

void timer_arm(u64 us);
void timer_stop(void);
bool timer_expired(void);
/* Waits until the armed timer has expired, or its interrupt was taken. */
void timer_wait_expired(void);
/* True if an interrupt waits at this CPU, masked or not. */
bool irq_pending(void);
/* Waits until the armed timer's interrupt is pending here, or was taken, which is for the caller to check. */
void timer_wait_pending(void);
/* Takes one timer interrupt, or fails: after this, an interrupt that does not come is no mistake of the set-up. */
void timer_check(void);

static inline void irq_unmask(void)
{
	__asm__ volatile("msr daifclr, #2\n\tisb" ::: "memory");
}

static inline void irq_mask(void)
{
	__asm__ volatile("msr daifset, #2\n\tisb" ::: "memory");
}

#endif
