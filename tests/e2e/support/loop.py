"""File systems on loop devices whose power is cut: what a real one leaves. Needs root and loop devices."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

# EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number: _IOR('X', 125, __u32).
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2

MEGABYTES = {"ext4": 256, "xfs": 320}


def why_not(kind: str) -> str | None:
    """Why no power can be cut here; `None` when it can."""
    if os.geteuid() != 0:
        return "power cuts need root, which mounts file systems"
    if not Path("/dev/loop-control").exists():
        return "power cuts need loop devices"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"there is no mkfs.{kind}"
    return None


class Loop:
    """A file system in a file."""

    def __init__(self, work: Path, kind: str, name: str):
        self.kind = kind
        self.image = work / f"{name}.img"
        self.folder = work / name
        self.folder.mkdir(parents=True)
        with self.image.open("wb") as image:
            image.truncate(MEGABYTES[kind] << 20)
        quiet = ["-q", "-F"] if kind == "ext4" else ["-q", "-f"]
        subprocess.run([f"mkfs.{kind}", *quiet, str(self.image)], check=True)

    def mount(self) -> None:
        subprocess.run(
            ["mount", "-t", self.kind, "-o", "loop", str(self.image), str(self.folder)], check=True
        )

    def cut(self) -> None:
        """The power goes: nothing that waits reaches the device any more, not even the log."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def is_mounted(self) -> bool:
        """By the kernel's list: a file system without power does not answer `stat`."""
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return any(line.split()[1] == str(self.folder) for line in mounts)

    def unmount(self) -> None:
        if self.is_mounted():
            subprocess.run(["umount", str(self.folder)], check=True)

    def close(self) -> None:
        """Lets go of it, whatever state it is in."""
        if self.is_mounted():
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
        self.image.unlink(missing_ok=True)
