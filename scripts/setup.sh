# shellcheck shell=bash
# Sourced by scripts/demo, scripts/test and scripts/bench: set_up ROLE "$@"
#
# Installs what is missing by apt (as root or by sudo), and makes .venv with exactly the Python packages of
# requirements/ROLE.txt (run or test). When there is nothing to do it costs a few milliseconds.
# Without apt it says what is missing and ends with exit code 2; "$@" are the script's own arguments, because
# --qemu, --kernel and --busybox stand in for what apt would get.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '==> %s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  - %s\n' "$@" >&2
    exit 2
}

have() { command -v "$1" >/dev/null 2>&1; }

# The Python that .venv is made of: the system's own, so that an upgrade of a user's private one does not break it.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3; do
        if have "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# True if a venv can be made: Debian has ensurepip in a package of its own.
can_venv() { local python && python=$(find_python) && "$python" -c 'import ensurepip, venv' 2>/dev/null; }

has_option() {
    local wanted=$1 argument
    shift
    for argument in "$@"; do
        case $argument in "$wanted" | "$wanted"=*) return 0 ;; esac
    done
    return 1
}

have_cross_compiler() { [ -n "${QEMU_SDEI_CROSS:-}" ] || have aarch64-linux-gnu-gcc || { have clang && have ld.lld; }; }

# Debian packages of what is not here.
missing_packages() {
    have qemu-system-aarch64 || has_option --qemu "$@" || echo qemu-system-arm
    have_cross_compiler || echo gcc-aarch64-linux-gnu
    have make || echo make
    have dtc || echo device-tree-compiler
    have iasl || echo acpica-tools
    [ -x "$venv/bin/python" ] || can_venv || echo python3-venv
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        -o Acquire::Retries=3 "$@" >&2
}

install_packages() {
    have apt-get || fail "there is no apt here to install what is missing:" "$@"
    if [ "$(id -u)" -ne 0 ] && ! have sudo; then
        fail "Debian packages are missing, and there is neither root nor sudo here. As root, run:" \
            "apt-get install --no-install-recommends $*"
    fi
    say "installing by apt: $*"
    # The lists may be empty or old; they are only asked for anew when something cannot be had with them.
    if ! apt-cache show -- "$@" >/dev/null 2>&1; then
        say "getting apt's package lists"
        apt_get update || fail "apt-get update failed: see above"
        apt_get install --no-install-recommends "$@" || fail "apt-get install failed: see above"
    elif ! apt_get install --no-install-recommends "$@"; then
        say "trying again with new package lists"
        apt_get update || fail "apt-get update failed: see above"
        apt_get install --no-install-recommends "$@" || fail "apt-get install failed: see above"
    fi
}

# No apt: one message with all that a guest cannot do without and how to point to it. What only tests and builds
# need is left to them.
check_without_apt() {
    local missing=()
    have qemu-system-aarch64 || has_option --qemu "$@" ||
        missing+=("qemu-system-aarch64, 6.2 or newer: install QEMU, or point to it with --qemu PATH")
    # What was downloaded before, elsewhere, is as good.
    if [ "$role" = run ] && [ ! -e "${XDG_CACHE_HOME:-$HOME/.cache}/qemu-sdei/index.json" ]; then
        has_option --kernel "$@" || missing+=("an arm64 Linux kernel: point to an Image with --kernel PATH")
        has_option --busybox "$@" || missing+=("a static arm64 busybox: point to it with --busybox PATH")
    fi
    [ -x "$venv/bin/python" ] || can_venv || missing+=("Python 3.11 or newer with the modules venv and ensurepip")
    [ ${#missing[@]} -eq 0 ] || fail "there is no apt here to install what is missing:" "${missing[@]}" \
        "not needed: a cross compiler (a prebuilt EL3 monitor is part of the package)"
}

# A name for the state that .venv should be in.
wanted_state() {
    printf '%s ' "$root"
    cat "$root/requirements/$1.txt" "$root/pyproject.toml" | cksum
}

venv_is() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/set-up-$1" 2>/dev/null)" = "$(wanted_state "$1")" ]; }

make_venv() {
    local python
    # Another script may be doing the same: one after the other.
    exec 9<"$root"
    if have flock && ! flock -n 9; then
        say "waiting for another script that is setting up"
        flock -w 900 9 || fail "another script has been setting up for 15 minutes: end it and try again"
    fi
    if ! venv_is "$1"; then
        if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
            python=$(find_python) || fail "no Python 3.11 or newer is here"
            say "making .venv with $("$python" --version)"
            "$python" -m venv --clear "$venv" 9<&-
        fi
        say "installing Python packages: requirements/$1.txt"
        pip_install --only-binary :all: --require-hashes -r "$root/requirements/$1.txt"
        pip_install --no-index --no-deps --no-build-isolation -e "$root"
        wanted_state "$1" >"$venv/set-up-$1"
        # All of run.txt is in test.txt.
        [ "$1" = run ] || wanted_state run >"$venv/set-up-run"
    fi
    exec 9<&-
}

pip_install() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -q "$@" >&2 9<&- ||
        fail "pip failed: see above"
}

set_up() {
    local role=$1 packages=()
    shift
    if have apt-get; then
        mapfile -t packages < <(missing_packages "$@")
        [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
    else
        check_without_apt "$@"
    fi
    venv_is "$role" || make_venv "$role"
}
