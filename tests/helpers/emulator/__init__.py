"""Runs a program on a processor that this machine need not have, up to AVX-512 and AMX: by Bochs, without an operating
system but the one of this folder, in a second or two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["EMULATED_TARGET", "LINK_FLAGS", "has_processor", "run"]

EMULATED_TARGET = "x86_64-linux-musl"
LINK_FLAGS = ["-static", "-fno-pie", "-Wl,--image-base=0x10000000"]
"""Where the program lies, beyond the operating system and the files that it is given."""
HERE = Path(__file__).parent
ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
SYSLINUX = Path("/usr/lib/syslinux/modules/bios")
KERNEL_FLAGS = ["-O2", "-ffreestanding", "-fno-pic", "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector"]
KERNEL_FLAGS += [
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-mcmodel=large",
    "-nostdlib",
    "-static",
    "-Wl,--build-id=none",
]
MENU = "DEFAULT it\nPROMPT 0\nLABEL it\n KERNEL mboot.c32\n APPEND /system --- /program --- /in\n"
MACHINE = """\
megs: 512
cpu: model={model}, ips=2000000, reset_on_triple_fault=0
romimage: file=$BXSHARE/BIOS-bochs-latest
vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=disc.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
display_library: term
log: log.txt
panic: action=fatal
error: action=ignore
clock: sync=none
"""
LONGEST_S = 300


def has_processor(model: str) -> bool:
    """Return whether this machine can emulate a processor of Bochs."""
    if not all(map(shutil.which, ("bochs", "script", "gcc", "xorriso", "objcopy"))) or not ISOLINUX.exists():
        return False
    done = subprocess.run(["bochs", "-q", "--help", "cpu"], capture_output=True, text=True, check=False)
    return model in (done.stdout + done.stderr).split()


def run(program: Path, given: bytes, model: str) -> bytes:
    """Run a program built with `LINK_FLAGS` for `EMULATED_TARGET`; returns what it writes into its second file.

    Its first file has the bytes ``given``. Raises `RuntimeError` with all that it printed if it does not end well.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        boot = folder / "disc" / "isolinux"
        boot.mkdir(parents=True)
        for file in (ISOLINUX, *(SYSLINUX / name for name in ("ldlinux.c32", "libcom32.c32", "mboot.c32"))):
            shutil.copy(file, boot)
        (boot / "isolinux.cfg").write_text(MENU, encoding="ascii")
        sources = [str(HERE / name) for name in ("boot.S", "system.c")]
        system = folder / "system"
        subprocess.run(
            ["gcc", *KERNEL_FLAGS, "-T", str(HERE / "system.ld"), *sources, "-o", str(system)],
            check=True,
            capture_output=True,
        )
        subprocess.run(["objcopy", "-O", "elf32-i386", str(system), str(folder / "disc" / "system")], check=True)
        shutil.copy(program, folder / "disc" / "program")
        (folder / "disc" / "in").write_bytes(given)
        subprocess.run(
            [
                *("xorriso", "-as", "mkisofs", "-quiet", "-o", "disc.iso", "-b", "isolinux/isolinux.bin"),
                *("-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "disc"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        (folder / "bochsrc").write_text(MACHINE.format(model=model), encoding="ascii")
        subprocess.run(
            ["script", "-qfc", "bochs -q -f bochsrc", "/dev/null"],  # its screen wants a terminal
            input=b"c\n",  # some are built with a debugger, which waits for "continue"
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "TERM": "xterm"},
            timeout=LONGEST_S,
            check=False,
        )
        printed = (folder / "serial.txt").read_text(encoding="ascii", errors="replace")
    _, _, found = printed.partition("\nBEGIN\n")
    if not found.endswith("\nEND\n"):
        raise RuntimeError(printed)
    return bytes.fromhex(found.removesuffix("\nEND\n"))
