/* What scenarios are made of. harness.c runs them; each of the other files is one group of them. */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include "guest.h"

#define RM_PE 1
#define STATE_0 0
#define STATE_1 REGISTERED
#define STATE_3 (REGISTERED | ENABLED)
#define STATE_4 RUNNING
#define STATE_5 (REGISTERED | RUNNING)
#define STATE_7 (REGISTERED | ENABLED | RUNNING)

#define LIMIT_US 2000000ul /* of every wait for what must come */
#define SETTLE_US 300ul    /* for what must not come */

#define BAD_AFFINITY 0xff00ul /* Aff1 = 255 */

/* ---- the subject: the event that a scenario is about ---- */

enum how { BY_SIGNAL, BY_HOST, BY_TIMER, BY_UART };

void *memset(void *to, int value, size_t size);

struct subject {
	u64 event;
	const char *kind;
	bool shared, bound;
	enum how how;
};

/* Flags of a scenario: which subjects it is run with, one after another. None: once, `subject` is event 0. */
#define EACH 1u
#define TRIGGERED 2u /* only with those that can be triggered */
#define PRIVATE 4u
#define SHARED 8u
#define BOUND 16u

extern struct subject subject;

/* Makes the subject pending, for `cpu` if it is private; a shared one is for whoever takes it. */
void trigger(unsigned cpu);
/* The same for a static event, by the host; skips the scenario if there is no host. False: the firmware refused. */
bool host_trigger(u64 event, unsigned cpu);
/*
 * Both in two halves, for an event whose handler asks the host for another. Only one may look at the console at a time, so
 * the first answer is taken by the handler, before its own, or when that has ended. Returns what the second half wants.
 */
u64 host_ask(u64 event, unsigned cpu);
bool host_answer(u64 request);
u64 trigger_begin(unsigned cpu);
void trigger_end(u64 request);
/*
 * As host_ask: when CPU `watched` is in the code from `low` to before `high`, which it must stay in until then. The guest
 * is stopped for the host to look, and the event is there before it goes on.
 */
u64 host_ask_at(u64 event, unsigned cpu, unsigned watched, const void *low, const void *high);
/* The host is to trigger it when mark() is called with this number, from wherever; that asks, as host_ask. */
void host_at_mark(u64 event, unsigned cpu, unsigned number);
u64 mark(unsigned number);
bool have_host(void);
/* In the handler of a bound subject: the device stops asking. Nothing for others. */
void quiet(void);

/* Static events, by command line or found by asking; 0: there is none. */
extern u64 private_event, critical_event, shared_event, shared_critical_event;
extern unsigned private_slots, shared_slots;
extern bool relative_mode;
/* SIGNAL to a masked PE or of a disabled event is INVALID, as TF-A says since 2024, where others let it pend. */
extern bool signal_refused;
extern u64 version_word;
/* What the very first PE_MASK of the boot CPU returned. */
extern u64 first_mask;

/* ---- results ---- */

/* A call that must return `expected`; the rest are function id and arguments. In a handler or on another CPU a failure
 * is noted, on CPU 0 it ends the scenario. */
#define CALL(expected, ...) call_is(__FILE_NAME__, __LINE__, (u64)(expected), (const u64[6]){ __VA_ARGS__ })
#define CALL_ON(cpu, expected, ...) \
	call_on_is(__FILE_NAME__, __LINE__, (cpu), (u64)(expected), (const u64[6]){ __VA_ARGS__ })
/* A value that must be. `what` is a sentence's subject. */
#define IS(what, expected, got) value_is(__FILE_NAME__, __LINE__, (what), (u64)(expected), (u64)(got))
#define FAIL(...) broken(__FILE_NAME__, __LINE__, __VA_ARGS__)

void call_is(const char *file, int line, u64 expected, const u64 *call);
void call_on_is(const char *file, int line, unsigned cpu, u64 expected, const u64 *call);
void value_is(const char *file, int line, const char *what, u64 expected, u64 got);
void broken(const char *file, int line, const char *what);
/* A word beside the result, which does not count: what this firmware does where it is free. */
void remark(const char *text);
/* The scenario cannot be expressed here; only on CPU 0, outside of handlers. */
void skip(const char *why) __attribute__((noreturn));

u64 sdei(u64 function, u64 x1, u64 x2, u64 x3, u64 x4, u64 x5);
u64 sdei_on(unsigned cpu, u64 function, u64 x1, u64 x2);
/* Writes a registers' worth of a call into the log of calls, for calls that were made otherwise. */
void log_call(u64 function, u64 x1, u64 x2, u64 x3, u64 result);

/* ---- handlers ---- */

/* All that a handler, or code that was resumed, finds. entry.S knows the offsets. */
struct entry {
	u64 x[31];
	u64 sp, nzcv, elr, spsr, sp_el0, daif, spsel, el;
};

#define NR_PROBES 8
#define NR_CONTEXT 18

/* One handler: register conf_entry with the address of a probe as its argument. */
struct probe {
	void (*hook)(struct probe *p, struct entry *e); /* in the handler */
	u64 resume;                                     /* address for COMPLETE_AND_RESUME; 0: COMPLETE */
	u64 status;                                     /* for COMPLETE */
	volatile u64 hold;                              /* the handler waits while this is set */
	volatile u64 begun, runs, runs_on[MAX_CPUS], active, overlap;
	u64 event, order;
	unsigned cpu;
	struct entry entry; /* of the last run */
};

extern struct probe probes[NR_PROBES];
extern struct probe *const p0, *const p1;

void conf_entry(void);
void resume_entry(void);
/* What resume_entry found, by CPU, and how often it was reached. */
extern struct entry resumed[MAX_CPUS];
extern volatile u64 resumes[MAX_CPUS];

/* REGISTER on this CPU, and ENABLE; both must succeed. */
void reg(u64 event, struct probe *p);
void ready(u64 event, struct probe *p);
void ready_on(unsigned cpu, u64 event, struct probe *p);
/* The handler ran `n` times since the scenario began, no more and no less. */
void runs_are(struct probe *p, u64 n, const char *what);
void begun_is(struct probe *p, u64 n, const char *what);
/* Gives whatever is deliverable the time to arrive. */
void settle(void);
void spin_us(u64 us);
/* Runs `hook` in a handler of the subject on CPU 0, once. */
void in_handler(void (*hook)(struct probe *p, struct entry *e));
/* A hook that does no more than that. */
void quiet_only(struct probe *p, struct entry *e);
void state_is(u64 state);

/* ---- CPUs ---- */

/* Skips the scenario unless there are so many. */
void need_cpus(unsigned n);
u64 on(unsigned cpu, u64 (*work)(u64 argument), u64 argument);
void start_on(unsigned cpu, u64 (*work)(u64 argument), u64 argument);
u64 finish_on(unsigned cpu);
void cpu_off(unsigned cpu);
/* Waits until a CPU is off that was started on its way there otherwise. */
void cpu_goes_off(unsigned cpu);
void cpu_on(unsigned cpu);
/* The same; the CPU does `work` before it is parked, so that nothing needs to wake it. */
u64 cpu_on_to(unsigned cpu, u64 (*work)(u64 argument), u64 argument);
/* Work for any CPU: 1 if it takes an interrupt of its virtual timer, or event 0 (unregistered before and after). */
u64 takes_interrupt(u64 argument);
u64 takes_event(u64 argument);
extern u64 entry_rpr[MAX_CPUS]; /* ICC_RPR_EL1 when the CPU came up */
u64 power_of(unsigned cpu); /* AFFINITY_INFO */
/* CPU_SUSPEND to power-down, woken by the timer: its code if it returned, 1 if the CPU came up anew. */
u64 cpu_suspend(unsigned cpu, u64 power_state);
extern u64 suspend_word; /* power_state by command line; 0: none */
void mask_on(unsigned cpu);
void unmask_on(unsigned cpu);

/* ---- devices (devices.c) ---- */

#define TIMER_PPI 30 /* the physical timer: the virtual one is for interrupts */
#define RTC_SPI 34
#define UART_SPI 33

void device_init(void); /* on each CPU */
void wake_cpu(unsigned cpu);
u64 wait_for_wake(void); /* the interrupt that was taken; 1023: none */
void ppi_fire(void); /* the physical timer of this CPU expires now */
void ppi_quiet(void);
void uart_fire(void);
void uart_quiet(void);
void spi_set_pending(unsigned intid, bool pending);
bool spi_is_pending(unsigned intid);
void intid_enable(unsigned intid, bool enable); /* of this CPU, for a PPI */
bool intid_is_enabled(unsigned intid);
unsigned intid_priority(unsigned intid);
void intid_set_priority(unsigned intid, unsigned priority);
/* Edge-triggered, or level-sensitive. */
void spi_set_edge(unsigned intid, bool edge);
/* Acknowledges and ends interrupts at this CPU until `intid` came; false: it did not within the limit. */
bool take_interrupt(unsigned intid, u64 us);

/* ---- entry.S ---- */

void scribble(void); /* garbage in x0..x17 and the flags */
void fp_fill(u64 seed);
/* q0-q31. With the MMU off memory is Device, and each store of 16 bytes must be aligned. */
typedef u64 fp_words[64] __attribute__((aligned(16)));
void fp_store(fp_words to);
/* Runs code at a lower EL with x0..x2; returns ESR of the exception that brought it back; `after` gets its registers. */
u64 below(u64 pstate, const void *code, const u64 *x, struct entry *after);
extern const char el0_spin[], el0_spin_end[], el0_spin_aarch32[], el0_call_smc[], el0_call_hvc[], el1_call[];

#define READ(reg)                                                        \
	({                                                               \
		u64 v_;                                                  \
		__asm__ volatile("mrs %0, " #reg : "=r"(v_)::"memory"); \
		v_;                                                      \
	})
#define WRITE(reg, value) __asm__ volatile("msr " #reg ", %0\n\tisb" ::"r"((u64)(value)) : "memory")

/* ---- interrupted.c ---- */

u64 sctlr(void);
void set_sctlr(u64 value);
/* A pattern in all registers but x0..x2; returns it. */
u64 fill(struct regs *r, u64 function, u64 x1, u64 x2);
/* SIGNAL to this CPU with a pattern in all registers. `sent` is what the handler must find interrupted. */
struct regs signal_with_pattern(void);
extern struct regs sent;
/* CPU 1 signals this CPU while it spins at EL0, until a handler sets spin_flag; false: it has no EL0 of this form. */
bool interrupt_el0(u64 pstate, const void *code, struct entry *after);
extern volatile uint32_t spin_flag;

#endif
