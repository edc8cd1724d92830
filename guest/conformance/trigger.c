/* How the subject, or another event, is made pending: by a call, by a device, or by the host at the other end of the console. */
#include "harness.h"

static bool host;

void trigger_setup(bool console)
{
	host = console;
}

bool have_host(void)
{
	return host;
}

static volatile u64 asked, answered; /* by the host, in the order in which it was asked */
static volatile int answers[4];

static void take_answer(void)
{
	answers[answered % 4] = console_read(HOST_US);
	answered = answered + 1;
}

static void need_host(void)
{
	if (!host)
		skip("nothing here can trigger a static event (trigger=console)");
}

static u64 next_request(void)
{
	u64 request;

	need_host();
	while (answered < asked)
		take_answer();
	request = asked;
	asked = request + 1; /* before the event can come, whose handler may ask too */
	return request;
}

u64 host_ask(u64 event, unsigned cpu)
{
	u64 request = next_request();

	printf("#! trigger 0x%lx %u\n", event, cpu);
	return request;
}

u64 host_ask_at(u64 event, unsigned cpu, unsigned watched, const void *low, const void *high)
{
	u64 request = next_request();

	printf("#! trigger-at 0x%lx %u %u 0x%lx 0x%lx\n", event, cpu, watched, (u64)low, (u64)high);
	return request;
}

void host_at_mark(u64 event, unsigned cpu, unsigned number)
{
	need_host();
	printf("#! trigger-mark 0x%lx %u %u\n", event, cpu, number);
}

u64 mark(unsigned number)
{
	u64 request = next_request();

	printf("#! mark %u\n", number);
	return request;
}

void host_forget(void)
{
	while (answered < asked)
		take_answer();
}

bool host_answer(u64 request)
{
	int answer;

	while (answered <= request)
		take_answer();
	answer = answers[request % 4];
	if (answer != 'y' && answer != 'n')
		FAIL("the host answered");
	return answer == 'y';
}

bool host_trigger(u64 event, unsigned cpu)
{
	return host_answer(host_ask(event, cpu));
}

static u64 fire_work(u64 argument)
{
	(void)argument;
	ppi_fire();
	return 0;
}

void trigger(unsigned cpu)
{
	if (subject.how == BY_SIGNAL)
		CALL(SUCCESS, SDEI_EVENT_SIGNAL, subject.event, affinity(cpu));
	else if (subject.how == BY_HOST)
		host_trigger(subject.event, cpu);
	else if (subject.how == BY_TIMER)
		on(cpu, fire_work, 0);
	else
		uart_fire();
}

u64 trigger_begin(unsigned cpu)
{
	if (subject.how == BY_HOST)
		return host_ask(subject.event, cpu);
	trigger(cpu);
	return 0;
}

void trigger_end(u64 request)
{
	if (subject.how == BY_HOST)
		host_answer(request);
}

void quiet(void)
{
	if (subject.how == BY_TIMER)
		ppi_quiet();
	else if (subject.how == BY_UART)
		uart_quiet();
}
