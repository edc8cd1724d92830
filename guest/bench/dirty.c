/*
 * mode=dirty: every CPU writes all of its pages over and over, and looks each time whether what it wrote last is still
 * there. For live migrations, which must miss none of the writes: with the MMU off nothing ever flushes a TLB here, so a
 * host that relies on that is found out. Ends when all CPUs have taken event 0; with `alone`, which is for one CPU under a
 * QEMU with none of our firmware, never.
 */
#include "bench.h"

#define FIRST_PAGE 0x42000000ull /* far behind the image */
#define PAGE_WORDS 512

static u64 pages, alone;
static volatile u64 taken[MAX_CPUS];

static void dirty_cpu(unsigned cpu)
{
	volatile u64 *mine = (volatile u64 *)FIRST_PAGE + cpu * pages * PAGE_WORDS;
	u64 pass = 0;

	for (u64 page = 0; page < pages; page++)
		mine[page * PAGE_WORDS] = 0;
	if (!alone)
		enable_event(EVENT, sdei_count_entry, (u64)&taken[cpu]);
	barrier("dirty");
	if (cpu == 0)
		printf("dirty: ready\n");
	while (!taken[cpu]) {
		pass++;
		for (u64 page = 0; page < pages; page++) {
			u64 got = mine[page * PAGE_WORDS];

			if (got != pass - 1)
				fail("page %lu of CPU %u: expected %lu, got %lu", page, cpu, pass - 1, got);
			mine[page * PAGE_WORDS] = pass;
		}
		progress[cpu]++;
	}
	expect("SDEI_PE_MASK", 1, smccc(SDEI_PE_MASK, 0, 0, 0, 0, 0));
	barrier("the end");
	if (cpu == 0)
		printf("dirty: ok pages=%lu passes=%lu\n", pages, pass);
}

void mode_dirty(void)
{
	pages = arg_number("pages", 256, 1, 4096);
	alone = arg_number("alone", 0, 0, 1);
	args_done();
	if (!alone) {
		sdei_version();
		start_cpus(dirty_cpu);
	}
	dirty_cpu(0);
}
