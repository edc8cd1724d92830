/*
 * What agent and host say to each other by a virtio serial port: frames, little endian, as
 * qemu_sdei/guest/exec_frames.py has them, whose comments say what each is for. A test compares both.
 */
#ifndef AGENT_PROTOCOL_H
#define AGENT_PROTOCOL_H

#include <stdint.h>

#define VERSION 1
#define MAGIC 0x31585351u	/* QSX1 */
#define TRAILER 0x21464f45u	/* no frame that is cut off ends with it: zeroes follow that one */
#define MOST_IN 4096		/* bytes of a payload from the host */
#define MOST_OUT 16384		/* and to it */
#define WINDOW_IN 65536		/* bytes of a stream that may be on their way, or wait for the program */
#define WINDOW_OUT 131072	/* and to the host */
#define MOST_COMMAND 65536
#define SESSION 16		/* bytes of a session's name */

enum type {
	HELLO = 1, WELCOME = 2, READY = 3, START = 4, DATA = 5, ACK = 6, END = 7, EXIT = 8, DONE = 9, SIZE = 10, SIGNAL = 11,
	CLOSE = 12, PING = 13, PONG = 14, FAIL = 15,
};
enum stream { INPUT = 0, OUTPUT = 1, ERRORS = 2, COMMAND = 3 };
enum state { IDLE = 0, RUNS = 1, WAITS = 2, GONE = 3 };
enum flags { TERMINAL = 1 };

struct frame {
	uint32_t magic;
	uint8_t type, stream;
	uint16_t zero;
	uint32_t length, zero_too;
	uint64_t position;
};

struct hello {
	uint8_t session[SESSION];
	uint64_t output, errors;	/* positions up to which the host has them */
	uint32_t version, zero;
};

struct welcome {
	uint8_t session[SESSION];
	uint64_t input;			/* position up to which the agent has it */
	uint32_t version, state;
};

struct start {
	uint16_t rows, columns;
	uint32_t flags, command;	/* bytes of the command */
};

struct totals {
	uint64_t output, errors;
};

#endif
