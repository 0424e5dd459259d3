"""A host with AMD-V: Linux with kvm_amd, in QEMU's software emulation of a CPU with SVM."""

import os
import shlex
import socket
import subprocess
import threading
import time

from . import cache, session

# What is loaded, and what a command may want to: see init-amd-v.
MODULES = [
    "kvm-amd", "virtio-pci", "virtio-console", "9pnet-virtio", "9p",
    "vfio-pci", "vfio-iommu-type1", "tun", "vhost-net", "vhost-vsock", "nvme", "loop",
]
CHANNELS = ("console", "control", "out", "err", "in", "pulse")
START_LIMIT = 180
PULSE = 0.25
PASSED_ON = ("PATH", "HOME", "LANG", "TERM", "CI")


def prepare(root, options):
    """Fetches and makes what is missing; returns the kernel and the initramfs."""
    init = os.path.join(root, "scripts/hostbox/init-amd-v")
    with cache.locked(root) as folder:
        cache.install({"qemu-system-x86_64": "qemu-system-x86", "dpkg-deb": "dpkg"})
        kept = cache.kernel(folder, "linux-image-amd64", MODULES)
        archive = os.path.join(kept.folder, "initramfs.cpio")
        if not cache.is_newer(archive, init, kept.image, cache.__file__):
            cache.initramfs(kept, init, archive)
    return kept.image, archive


def run(root, options, command):
    """Runs `command` there and returns its exit status."""
    image, archive = prepare(root, options)
    channels = {name: socket.socketpair() for name in CHANNELS}
    theirs = {name: pair[1].fileno() for name, pair in channels.items()}
    disk = memory_disk() if options.sriov else []
    process = subprocess.Popen(
        qemu(root, options, image, archive, theirs, disk),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs["console"],
        pass_fds=[*theirs.values(), *disk], start_new_session=True, preexec_fn=session.die_with_parent())
    for pair in channels.values():
        pair[1].close()
    for descriptor in disk:
        os.close(descriptor)
    ours = {name: pair[0] for name, pair in channels.items()}
    try:
        text = os.fsencode(setup(root, options, command))
        ours["control"].sendall(b"%d\n" % len(text) + text)
    except OSError:
        pass  # QEMU has ended, and its reason is on the console.
    threading.Thread(target=beat, args=[ours["pulse"]], daemon=True).start()
    started = session.Session(
        "amd-v", START_LIMIT, options.timeout, options.console, usual="ten seconds or so")
    return started.run(
        process, ours["console"], ours["out"], ours["err"], ours["control"],
        on_ready=lambda: session.feed(0, ours["in"]))


def beat(pulse):
    """Interrupts the host a few times a second, until it is gone.

    QEMU's emulation of VMRUN and #VMEXIT changes the CPU's pending interrupts without the lock under
    which devices raise them (seen in 7.2: HLT, IF set, the APIC timer's vector in IRR, and no end). So
    a host that runs guests loses one now and then, and if it was the timer's, it sleeps forever. Any
    later interrupt delivers the lost one too; a byte on a port of virtio-serial is one that needs no
    timer of the host's own.
    """
    try:
        while True:
            pulse.sendall(b".")
            time.sleep(PULSE)
    except OSError:
        pass


def memory_disk():
    """A disk of 64 MiB without a file: descriptors to read it, and to read and write it."""
    writable = os.memfd_create("nvme")
    os.ftruncate(writable, 64 << 20)
    return [os.open(f"/proc/self/fd/{writable}", os.O_RDONLY), writable]


def qemu(root, options, image, archive, channels, disk):
    """QEMU's command line."""
    has_iommu = options.iommu or options.sriov
    share = "security_model=none,multidevs=remap"
    arguments = [
        "qemu-system-x86_64", "-M", "q35,kernel-irqchip=off" if has_iommu else "q35",
        "-accel", "tcg,thread=multi",
        "-cpu", "EPYC,+svm," + ("-npt" if options.npt == "off" else "+npt"),
        "-smp", str(options.cpus or 1),
        "-m", str(options.memory or 3072),
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-chardev", f"socket,id=console,fd={channels['console']}", "-serial", "chardev:console",
        "-device", "virtio-serial-pci,max_ports=6",
        "-virtfs", f"local,path=/,mount_tag=root,readonly=on,{share}",
        "-virtfs", f"local,path={root.replace(',', ',,')},mount_tag=repository,{share}",
    ]
    for number, name in enumerate(CHANNELS[1:], start=1):
        arguments += [
            "-chardev", f"socket,id={name},fd={channels[name]}",
            "-device", f"virtserialport,chardev={name},name={name},nr={number}"]
    kernel_options = "console=ttyS0 reboot=t panic=-1 quiet mitigations=off"
    if has_iommu:
        arguments += ["-device", "intel-iommu,intremap=on"]
        kernel_options += " intel_iommu=on"
    if options.iommu:
        arguments += ["-device", "edu"]
    if options.sriov:
        for descriptor in disk:
            arguments += ["-add-fd", f"fd={descriptor},set=1"]
        arguments += [
            "-drive", "if=none,id=disk,format=raw,file.locking=off,file=/dev/fdset/1",
            "-device", "pcie-root-port,id=rootport,chassis=1",
            "-device", "nvme-subsys,id=subsystem",
            "-device", "nvme,serial=kvmlite,id=nvme,subsys=subsystem,bus=rootport,sriov_max_vfs=4,"
            "sriov_vq_flexible=8,sriov_vi_flexible=4",
            "-device", "nvme-ns,drive=disk,bus=nvme,nsid=1,shared=true"]
    return arguments + ["-kernel", image, "-initrd", archive, "-append", kernel_options]


def setup(root, options, command):
    """What init-amd-v must know, as shell variables."""
    return (
        f"repository={shlex.quote(root)}\n"
        f"iommu={'yes' if options.iommu or options.sriov else ''}\n"
        f"edu={'yes' if options.iommu else ''}\n"
        f"nvme={'yes' if options.sriov else ''}\n"
        f"command={shlex.quote(script(command))}\n")


def script(command):
    """The shell script that runs `command` as it would run here."""
    variables = [
        f"{name}={value}" for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith("KVMLITE_") or name.startswith("LC_")]
    words = ["exec", "env", "-i", *map(shlex.quote, variables), *map(shlex.quote, command)]
    folder = shlex.quote(os.getcwd())
    return (
        f"cd {folder} || exit 125\n"
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
        + " ".join(words) + "\n")
