"""The file of a machine's parameters, and what is measured without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from backsweep.comm import serial
from backsweep.errors import MachineError
from backsweep.runtime.calibrate import cache_bytes, measure_machine, partners
from backsweep.runtime.machine import PARAMETERS, Machine, Measured, StepRates


def test_what_is_written_is_read(tmp_path: Path) -> None:
    machine = Machine(cores=48, bandwidth=1e9 / 3, assumed=("network_seconds", "job_hours"))
    given = Measured(machine, (StepRates(1e-11, 2.5e-11), StepRates(0.0, 1 / 7)))
    path = tmp_path / "machine.toml"
    given.write(path)
    assert Measured.read(path) == given


def test_what_is_left_out_is_assumed(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text("[machine]\ncores = 8\n")
    found = Measured.read(path)
    assert found.machine.cores == 8 and found.steps == ()
    assert set(found.machine.assumed) == set(PARAMETERS) - {"cores"}
    rows = dict(found.machine.rows())
    assert rows["cores"] == "8"
    assert rows["network seconds"] == "1.5 us (assumed)"
    assert rows["network bandwidth"] == "12.5 GB/s (assumed)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[machine", "no valid TOML"),
        ("[machine]\ncore = 8", "machine.core is not known; did you mean 'cores'"),
        ("[machine]\ncores = 0", "cores = 0: a number above 0"),
        ("[machine]\nbandwidth = -1.0", "bandwidth = -1.0: a number above 0"),
        ("[machine]\nbandwidth = nan", "bandwidth = nan"),
        ("[machine]\nbandwidth = true", "bandwidth = True"),
        ("[machine]\nbandwidth = 'fast'", "bandwidth = 'fast'"),
        ("machine = 3", "are tables"),
        ("assumed = ['speed']\n[machine]", "assumed: 'speed'"),
        ("assumed = 3\n[machine]", "assumed is a list"),
        ("[[steps]]\nadvance = 1.0", "needs advance and reverse"),
        ("[[steps]]\nadvance = 1.0\nreverse = -1.0", "are seconds, not"),
        ("[computer]\ncores = 8", "computer is not known"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(text)
    with pytest.raises(MachineError) as caught:
        Measured.read(path)
    assert words in str(caught.value) and "machine.toml" in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be read: No such file"):
        Measured.read(tmp_path / "none.toml")
    with pytest.raises(MachineError, match="cannot be written: No such file"):
        Measured().write(tmp_path / "none" / "machine.toml")


def test_ranks_find_partners_within_a_node_and_between_nodes() -> None:
    hosts = ["a", "a", "a", "b", "b", "b"]
    assert partners(hosts, is_far=False) == [1, 0, None, 4, 3, None]
    assert partners(hosts, is_far=True) == [3, 4, 5, 0, 1, 2]
    assert partners(["a", "a"], is_far=True) == [None, None]
    assert partners(["a", "b", "c"], is_far=True) == [1, 0, None]


def test_caches_that_cores_share_count_once(tmp_path: Path) -> None:
    for core, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3")):
        for index, size in ((0, "48K"), (3, "32M")):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            (folder / "size").write_text(size + "\n")
            (folder / "shared_cpu_list").write_text(shared + "\n")
    assert cache_bytes([0, 1], tmp_path) == 32 << 20
    assert cache_bytes([0, 1, 2], tmp_path) == 64 << 20
    assert cache_bytes([7], tmp_path) == 0


def test_one_rank_measures_all_but_messages(tmp_path: Path) -> None:
    found = measure_machine(serial(), tmp_path / "not" / "yet" / "made")
    assert set(found.assumed) == {
        "message_seconds", "waiting_seconds", "bandwidth", "stage_seconds", "object_seconds",
        "network_seconds", "network_bandwidth", "job_hours",
    }  # fmt: skip
    assert 1e8 < found.core_bandwidth <= found.node_bandwidth < 1e13
    assert 1e-6 < found.file_seconds < 0.1
    assert 10 < found.metadata_rate < 1e7
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MachineError, match="cannot be written to"):
        measure_machine(serial(), "/proc")
