import json
from pathlib import Path

from export.machine import cpu_quota, machine, usable_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_quota_of_cgroup_v2_is_the_smallest_up_to_the_root(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/container\n",
        "sys/fs/cgroup/pod/cpu.max": "150000 100000",
        "sys/fs/cgroup/pod/container/cpu.max": "max 100000",
    }
    assert cpu_quota(write(tmp_path, files)) == 1.5


def test_the_quota_of_cgroup_v1_is_read(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/box\n",
        "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert cpu_quota(write(tmp_path, files)) == 0.5


def test_less_than_one_core_still_leaves_one_thread(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000"})
    assert usable_cores(root) == 1


def test_the_machine_lists_only_the_flags_that_matter(tmp_path: Path) -> None:
    cpuinfo = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni mmx\n"
    facts = machine(write(tmp_path, {"proc/cpuinfo": cpuinfo, "proc/meminfo": "MemTotal: 2097152 kB\n"}))
    assert (facts["cpu"], facts["isa"], facts["memory_gib"]) == ("Some CPU", ["avx2", "avx512_vnni"], 2.0)


def test_a_machine_that_tells_nothing_is_described_without_failing(tmp_path: Path) -> None:
    facts = machine(tmp_path)
    assert (facts["isa"], facts["memory_gib"], facts["quota_cores"]) == ([], None, None)
    assert json.dumps(facts)
