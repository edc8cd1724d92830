/*
 * Runs commands for the host, whose bytes are their own: standard input, output and error as three streams, and the exit
 * status, by a port of a virtio serial card. A program for Linux without a C library, of our own initramfs.
 *
 *     agent serve PORT		commands that the host sends, one after the other, for ever
 *     agent run PORT WORD ...	this command, once; the agent's exit status is its own
 *
 * One process serves one port, and one session at a time. A host that hangs up may come back, also as another QEMU: a
 * guest that migrates takes this process along, with all that the host has not acknowledged. What does not come back
 * within a while has its command ended; that of `run` goes on, and what it prints goes to the console.
 */
#include "session.h"

enum { ALONE = 10000, GRACE = 2000, IDLE_LOOK = 10000, LOOK = 500 };	/* ms */
enum { HEAD = sizeof(struct frame), TAIL = 4, FILLER = HEAD + MOST_OUT + TAIL };

static struct {
	int fd;
	bool connected, greeted, hunting, said_ready;
	uint8_t in[HEAD + MOST_IN + TAIL];
	size_t have;
	uint8_t out[FILLER + HEAD + MOST_OUT + TAIL];
	size_t length, written;
	bool pong, welcome, fail;
	uint32_t state;
	uint64_t pinged;
	uint8_t asked[SESSION];		/* the session that the host wants */
} port;

static char *const *main_argv, *const *environment;
static int64_t begun;

/* What goes to the host */

static void frame(enum type type, enum stream stream, uint64_t position, const void *payload, uint32_t length)
{
	const struct frame head = { MAGIC, type, stream, 0, length, 0, position };
	const uint32_t trailer = TRAILER;

	memcpy(port.out + port.length, &head, HEAD);
	memcpy(port.out + port.length + HEAD, payload, length);
	memcpy(port.out + port.length + HEAD + length, &trailer, TAIL);
	port.length += HEAD + length + TAIL;
}

/* The next piece of a stream; false: there is none. */
static bool data(struct output *output, enum stream stream)
{
	uint8_t *payload = port.out + HEAD;
	size_t at = output->sent % WINDOW_OUT, size = output->taken - output->sent;
	const struct frame head = { MAGIC, DATA, stream, 0, 0, 0, output->sent };
	const uint32_t trailer = TRAILER;
	struct frame with_length = head;

	if (!size)
		return false;
	if (size > MOST_OUT)
		size = MOST_OUT;
	if (size > WINDOW_OUT - at)
		size = WINDOW_OUT - at;
	with_length.length = (uint32_t)size;
	memcpy(port.out, &with_length, HEAD);
	memcpy(payload, output->ring + at, size);
	memcpy(payload + size, &trailer, TAIL);
	port.length = HEAD + size + TAIL;
	output->sent += size;
	return true;
}

static bool all_sent(void)
{
	return session.output.fd < 0 && session.errors.fd < 0 && session.output.sent == session.output.taken &&
	       session.errors.sent == session.errors.taken;
}

/* Compose what is to be sent next; false: nothing is. */
static bool compose(void)
{
	static const char refused[] = "the command cannot be started there";
	struct welcome welcome = { .version = VERSION };

	port.length = port.written = 0;
	if (port.welcome) {
		port.welcome = false;
		memcpy(welcome.session, port.asked, SESSION);
		welcome.state = port.state;
		welcome.input = session.there ? session.input.taken : 0;
		frame(WELCOME, 0, 0, &welcome, sizeof(welcome));
		return true;
	}
	if (!port.greeted)
		return false;
	if (port.pong) {
		port.pong = false;
		frame(PONG, 0, port.pinged, NULL, 0);
		return true;
	}
	if (port.fail) {
		port.fail = false;
		frame(FAIL, 0, 0, refused, sizeof(refused) - 1);
		return true;
	}
	if (!session.there || session.orphan)
		return false;
	if (session.input.told != session.input.given) {
		session.input.told = session.input.given;
		frame(ACK, INPUT, session.input.told, NULL, 0);
		return true;
	}
	/* Errors first: they are few, and who waits for them should not wait behind a flood. */
	if (data(&session.errors, ERRORS) || data(&session.output, OUTPUT))
		return true;
	if (session.exited && !session.told && all_sent()) {
		const struct totals totals = { session.output.taken, session.errors.taken };

		session.told = true;
		frame(EXIT, 0, (uint64_t)session.status, &totals, sizeof(totals));
		return true;
	}
	return false;
}

static void send(void)
{
	while (port.written < port.length || compose()) {
		long done = write_fd(port.fd, port.out + port.written, port.length - port.written);

		if (done <= 0)
			return;
		port.written += (size_t)done;
	}
}

/* What comes from the host */

static void hello(const struct hello *wanted)
{
	struct output *output = &session.output, *errors = &session.errors;

	port.greeted = port.welcome = true;
	port.pong = port.fail = false;
	memcpy(port.asked, wanted->session, SESSION);
	if (wanted->version != VERSION) {
		port.state = GONE;
		return;
	}
	if (session.there && !memcmp(session.name, wanted->session, SESSION)) {
		bool known = wanted->output >= output->acknowledged && wanted->output <= output->taken &&
			     wanted->errors >= errors->acknowledged && wanted->errors <= errors->taken;

		if (session.orphan || !known) {
			port.state = GONE;
			return;
		}
		output->sent = output->acknowledged = wanted->output;
		errors->sent = errors->acknowledged = wanted->errors;
		session.input.told = session.input.given - 1;	/* tell it once more */
		session.told = false;
		session.alone = 0;
		port.state = session.started ? RUNS : WAITS;
		return;
	}
	if (main_argv && session.there && session.started) {
		port.state = GONE;	/* it is another's, and is not ended for this one */
		return;
	}
	session_begin(wanted->session);
	port.state = main_argv ? WAITS : IDLE;
}

static void start(const struct start *how)
{
	if (!session.there || session.started)
		return;
	if (!main_argv && (!how->command || how->command != session.command_length)) {
		port.fail = true;
		return;
	}
	if (session_start(main_argv, environment, how) < 0)
		port.fail = true;
}

static void acknowledged(struct output *output, uint64_t position)
{
	if (position > output->acknowledged && position <= output->sent)
		output->acknowledged = position;
}

static void command(uint64_t position, const uint8_t *text, uint32_t length)
{
	if (session.started || position != session.command_length || length > MOST_COMMAND - session.command_length)
		return;
	memcpy(session.command + session.command_length, text, length);
	session.command_length += length;
}

static void obey(const struct frame *head, const uint8_t *payload)
{
	if (head->type == HELLO) {
		if (head->length == sizeof(struct hello))
			hello((const struct hello *)(const void *)payload);
		return;
	}
	if (head->type == PING) {
		port.pong = true;
		port.pinged = head->position;
		return;
	}
	if (!session.there || memcmp(session.name, port.asked, SESSION))
		return;
	switch (head->type) {
	case START:
		if (head->length == sizeof(struct start))
			start((const struct start *)(const void *)payload);
		break;
	case DATA:
		if (head->stream == COMMAND)
			command(head->position, payload, head->length);
		else if (head->stream == INPUT && !session_input(head->position, payload, head->length))
			session.killed = session.killed ? session.killed : now();
		break;
	case END:
		if (head->position == session.input.taken)
			session.input.ends = true;
		break;
	case ACK:
		acknowledged(head->stream == ERRORS ? &session.errors : &session.output, head->position);
		break;
	case SIZE:
		if (head->length == 2 * sizeof(uint16_t)) {
			struct winsize size = { 0, 0, 0, 0 };

			memcpy(&size, payload, head->length);
			session_size(&size);
		}
		break;
	case SIGNAL:
		if (head->position && head->position < 32)
			session_signal((int)head->position);
		break;
	case CLOSE:
		if (!session.killed) {
			session_signal(SIGHUP);
			session.killed = now();
		}
		break;
	case DONE:
		if (session.exited) {
			int status = session.status;

			session_end();
			if (main_argv)
				end(status);
		}
		break;
	}
}

/* Bytes that one frame at the start of `in` takes; 0: it is not all there; -1: there is none. */
static long whole(const uint8_t *in, size_t have, struct frame *head)
{
	uint32_t trailer;

	if (have < HEAD)
		return 0;
	memcpy(head, in, HEAD);
	if (head->magic != MAGIC || head->length > MOST_IN || (port.hunting && head->type != HELLO))
		return -1;
	if (have < HEAD + head->length + TAIL)
		return 0;
	memcpy(&trailer, in + HEAD + head->length, TAIL);
	return trailer == TRAILER ? (long)(HEAD + head->length + TAIL) : -1;
}

static void receive(void)
{
	static uint64_t payload[MOST_IN / 8];	/* aligned */
	struct frame head;

	for (;;) {
		long got = read_fd(port.fd, port.in + port.have, sizeof(port.in) - port.have), size;
		size_t at = 0;

		if (got <= 0)
			return;
		port.have += (size_t)got;
		while (at < port.have) {
			size = whole(port.in + at, port.have - at, &head);
			if (!size)
				break;
			if (size < 0) {
				/* What somebody who has hung up had begun to say; or zeroes before a HELLO. */
				port.hunting = true;
				do
					at++;
				while (at < port.have && port.in[at] != (MAGIC & 0xff));
				continue;
			}
			port.hunting = false;
			memcpy(payload, port.in + at + HEAD, head.length);
			at += (size_t)size;
			obey(&head, (const uint8_t *)payload);
		}
		memmove(port.in, port.in + at, port.have - at);
		port.have -= at;
	}
}

/* Who is there */

static void look_at_host(void)
{
	struct pollfd look = { port.fd, POLLOUT, 0 };
	const struct timespec none = { 0, 0 };
	bool connected;

	/* A change that comes from now on is a signal, and ends the wait. */
	call(SYS_FCNTL, port.fd, F_SETFL, O_NONBLOCK | (port.connected ? 0 : O_ASYNC));
	call(SYS_PPOLL, (long)&look, 1, (long)&none, 0, 8);
	connected = !(look.revents & POLLHUP);
	if (connected == port.connected)
		return;
	port.connected = connected;
	port.greeted = false;
	port.welcome = port.pong = port.fail = false;
	port.length = port.written = 0;
	port.have = 0;
	port.hunting = true;
	if (!connected) {
		if (session.there)
			session.alone = now();
		look_at_host();		/* with the signal on */
		return;
	}
	call(SYS_FCNTL, port.fd, F_SETFL, O_NONBLOCK);
	if (!port.said_ready) {
		/* Of a host that was there before a reset, half a frame may be on its way to it: zeroes end that. */
		port.said_ready = true;
		memset(port.out, 0, FILLER);
		port.length = FILLER;
		frame(READY, 0, VERSION, NULL, 0);
	}
}

/* Time */

static void look_at_clock(void)
{
	int64_t time = now();

	if (session.there && session.alone && time - session.alone > ALONE) {
		if (main_argv && session.started) {
			if (!session.orphan) {
				session.orphan = true;
				session.input.ends = true;
			}
		} else if (!session.killed) {
			session_signal(SIGHUP);
			session.killed = time;
		}
	}
	if (session.there && session.killed && time - session.killed > GRACE) {
		session_signal(SIGKILL);
		if (session.alone && !main_argv && (session.exited || !session.started))
			session_end();
	}
	/* Nobody has come for the command: it runs all the same, as without a port. */
	if (main_argv && !session.started && time - begun > ALONE && (!session.there || session.alone)) {
		static const uint8_t nobody[SESSION];
		const struct start how = { 0, 0, 0, 0 };

		session_begin(nobody);
		session.orphan = session.input.ends = true;
		if (session_start(main_argv, environment, &how) < 0)
			end(126);
	}
}

static void finish(struct output *output)
{
	session_take(output);
	/* What it wrote before its end was there; who has the pipe still is a program that it left behind. */
	if (session.exited && output->fd >= 0 && output->taken - output->acknowledged < WINDOW_OUT)
		close_fd(&output->fd);
}

static void on_signal(int signal, struct siginfo *info, void *context)
{
	(void)signal;
	(void)info;
	(void)context;
}

static void signals(void)
{
	const struct sigaction handler = { on_signal, 0, NULL, 0 }, ignored = { (void (*)(int, struct siginfo *, void *))1 /* SIG_IGN */, 0, NULL, 0 };
	const uint64_t blocked = 1ull << (SIGCHLD - 1) | 1ull << (SIGIO - 1);

	call(SYS_SIGACTION, SIGCHLD, (long)&handler, 0, 8);
	call(SYS_SIGACTION, SIGIO, (long)&handler, 0, 8);
	call(SYS_SIGACTION, SIGPIPE, (long)&ignored, 0, 8);
	call(SYS_SIGPROCMASK, SIG_SETMASK, (long)&blocked, 0, 8);
}

static void loop(void)
{
	const uint64_t none = 0;

	for (;;) {
		struct pollfd fds[4];
		struct timespec wait;
		int count = 0, ms;
		bool exited;

		look_at_host();
		if (port.connected)
			receive();
		session_reap();
		exited = session.exited;
		look_at_clock();
		if (session.there && session.started) {
			session_give();
			finish(&session.output);
			finish(&session.errors);
			if (session.orphan && exited && main_argv && session.output.fd < 0 && session.errors.fd < 0)
				end(session.status);
		}
		if (port.connected)
			send();

		if (port.connected)
			fds[count++] = (struct pollfd){ port.fd, POLLIN | (port.written < port.length ? POLLOUT : 0), 0 };
		if (session.there && session.started) {
			if (session.input.fd >= 0 && (session.input.given < session.input.taken || session.input.ends))
				fds[count++] = (struct pollfd){ session.input.fd, POLLOUT, 0 };
			if (session.output.fd >= 0 && session.output.taken - session.output.acknowledged < WINDOW_OUT)
				fds[count++] = (struct pollfd){ session.output.fd, POLLIN, 0 };
			if (session.errors.fd >= 0 && session.errors.taken - session.errors.acknowledged < WINDOW_OUT)
				fds[count++] = (struct pollfd){ session.errors.fd, POLLIN, 0 };
		}
		ms = session.killed || session.alone || (main_argv && !session.started) ? LOOK : IDLE_LOOK;
		wait.seconds = ms / 1000;
		wait.nanoseconds = ms % 1000 * 1000000;
		call(SYS_PPOLL, (long)fds, count, (long)&wait, (long)&none, 8);
	}
}

long program(uint64_t *stack)
{
	char *const *argv = (char *const *)(stack + 1);
	long count = (long)stack[0], fd;

	if (count < 3)
		end(2);
	environment = argv + count + 1;
	if (argv[1][0] == 'r') {
		if (count < 4)
			end(2);
		main_argv = argv + 3;
	}
	fd = call(SYS_OPENAT, AT_FDCWD, (long)argv[2], O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		end(125);
	port.fd = (int)fd;
	call(SYS_FCNTL, fd, F_SETOWN, call(SYS_GETPID));
	port.hunting = true;
	begun = now();
	signals();
	loop();
	return 0;
}
