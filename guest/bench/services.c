/* mode=services: calls each function of services.h once, and prints what came. What must come, the host knows. */
#include "bench.h"

#define SERVED(register, feature, name, function, x1) { name, function, x1 },
#define ALWAYS(name, function, x1) { name, function, x1 },
#define NEVER(name, function, x1) { name, function, x1 },

static const struct {
	const char *name;
	u64 function, x1;
} cases[] = {
#include "services.h"
};

void mode_services(void)
{
	args_done();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		u64 x0 = smccc(cases[i].function, cases[i].x1, 0, 0, 0, 0);

		printf("services: 0x%lx 0x%lx 0x%lx %s\n", cases[i].function, cases[i].x1, x0, cases[i].name);
	}
	printf("services: done\n");
}
