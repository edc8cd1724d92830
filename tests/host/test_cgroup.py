"""Memory that control groups leave: versions 1 and 2, nested, unlimited, as a container sees it, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.host import cgroup

V2 = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MIB = 1 << 20


def host(root: Path, mounts: str, groups: str, **files: str) -> Path:
    """A root directory with these files; in names `__` is a slash."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2(tmp_path: Path) -> None:
    """The tightest level counts; what can be dropped of the page cache is free."""
    host(
        tmp_path, V2, "0::/user/app\n",
        user__memory_dot_max=f"{800 * MIB}\n", user__memory_dot_current=f"{300 * MIB}\n",
        user__memory_dot_stat=f"anon 5\ninactive_file {100 * MIB}\n",
        user__app__memory_dot_max="max\n", user__app__memory_dot_current=f"{200 * MIB}\n",
    )  # fmt: skip
    assert cgroup.available(tmp_path) == 600 * MIB


def test_version_1(tmp_path: Path) -> None:
    host(
        tmp_path, V1, "5:cpu,cpuacct:/\n4:memory:/job\n",
        memory__memory_dot_limit_in_bytes="9223372036854771712\n", memory__memory_dot_usage_in_bytes="4096\n",
        memory__job__memory_dot_limit_in_bytes=f"{64 * MIB}\n", memory__job__memory_dot_usage_in_bytes=f"{60 * MIB}\n",
    )  # fmt: skip
    assert cgroup.available(tmp_path) == 4 * MIB


def test_in_a_container_the_path_is_the_hosts(tmp_path: Path) -> None:
    host(
        tmp_path, V2, "0::/docker/0123\n",
        memory_dot_max=f"{512 * MIB}\n", memory_dot_current=f"{12 * MIB}\n", memory_dot_stat="inactive_file 0\n",
    )  # fmt: skip
    assert cgroup.available(tmp_path) == 500 * MIB


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    host(tmp_path, V2, "0::/\n", memory_dot_max="4096\n", memory_dot_current="8192\n")
    assert cgroup.available(tmp_path) == 0


@pytest.mark.parametrize("groups", ["", "0::/\n", "garbage\n", "4:memory:/x\n", "\0\xff:::\n"])
@pytest.mark.parametrize("mounts", ["", V1 + V2, "- - -\n", "a b c\n"])
def test_no_limit_to_be_seen(tmp_path: Path, groups: str, mounts: str) -> None:
    host(tmp_path, mounts, groups, memory_dot_max="max\n", memory_dot_current="x\n")
    assert cgroup.available(tmp_path) is None


def test_this_host() -> None:
    room = cgroup.available()
    assert room is None or room > 0
