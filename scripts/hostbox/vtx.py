"""A host with VT-x: Linux with kvm_intel, in Bochs's software emulation of a Skylake-X.

It has no shared folder. Everything it needs is in the initramfs on the disc that it starts from,
and what it says leaves by four serial ports, which Bochs writes into pipes.
"""

import os
import pty
import re
import shutil
import subprocess
import tempfile

from . import amdv, cache, session

MODULES = ["kvm-intel"]
START_LIMIT = 900
CHANNELS = ("console", "out", "err", "control")
PROGRAM = ".build/x86_64-unknown-linux-gnu/release/kvmlite"


def prepare(root, options):
    """Fetches and makes what is missing; returns the kernel and the initramfs."""
    init = os.path.join(root, "scripts/hostbox/init-vt-x")
    with cache.locked(root) as folder:
        cache.install({
            "bochs": "bochs", "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so": "bochs-term",
            "/usr/share/bochs/BIOS-bochs-latest": "bochsbios",
            "/usr/share/vgabios/vgabios.bin": "vgabios", "grub-mkrescue": "grub-common",
            "/usr/lib/grub/i386-pc/moddep.lst": "grub-pc-bin", "xorriso": "xorriso",
            "mformat": "mtools", "dpkg-deb": "dpkg"})
        kept = cache.kernel(folder, "linux-image-cloud-amd64", MODULES)
        archive = os.path.join(kept.folder, "initramfs.cpio")
        if not cache.is_newer(archive, init, kept.image, cache.__file__):
            cache.initramfs(kept, init, archive)
        for old in os.listdir(folder):
            # Left by a run that was killed without a chance to clean up.
            if old.startswith("vt-x-") and not os.path.exists(f"/proc/{old.split('-')[2]}"):
                shutil.rmtree(os.path.join(folder, old), ignore_errors=True)
    return kept.image, archive


def run(root, options, command):
    """Runs `command` there and returns its exit status."""
    image, archive = prepare(root, options)
    with tempfile.TemporaryDirectory(
            prefix=f"vt-x-{os.getpid()}-", dir=os.path.join(root, ".cache/hosts")) as folder:
        disc = make_disc(root, folder, options, command, image, archive)
        return start(folder, disc, options)


def start(folder, disc, options):
    """Runs Bochs with the disc."""
    channels = {name: os.pipe() for name in CHANNELS}
    configuration = os.path.join(folder, "bochsrc")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(bochsrc(folder, disc, options, [channels[name][1] for name in CHANNELS]))
    commands = os.path.join(folder, "commands")
    with open(commands, "w", encoding="ascii") as file:
        file.write("c\n")  # Debian's Bochs starts in its debugger: continue.
    # It wants a terminal, and what it shows there is of no use.
    terminal, bochs_terminal = pty.openpty()
    process = subprocess.Popen(
        ["bochs", "-q", "-f", configuration, "-rc", commands],
        stdin=bochs_terminal, stdout=bochs_terminal, stderr=bochs_terminal, cwd=folder,
        env=dict(os.environ, TERM="xterm"), pass_fds=[pair[1] for pair in channels.values()],
        start_new_session=True, preexec_fn=session.die_with_parent())
    os.close(bochs_terminal)
    for pair in channels.values():
        os.close(pair[1])
    ours = [channels[name][0] for name in CHANNELS]
    run = session.Session(
        "vt-x", START_LIMIT, options.timeout, options.console, usual="half a minute or more")
    shown = bytearray()

    def watch(data):
        # Its debugger asks for more when something went wrong, and would wait for ever.
        shown.extend(data)
        del shown[:-4000]
        prompt = shown.rfind(b"<bochs:2>")
        if prompt >= 0 and run.status is None and not run.failure:
            text = re.sub(rb"\x1b[^A-Za-z]*[A-Za-z]|[^\n\x20-\x7e]", b"", bytes(shown[:prompt]))
            run.failure = "Bochs stopped: " + text[-600:].decode("ascii").strip()

    return run.run(process, *ours, others={terminal: watch})


def bochsrc(folder, disc, options, serial):
    """Bochs's configuration."""
    ports = "".join(
        f"com{number}: enabled=1, mode=file, dev=/dev/fd/{descriptor}\n"
        for number, descriptor in enumerate(serial, start=1))
    return f"""\
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0
megs: {options.memory or 1024}
clock: sync=none
ata0-master: type=cdrom, path="{disc}", status=inserted
boot: cdrom
{ports}log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


def make_disc(root, folder, options, command, image, archive):
    """The disc that the host starts from: GRUB, the kernel, the initramfs with what travels in."""
    boot = os.path.join(folder, "disc/boot")
    os.makedirs(os.path.join(boot, "grub"))
    shutil.copy(image, os.path.join(boot, "vmlinuz"))
    initramfs = os.path.join(boot, "initramfs.cpio")
    shutil.copy(archive, initramfs)
    with open(initramfs, "ab") as file:
        load(cache.Archive(file), root, options, command)
    with open(os.path.join(boot, "grub/grub.cfg"), "w", encoding="ascii") as file:
        file.write(
            "set timeout=0\nmenuentry vt-x {\n"
            "  linux /boot/vmlinuz console=ttyS0 quiet tsc=reliable mitigations=off "
            "reboot=t panic=-1\n"
            "  initrd /boot/initramfs.cpio\n}\n")
    disc = os.path.join(folder, "disc.iso")
    cache.run([
        "grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", disc, os.path.join(folder, "disc")])
    shutil.rmtree(os.path.join(folder, "disc"))
    return disc


def load(archive, root, options, command):
    """Puts what travels in into the archive, at the places that it has here."""
    script = amdv.script(command)
    archive.file("command", script.encode("utf-8", "surrogateescape"))
    data = b""
    if not os.isatty(0):
        while more := os.read(0, 1 << 16):
            data += more
    archive.file("input", data)
    archive.folder(os.getcwd())
    program = shutil.which(command[0])
    brought = [os.path.join(root, PROGRAM), *([program] if program else []), *options.bring]
    for path in dict.fromkeys(os.path.realpath(path) for path in brought):
        if not os.path.exists(path):
            if path == os.path.realpath(os.path.join(root, PROGRAM)):
                continue
            raise session.HostFailure(f"{path} is not there to be brought to vt-x")
        # The shell and its like are busybox's there.
        if path.startswith(("/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/")):
            continue
        archive.tree(path, path)
    for link in (os.path.join(root, ".build/release"),):
        if os.path.islink(link):
            archive.link(link, os.readlink(link))
    archive.end()
