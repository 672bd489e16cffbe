"""Figures of running processes and of the machine, as the kernel counts them."""

from __future__ import annotations

import os
import platform
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its ended threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_bytes(pid: int, key: str = "VmRSS") -> int:
    """Resident memory: `VmRSS` is what it is, `VmHWM` the most it has been."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {key} of process {pid}")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, ()))
    return found


def family_cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that descend from it and run."""
    total = 0.0
    for member in family(pid):
        try:
            total += cpu_seconds(member)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def family_memory_bytes(pid: int) -> int:
    """Sum of the peaks of a process and its descendants."""
    total = 0
    for member in family(pid):
        try:
            total += memory_bytes(member, "VmHWM")
        except (FileNotFoundError, ProcessLookupError, SystemExit):
            continue
    return total


def machine_busy_seconds() -> float:
    """CPU time that all processes of the machine used since it started, and what was stolen from it."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICKS


@dataclass
class Others:
    """How much of the machine processes took that have no part in a measurement."""

    busy: float
    begun: float

    @classmethod
    def begin(cls) -> Others:
        """From this moment on."""
        return cls(machine_busy_seconds(), time.monotonic())

    def cores(self, ours: float) -> float:
        """Cores in use on average beside `ours`, the CPU-seconds of what is measured."""
        busy = machine_busy_seconds() - self.busy
        return max(0.0, busy - ours) / (time.monotonic() - self.begun)


def machine() -> dict:
    """What it ran on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.release()}",
    }


class Sampler:
    """Calls a function every so often in a thread until it is stopped."""

    def __init__(self, function, seconds: float):
        self.function = function
        self.seconds = seconds
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        """Until stopped."""
        while not self.stopped.wait(self.seconds):
            self.function()

    def __enter__(self) -> Sampler:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
