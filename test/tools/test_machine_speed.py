"""tools/machine_speed.py: how long a run takes follows from its work and the machine."""

from __future__ import annotations

import importlib.util
import multiprocessing
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "tools/machine_speed.py"
spec = importlib.util.spec_from_file_location("machine_speed", PATH)
machine_speed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(machine_speed)

# Processes inherit it.
HAS_FORK = "fork" in multiprocessing.get_all_start_methods()
BARRIER = multiprocessing.get_context("fork").Barrier(2) if HAS_FORK else None


@pytest.mark.parametrize(
    ("speed", "processes", "cores", "seconds"),
    [(100, 2, 2, 650), (50, 2, 2, 1150), (100, 2, 1, 1300), (100, 2, 8, 650), (100, 4, 8, 325)],
)
def test_work_and_the_fixed_part_are_shared_out(speed, processes, cores, seconds):
    assert machine_speed.run_time_s(100, 300, speed, processes, cores) == seconds


ROUNDED = [(44, "40 s"), (119, "120 s"), (130, "2 minutes"), (2500, "42 minutes")]


@pytest.mark.parametrize(("seconds", "words"), ROUNDED)
def test_times_are_told_as_exactly_as_they_are_foreseen(seconds, words):
    assert machine_speed.in_words(seconds) == words


def test_it_tells_the_machine_first_and_then_every_run(capsys, monkeypatch):
    monkeypatch.setattr(machine_speed, "core_speed", lambda: 103.4)
    monkeypatch.setattr(machine_speed, "slowness", lambda: 1.5)
    monkeypatch.setattr(machine_speed, "cores", lambda: 2)
    monkeypatch.setattr(machine_speed, "together", lambda measure, processes: measure())
    runs = ["--run", "all", "130", "200", "--run", "mini", "6.2", "40"]
    assert machine_speed.main(["--processes", "2", *runs]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "2 cores of 103 GFLOP/s"
    assert told[1] == "all will take about 13 minutes on the CPU"
    assert told[2] == "mini will take about 60 s on the CPU"


def test_the_speed_of_this_machine_is_measured(monkeypatch):
    monkeypatch.setattr(machine_speed, "LEAST_S", 0.01)
    assert 0.1 < machine_speed.core_speed() < 10000 and machine_speed.cores() >= 1
    assert 0.01 < machine_speed.slowness() < 100


def at_barrier() -> float:
    """Wait for the other process; returns 1 in one and 2 in the other."""
    return 1.0 + BARRIER.wait(timeout=60)


@pytest.mark.skipif(BARRIER is None, reason="processes are forked")
def test_processes_measure_at_the_same_time():
    """Each waits for the other: one after the other they would never end."""
    assert machine_speed.together(at_barrier, 2) == 1.5
