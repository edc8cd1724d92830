#include "session.h"

struct session session;

enum { READ = 0, WRITE = 1 };

int64_t now(void)
{
	struct timespec time;

	call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&time);
	return time.seconds * 1000 + time.nanoseconds / 1000000 + 1;
}

void session_begin(const uint8_t *name)
{
	session_end();
	memcpy(session.name, name, SESSION);
	session.there = true;
	session.started = session.exited = session.told = session.terminal = session.orphan = false;
	session.pid = 0;
	session.alone = session.killed = 0;
	session.command_length = 0;
	session.input.taken = session.input.given = session.input.told = 0;
	session.input.ends = false;
	session.output.taken = session.output.sent = session.output.acknowledged = 0;
	session.errors.taken = session.errors.sent = session.errors.acknowledged = 0;
	session.input.fd = session.output.fd = session.errors.fd = -1;
}

/* The child: never returns. */
static void become(char *const *argv, char *const *environment, const int fds[3], bool terminal)
{
	static const char cannot[] = "qemu-sdei: the program cannot be started\n";
	const struct sigaction ordinary = { NULL, 0, NULL, 0 };
	const uint64_t none = 0;
	int fd;

	call(SYS_SETSID);
	for (fd = 0; fd < 3; fd++)
		call(SYS_DUP3, fds[fd], fd);
	if (terminal)
		call(SYS_IOCTL, 0, TIOCSCTTY);
	/* Also SIGINT and SIGQUIT: a shell without job control ignores them for what it starts by "&", as it did us. */
	for (fd = 1; fd < 32; fd++)
		call(SYS_SIGACTION, fd, (long)&ordinary, 0, 8);
	call(SYS_SIGPROCMASK, SIG_SETMASK, (long)&none, 0, 8);
	call(SYS_EXECVE, (long)argv[0], (long)argv, (long)environment);
	write_fd(2, cannot, sizeof(cannot) - 1);
	call(SYS_EXIT_GROUP, 126);
	__builtin_unreachable();
}

static void unblocked(int fd)
{
	call(SYS_FCNTL, fd, F_SETFL, O_NONBLOCK);
}

/* A terminal of its own: the master in *master, the other end returned; or an error. */
static long open_terminal(int *master, const struct start *how)
{
	const struct winsize size = { how->rows, how->columns, 0, 0 };
	char path[24] = "/dev/pts/";
	uint32_t number = 0, open = 0, digit;
	char *at = path + 9;
	long fd = call(SYS_OPENAT, AT_FDCWD, (long)"/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return fd;
	*master = (int)fd;
	call(SYS_IOCTL, fd, TIOCSPTLCK, (long)&open);
	call(SYS_IOCTL, fd, TIOCGPTN, (long)&number);
	for (digit = 1; number / digit >= 10; digit *= 10)
		;
	for (; digit; digit /= 10)
		*at++ = (char)('0' + number / digit % 10);
	if (size.rows && size.columns)
		call(SYS_IOCTL, fd, TIOCSWINSZ, (long)&size);
	return call(SYS_OPENAT, AT_FDCWD, (long)path, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

long session_start(char *const *argv, char *const *environment, const struct start *how)
{
	static char shell[] = "/bin/sh", run[] = "-c";
	char *words[] = { shell, run, session.command, NULL };
	int pipes[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } }, fds[3], other = -1, n;
	long result = 0;

	session.terminal = how->flags & TERMINAL;
	if (session.terminal) {
		result = open_terminal(&session.output.fd, how);
		if (result < 0) {
			close_fd(&session.output.fd);
			return result;
		}
		other = fds[0] = fds[1] = fds[2] = (int)result;
		/* Another descriptor of it, so that each stream has its own. */
		session.input.fd = (int)call(SYS_FCNTL, session.output.fd, 1030 /* F_DUPFD_CLOEXEC */);
	} else {
		for (n = 0; n < 3 && result >= 0; n++)
			result = call(SYS_PIPE2, (long)pipes[n], O_CLOEXEC);
		if (result < 0)
			goto out;
		fds[0] = pipes[0][READ];
		fds[1] = pipes[1][WRITE];
		fds[2] = pipes[2][WRITE];
		session.input.fd = pipes[0][WRITE];
		session.output.fd = pipes[1][READ];
		session.errors.fd = pipes[2][READ];
		pipes[0][WRITE] = pipes[1][READ] = pipes[2][READ] = -1;
	}
	session.command[session.command_length] = 0;
	result = call(SYS_CLONE, SIGCHLD);
	if (!result)
		become(argv ? argv : words, environment, fds, session.terminal);
	if (result > 0) {
		session.pid = result;
		session.started = true;
		unblocked(session.input.fd);
		unblocked(session.output.fd);
		if (session.errors.fd >= 0)
			unblocked(session.errors.fd);
	}
out:
	close_fd(&other);
	for (n = 0; n < 3; n++) {
		close_fd(&pipes[n][READ]);
		close_fd(&pipes[n][WRITE]);
	}
	if (result < 0) {
		close_fd(&session.input.fd);
		close_fd(&session.output.fd);
		close_fd(&session.errors.fd);
	}
	return result < 0 ? result : 0;
}

bool session_input(uint64_t position, const uint8_t *data, uint32_t length)
{
	struct input *input = &session.input;
	uint32_t n;

	/* What was sent once more after a migration may be here already. */
	if (position > input->taken || input->ends)
		return false;
	if (position + length <= input->taken)
		return true;
	n = (uint32_t)(input->taken - position);
	data += n;
	length -= n;
	if (input->taken + length - input->given > WINDOW_IN)
		return false;
	for (n = 0; n < length; n++)
		input->ring[(input->taken + n) % WINDOW_IN] = data[n];
	input->taken += length;
	return true;
}

void session_give(void)
{
	struct input *input = &session.input;
	static const uint8_t end_of_file = 4;

	while (input->fd >= 0 && input->given < input->taken) {
		size_t at = input->given % WINDOW_IN, size = input->taken - input->given;
		long done;

		if (size > WINDOW_IN - at)
			size = WINDOW_IN - at;
		done = write_fd(input->fd, input->ring + at, size);
		if (done == -EAGAIN || done == -EINTR)
			return;
		if (done < 0)
			close_fd(&input->fd);
		else
			input->given += (uint64_t)done;
	}
	if (input->fd < 0)
		input->given = input->taken;	/* nobody reads it */
	else if (input->ends) {
		if (session.terminal && write_fd(input->fd, &end_of_file, 1) == -EAGAIN)
			return;
		close_fd(&input->fd);
	}
}

static void to_console(const uint8_t *data, size_t size)
{
	while (size) {
		long done = write_fd(1, data, size);

		if (done == -EINTR || done == -EAGAIN)
			continue;
		if (done <= 0)
			return;
		data += done;
		size -= (size_t)done;
	}
}

static void show_rest(struct output *output)
{
	while (output->acknowledged < output->taken) {
		size_t at = output->acknowledged % WINDOW_OUT, size = output->taken - output->acknowledged;

		if (size > WINDOW_OUT - at)
			size = WINDOW_OUT - at;
		to_console(output->ring + at, size);
		output->acknowledged += size;
	}
	output->sent = output->taken;
}

void session_take(struct output *output)
{
	while (output->fd >= 0) {
		size_t at = output->taken % WINDOW_OUT, room = WINDOW_OUT - (output->taken - output->acknowledged);
		long got;

		if (session.orphan) {
			show_rest(output);
			room = WINDOW_OUT;
		}
		if (!room)
			return;
		if (room > WINDOW_OUT - at)
			room = WINDOW_OUT - at;
		got = read_fd(output->fd, output->ring + at, room);
		if (got == -EAGAIN || got == -EINTR)
			return;
		if (got <= 0)	/* -EIO: a terminal whose last program has gone */
			close_fd(&output->fd);
		else
			output->taken += (uint64_t)got;
		if (session.orphan)
			show_rest(output);
	}
}

void session_reap(void)
{
	int status = 0;

	if (!session.started || session.exited)
		return;
	if (call(SYS_WAIT4, session.pid, (long)&status, WNOHANG) != session.pid)
		return;
	session.status = status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
	session.exited = true;
	close_fd(&session.input.fd);
}

void session_size(const struct winsize *size)
{
	if (session.terminal && session.output.fd >= 0)
		call(SYS_IOCTL, session.output.fd, TIOCSWINSZ, (long)size);
}

void session_signal(int number)
{
	if (session.started && !session.exited)
		call(SYS_KILL, -session.pid, number);
}

void session_end(void)
{
	session_signal(SIGKILL);
	if (session.started && !session.exited)
		call(SYS_WAIT4, session.pid);
	if (session.there) {
		close_fd(&session.input.fd);
		close_fd(&session.output.fd);
		close_fd(&session.errors.fd);
	}
	session.there = false;
}
