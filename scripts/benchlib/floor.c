/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: what the same window, the same doorbell and the same monitor give when a C program answers and decides nothing.
 * It serves the bench guest, badly: SDEI_VERSION, and one event on CPU 0 of which it keeps just enough to enter and leave the handler.
 * `scripts/bench` sets it beside the Python backend; whatever lies above it is Python's.
 *
 * usage: floor RAM_FILE WINDOW_OFFSET NR_CPUS DOORBELL_SOCKET ENTRY X0 X1 INJECTIONS
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

#define WORD(offset) ((offset) / 8)
#define CONTEXT_WORDS 20
#define SPIN 4000
#define KICK_SPIN 500 /* while a kick is on its way, as the Python backend does */

static volatile uint64_t *window;
static volatile _Atomic uint64_t *seq;
static int doorbell;
static uint64_t seen[512], saved[512][CONTEXT_WORDS], handler[512], argument[512];
static int pending[512], enabled[512], off[512];
static uint64_t start_pc[512], start_x0[512];
static uint64_t injected_at, *entry_ns, *complete_ns;
static unsigned int injections, injected, completed;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static volatile uint64_t *frame_of(unsigned int cpu)
{
	return window + (W_FRAME_OFFSET + (uint64_t)cpu * W_FRAME_SIZE) / 8;
}

static void kick(unsigned int cpu)
{
	window[W_KICK_OFFSET / 8 + cpu]++;
	if (write(doorbell, "\n", 1) != 1)
		exit(0);
}

static void start(volatile uint64_t *frame, uint64_t pc, uint64_t x0, uint64_t x1)
{
	for (int i = 0; i < 31; i++)
		frame[WORD(F_X0) + i] = 0;
	frame[WORD(F_PC)] = pc;
	frame[WORD(F_PSTATE)] = 0x3c5;
	frame[WORD(F_X0)] = x0;
	frame[WORD(F_X0) + 1] = x1;
	frame[WORD(F_FLAGS)] = ANSWER_ALL;
}

static void deliver(unsigned int cpu, volatile uint64_t *frame)
{
	for (int i = 0; i < CONTEXT_WORDS; i++)
		saved[cpu][i] = frame[WORD(F_PC) + i];
	frame[WORD(F_X0)] = 0;
	frame[WORD(F_X0) + 1] = argument[cpu];
	frame[WORD(F_X0) + 2] = saved[cpu][0];
	frame[WORD(F_X0) + 3] = saved[cpu][1];
	frame[WORD(F_PC)] = handler[cpu];
	frame[WORD(F_PSTATE)] = 0x3c5;
	pending[cpu] = 0;
	if (injected_at && injected <= injections)
		entry_ns[injected - 1] = now() - injected_at;
}

static void call(unsigned int cpu, volatile uint64_t *frame)
{
	uint64_t *x0 = (uint64_t *)&frame[WORD(F_X0)];

	frame[WORD(F_FLAGS)] = 0;
	switch ((uint32_t)*x0) {
	case 0xc4000020: /* SDEI_VERSION */
		*x0 = 0x0001000100000000 | 0x4b564d;
		break;
	case 0xc4000021: /* EVENT_REGISTER */
		handler[cpu] = x0[2];
		argument[cpu] = x0[3];
		*x0 = 0;
		break;
	case 0xc4000022: /* EVENT_ENABLE */
		enabled[cpu] = 1;
		*x0 = 0;
		break;
	case 0xc4000025: /* EVENT_COMPLETE */
		for (int i = 0; i < CONTEXT_WORDS; i++)
			frame[WORD(F_PC) + i] = saved[cpu][i];
		if (injected_at) {
			complete_ns[injected - 1] = now() - injected_at;
			injected_at = 0;
			completed++;
		}
		break;
	case 0xc400002f: /* EVENT_SIGNAL, to the caller */
		*x0 = 0;
		deliver(cpu, frame);
		break;
	case 0xc4000003: /* CPU_ON */
		start_pc[x0[1] & 0xf] = x0[2];
		start_x0[x0[1] & 0xf] = x0[3];
		kick(x0[1] & 0xf);
		*x0 = 0;
		break;
	case 0x84000008: /* SYSTEM_OFF */
		frame[WORD(F_OPS)] = OP_WRITE_PHYS | 4 << 8;
		frame[WORD(F_OPS) + 1] = 0x090b0400;
		frame[WORD(F_OPS) + 2] = 3;
		frame[WORD(F_OPS) + 3] = OP_WRITE_PHYS | 4 << 8;
		frame[WORD(F_OPS) + 4] = 0x090b0004;
		frame[WORD(F_OPS) + 5] = 1;
		frame[WORD(F_FLAGS)] = 2 << W_OPS_SHIFT | ANSWER_PARK;
		break;
	case 0x84000000: /* PSCI_VERSION */
		*x0 = 0x10001;
		break;
	case 0xc400002b: /* PE_MASK: the bench guest was unmasked */
		*x0 = 1;
		break;
	case 0xc4000028: /* EVENT_STATUS */
		*x0 = 3;
		break;
	default:
		*x0 = 0;
	}
}

static int answer(unsigned int cpu, uint64_t s, char **args)
{
	volatile uint64_t *frame = frame_of(cpu);

	switch (frame[WORD(F_KIND)]) {
	case KIND_SMC:
		call(cpu, frame);
		break;
	case KIND_KICK:
		frame[WORD(F_FLAGS)] = 0;
		if (off[cpu]) {
			off[cpu] = 0;
			start(frame, start_pc[cpu], start_x0[cpu], 0);
		} else if (pending[cpu]) {
			deliver(cpu, frame);
		}
		break;
	case KIND_RESET:
		if (cpu == 0) {
			start(frame, strtoull(args[5], 0, 0), strtoull(args[6], 0, 0), strtoull(args[7], 0, 0));
		} else {
			off[cpu] = 1;
			frame[WORD(F_FLAGS)] = ANSWER_PARK;
		}
		break;
	default:
		fprintf(stderr, "floor: frame of kind %lu\n", frame[WORD(F_KIND)]);
		return 0;
	}
	atomic_thread_fence(memory_order_release);
	*(volatile _Atomic uint64_t *)&frame[WORD(F_ACK)] = s;
	return 1;
}

static int compare(const void *a, const void *b)
{
	return *(const uint64_t *)a < *(const uint64_t *)b ? -1 : *(const uint64_t *)a > *(const uint64_t *)b;
}

static void report(const char *name, uint64_t *values, unsigned int n)
{
	qsort(values, n, sizeof(*values), compare);
	printf("%s median_ns=%lu p99_ns=%lu\n", name, values[n / 2], values[n * 99 / 100]);
}

int main(int argc, char **args)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	unsigned int nr_cpus, quiet = 0;
	struct pollfd fd;
	char bytes[256];
	int file;

	if (argc != 9)
		return 2;
	file = open(args[1], O_RDWR);
	window = mmap(0, W_WINDOW_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)strtoull(args[2], 0, 0));
	if (window == MAP_FAILED)
		return 1;
	window[WORD(H_MAGIC)] = W_MAGIC;
	window[WORD(H_VERSION)] = W_VERSION; /* the monitor looks at it after a reset */
	seq = (volatile _Atomic uint64_t *)(window + W_SEQ_OFFSET / 8);
	nr_cpus = (unsigned int)atoi(args[3]);
	injections = (unsigned int)atoi(args[8]);
	entry_ns = calloc(injections + 1, 8);
	complete_ns = calloc(injections + 1, 8);
	doorbell = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, args[4], sizeof(address.sun_path) - 1);
	if (connect(doorbell, (struct sockaddr *)&address, sizeof(address)))
		return 1;
	fd = (struct pollfd){ .fd = doorbell, .events = POLLIN };
	for (;;) {
		int news = 0;

		for (unsigned int cpu = 0; cpu < nr_cpus; cpu++) {
			uint64_t s = atomic_load_explicit(&seq[cpu], memory_order_acquire);

			if (s != seen[cpu]) {
				seen[cpu] = s;
				news = 1;
				if (!answer(cpu, s, args))
					return 1;
			}
		}
		if (news) {
			quiet = 0;
			continue;
		}
		if (completed == injections && injections) {
			report("inject_entry", entry_ns, injections);
			report("inject_complete", complete_ns, injections);
			return 0;
		}
		if (++quiet < SPIN)
			continue;
		if (injected_at && quiet < SPIN + KICK_SPIN) {
			sched_yield();
			continue;
		}
		((volatile _Atomic uint64_t *)window)[WORD(H_POLL)] = 0;
		atomic_thread_fence(memory_order_seq_cst);
		quiet = 0;
		for (unsigned int cpu = 0; cpu < nr_cpus; cpu++)
			if (atomic_load(&seq[cpu]) != seen[cpu])
				quiet = SPIN + 1;
		if (quiet > SPIN)
			goto again;
		if (injections && enabled[nr_cpus - 1] && !injected_at && injected < injections) {
			/* The guest has had a while to fall asleep. */
			usleep(2000);
			injected++;
			injected_at = now();
			pending[nr_cpus - 1] = 1;
			kick(nr_cpus - 1);
		}
		/* A limit: QEMU may not have accepted us yet when the guest rang. */
		poll(&fd, 1, 100);
		if (fd.revents & POLLIN && read(doorbell, bytes, sizeof(bytes)) <= 0)
			return 0;
again:
		((volatile _Atomic uint64_t *)window)[WORD(H_POLL)] = 1;
		quiet = 0;
	}
}
