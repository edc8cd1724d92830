/* One command: its process, and its streams as the host has got them. */
#ifndef AGENT_SESSION_H
#define AGENT_SESSION_H

#include "linux.h"
#include "protocol.h"

/* Output of the command: a ring of what the host has not acknowledged. */
struct output {
	uint8_t ring[WINDOW_OUT];
	uint64_t taken, sent, acknowledged;	/* positions: read from the command, sent, received by the host */
	int fd;					/* -1: nothing more comes */
};

/* Input of the command: a ring of what it has not read. */
struct input {
	uint8_t ring[WINDOW_IN];
	uint64_t taken, given, told;	/* positions: received, written to the command, acknowledged */
	int fd;				/* -1: it reads no more */
	bool ends;			/* nothing more comes */
};

struct session {
	uint8_t name[SESSION];
	bool there;			/* there is one */
	bool started, exited, told;	/* the command was; it has ended; the host was told so */
	bool terminal;
	bool orphan;			/* nobody listens any more: what it says goes to the console */
	long pid;
	int status;			/* as a shell has it */
	int64_t alone;			/* since when there is no host, in ms; 0: there is one */
	int64_t killed;			/* since when it is to end */
	struct input input;
	struct output output, errors;
	char command[MOST_COMMAND + 1];
	uint32_t command_length;
};

extern struct session session;

int64_t now(void);
/* A new one, without a command yet. */
void session_begin(const uint8_t *name);
/* Start the command. `argv`: NULL for a shell that runs session.command. 0, or an error. */
long session_start(char *const *argv, char *const *environment, const struct start *how);
/* What was received of the input; false: it cannot be. */
bool session_input(uint64_t position, const uint8_t *data, uint32_t length);
/* Give the command what it has room for. */
void session_give(void);
/* Take from the command what there is room for. */
void session_take(struct output *output);
/* See whether the command has ended. */
void session_reap(void);
void session_size(const struct winsize *size);
void session_signal(int number);
/* The end of it, whatever it is doing. */
void session_end(void);

#endif
