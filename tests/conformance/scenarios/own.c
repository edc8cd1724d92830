#include "conformance.h"

void own_passes(void)
{
	CALL(version_word, SDEI_VERSION);
}

static void fault(void)
{
	*(volatile u64 *)0xfffffffffff0ul; /* nothing is there */
}

void own_faults(void)
{
	fault();
}

static void fault_here(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	fault();
}

static void raise_critical(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	host_trigger(critical_event, 0);
	FAIL("the handler over this one comes back");
}

void own_faults_in_handler(void)
{
	p0->hook = raise_critical;
	p1->hook = fault_here;
	ready(0, p0);
	ready(critical_event, p1);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	FAIL("the handler comes back");
}

void own_faults_elsewhere(void)
{
	p1->hook = fault_here;
	ready_on(1, 0, p1);
	unmask_on(1);
	CALL_ON(1, SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(1));
}

static void fail_here(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	fail("number %lu of CPU %u", 5ul, this_cpu());
}

void own_library_fails(void)
{
	p0->hook = fail_here;
	ready(0, p0);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	FAIL("the handler comes back");
}

static volatile u64 stop;
extern const char own_loop[], own_loop_end[];

static u64 loop(u64 argument)
{
	__asm__ volatile("own_loop:\n\t"
			 "ldr	x9, [%0]\n\t"
			 "cbz	x9, own_loop\n"
			 "own_loop_end:\n\t" ::"r"(&stop)
			 : "x9", "memory");
	return argument;
}

static void stop_loop(struct probe *p, struct entry *e)
{
	(void)p, (void)e;
	stop = 1;
}

void own_at_pc(void)
{
	u64 request;

	need_cpus(2);
	stop = 0;
	p0->hook = stop_loop;
	ready_on(1, private_event, p0);
	unmask_on(1);
	start_on(1, loop, 0);
	request = host_ask_at(private_event, 1, 1, own_loop, own_loop_end);
	IS("the host triggered the event", true, host_answer(request));
	finish_on(1);
	if (p0->entry.x[2] < (u64)own_loop || p0->entry.x[2] >= (u64)own_loop_end)
		IS("handler entry: x2, in the loop", (u64)own_loop, p0->entry.x[2]);
}

static void mark_here(struct probe *p, struct entry *e)
{
	u64 request;

	(void)p, (void)e;
	settle();
	IS("handlers before the mark", 0, p1->begun);
	request = mark(7);
	IS("the host triggered the event", true, host_answer(request));
	begun_is(p1, 1, "handlers after the mark, within this one");
}

void own_at_mark(void)
{
	host_at_mark(critical_event, 0, 7);
	p0->hook = mark_here;
	ready(0, p0);
	ready(critical_event, p1);
	CALL(SUCCESS, SDEI_EVENT_SIGNAL, 0, affinity(0));
	runs_are(p0, 1, "handler runs");
}

void own_one_kind(void)
{
	IS("the subject is no software event", true, subject.how != BY_SIGNAL);
	reg(subject.event, p0);
}

void own_never_ends(void)
{
	for (;;)
		;
}

void own_kind_never_ends(void)
{
	while (subject.how == BY_HOST)
		;
	reg(subject.event, p0);
}
