/* What the command line and the firmware say, before the first scenario. */
#include "harness.h"

u64 private_event, critical_event, shared_event, shared_critical_event;
unsigned private_slots, shared_slots;
bool relative_mode, signal_refused;
u64 version_word, first_mask, suspend_word;

u64 psci_cpu_on(unsigned cpu)
{
	return smccc(PSCI_CPU_ON, affinity(cpu), (u64)_start_secondary, cpu, 0, 0);
}

/* The first number of a comma-separated list; 0 if the word is absent. */
static u64 number_word(const char *name)
{
	const char *text = arg_text(name, ""), *end = text;
	u64 value = 0;

	while (*end && *end != ',')
		end++;
	if (*text && !text_number(text, end, &value))
		fail("%s=%s: want event numbers, such as 0x100 or 256", name, text);
	return value;
}

/* Nobody named events: those that answer GET_INFO and let themselves be registered are static ones. */
static void look_at(u64 event)
{
	u64 type = smccc(SDEI_EVENT_GET_INFO, event, INFO_TYPE, 0, 0, 0);
	u64 priority = smccc(SDEI_EVENT_GET_INFO, event, INFO_PRIORITY, 0, 0, 0);
	u64 *place = type ? (priority ? &shared_critical_event : &shared_event) :
			    (priority ? &critical_event : &private_event);

	if (type > 1 || priority > 1 || *place)
		return;
	if (smccc(SDEI_EVENT_REGISTER, event, (u64)conf_entry, (u64)p0, 0, 0))
		return;
	smccc(SDEI_EVENT_UNREGISTER, event, 0, 0, 0, 0);
	*place = event;
}

static void find_events(void)
{
	for (u64 n = 1; n < 0x400; n++)
		look_at(n);
	for (u64 n = 0; n < 0x100; n++)
		look_at(0x40000000 + n);
}

void guest_main(void)
{
	const char *filter = arg_text("filter", ""), *way = arg_text("trigger", "none");
	u64 after = arg_number("after", 0, 0, 1000), watchdog = arg_number("watchdog", 12, 1, 3600), slots;
	int kind = (int)arg_number("kind", 0, 0, 100) - 1; /* how many of that scenario's kinds are done */
	bool console = text_is(way, "console"), named;

	if (!console && !text_is(way, "none"))
		fail("trigger=%s: want console or none", way);
	private_event = number_word("private");
	critical_event = number_word("critical");
	shared_event = number_word("shared");
	shared_critical_event = number_word("shared_critical");
	named = private_event || critical_event || shared_event || shared_critical_event;
	suspend_word = arg_number("suspend", 0, 0, 0xffffffff);
	args_done();

	version_word = smccc(SDEI_VERSION, 0, 0, 0, 0, 0);
	conformance_setup(version_word != (u64)NOT_SUPPORTED, console, watchdog);
	if (version_word != (u64)NOT_SUPPORTED) {
		first_mask = smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0);
		slots = smccc(SDEI_FEATURES, FEATURE_BIND_SLOTS, 0, 0, 0, 0);
		if ((int64_t)slots > 0) {
			private_slots = slots & 0xffff;
			shared_slots = slots >> 16 & 0xffff;
		}
		relative_mode = smccc(SDEI_FEATURES, FEATURE_RELATIVE_MODE, 0, 0, 0, 0) == 1;
		smccc(SDEI_EVENT_REGISTER, 0, (u64)conf_entry, (u64)p0, 0, 0);
		signal_refused = smccc(SDEI_EVENT_SIGNAL, 0, affinity(0), 0, 0, 0) == (u64)INVALID_PARAMETERS;
		smccc(SDEI_EVENT_UNREGISTER, 0, 0, 0, 0, 0);
		if (!named)
			find_events();
	}
	device_init();
	start_cpus(worker);
	wait_workers();
	if (version_word == (u64)NOT_SUPPORTED) {
		printf("# firmware: no SDEI; %u CPUs at EL%u\n", nr_cpus, at_el2() ? 2 : 1);
	} else {
		smccc(SDEI_PE_UNMASK, 0, 0, 0, 0, 0);
		printf("# firmware: SDEI %lu.%lu, vendor 0x%lx; %u CPUs at EL%u; bind slots: %u private, %u shared\n",
		       version_word >> 48 & 0x7fff, version_word >> 32 & 0xffff, version_word & 0xffffffff, nr_cpus,
		       at_el2() ? 2 : 1, private_slots, shared_slots);
		printf("# events: private 0x%lx, critical 0x%lx, shared 0x%lx, shared critical 0x%lx (0x0: none)\n",
		       private_event, critical_event, shared_event, shared_critical_event);
	}
	conformance_run(filter, after, kind);
}
