"""What hosts are made of: programs and kernels from Debian's packages, initramfs archives.

All is kept in .cache/hosts. Kernels are unpacked there, not installed.
"""

import contextlib
import fcntl
import glob
import os
import re
import shutil
import stat
import subprocess
import tempfile

from .session import say


class Missing(Exception):
    """Something that the host needs can't be had."""


@contextlib.contextmanager
def locked(root):
    """The cache's folder, for one program at a time."""
    folder = os.path.join(root, ".cache", "hosts")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def run(command, **keywords):
    """Runs a tool of the system, whose words matter only if it fails."""
    try:
        return subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, **keywords).stdout.decode("utf-8", "replace")
    except FileNotFoundError as error:
        raise Missing(f"{command[0]} is not there: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        words = error.stdout.decode("utf-8", "replace").strip().splitlines()[-8:]
        raise Missing(f"{' '.join(command)} failed:\n  " + "\n  ".join(words)) from error


def install(programs):
    """Installs the packages of those programs that are missing.

    `programs` maps a program's name, or the path of a file, to its package.
    """
    packages = sorted({
        package for program, package in programs.items()
        if not (os.path.exists(program) if "/" in program else shutil.which(program))})
    if not packages:
        return
    command = ["apt-get", "install", "-qy", "--no-install-recommends", *packages]
    if os.geteuid() != 0:
        raise Missing(f"{' '.join(packages)} must be installed: sudo {' '.join(command)}")
    say(f"installs on this machine: {' '.join(packages)}")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        run(command, env=environment)
    except Missing:
        run(["apt-get", "update", "-q"])
        run(command, env=environment)


def unpacked(package, into, place=".cache/hosts"):
    """Downloads a Debian package and unpacks it into the folder `into` of `place`; does not install it."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(into)) as folder:
        # apt would download as a user of its own, who can't write here.
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
        try:
            run(command, cwd=folder)
        except Missing:
            if os.geteuid() != 0:
                raise
            run(["apt-get", "update", "-q"])
            run(command, cwd=folder)
        archive = glob.glob(os.path.join(folder, "*.deb"))[0]
        say(f"unpacks {os.path.basename(archive)} into {place}")
        run(["dpkg-deb", "-x", archive, into])


def kernel_package(name):
    """The package of the kernel that the package `name` stands for now."""
    match = re.search(r"Depends: (linux-image-\S+)", run(["apt-cache", "depends", name]))
    if not match:
        raise Missing(f"apt knows no package {name}: this needs Debian's package lists (apt-get update)")
    return match.group(1)


class Kernel:
    """A kernel, some of its modules, and busybox: the makings of an initramfs."""

    def __init__(self, folder):
        self.folder = folder
        self.image = os.path.join(folder, "vmlinuz")
        self.busybox = os.path.join(folder, "busybox")
        self.tree = os.path.join(folder, "tree")


def kernel(folder, name, modules):
    """The kernel of package `name` with `modules` and all they depend on, from the cache or new."""
    kept = Kernel(os.path.join(folder, name))
    listed = os.path.join(kept.folder, "modules")
    wanted = " ".join(modules)
    if os.path.exists(listed):
        with open(listed, encoding="ascii") as lines:
            if lines.read() == wanted:
                return kept
    with tempfile.TemporaryDirectory(dir=folder) as work:
        full = os.path.join(work, "full")
        try:
            unpacked(kernel_package(name), full)
            unpacked("busybox-static", full)
        except Missing as missing:
            # Without apt-cache's lists there is no dependency to read.
            if os.geteuid() != 0 or "knows no package" not in str(missing):
                raise
            run(["apt-get", "update", "-q"])
            unpacked(kernel_package(name), full)
            unpacked("busybox-static", full)
        version, = os.listdir(os.path.join(full, "lib/modules"))
        made = Kernel(os.path.join(work, "made"))
        os.mkdir(made.folder)
        shutil.copy(os.path.join(full, "boot", f"vmlinuz-{version}"), made.image)
        shutil.copy(os.path.join(full, "bin/busybox"), made.busybox)
        select_modules(made.busybox, full, made.tree, version, modules)
        with open(os.path.join(made.folder, "modules"), "w", encoding="ascii") as lines:
            lines.write(wanted)
        shutil.rmtree(kept.folder, ignore_errors=True)
        os.rename(made.folder, kept.folder)
    return kept


def select_modules(busybox, full, tree, version, names):
    """Copies the modules `names` with all they depend on from `full` to `tree`."""
    folder = f"lib/modules/{version}"
    run([busybox, "depmod", "-b", full, version])
    needs = {}
    with open(os.path.join(full, folder, "modules.dep"), encoding="ascii") as lines:
        for line in lines:
            path, _, others = line.partition(":")
            needs[path.strip()] = others.split()
    paths = {os.path.basename(path).split(".ko")[0].replace("_", "-"): path for path in needs}
    with open(os.path.join(full, folder, "modules.builtin"), encoding="ascii") as lines:
        built_in = {
            os.path.basename(line.strip())[: -len(".ko")].replace("_", "-") for line in lines}
    for name in names:
        if name in built_in:
            continue
        if name not in paths:
            raise Missing(f"the kernel {version} has no module {name}")
        for path in [paths[name], *needs[paths[name]]]:
            target = os.path.join(tree, folder, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.join(full, folder, path), target)
    for name in ("modules.builtin", "modules.order"):
        shutil.copy(os.path.join(full, folder, name), os.path.join(tree, folder))
    run([busybox, "depmod", "-b", tree, version])


class Archive:
    """A cpio archive in the kernel's format (newc), as an initramfs is made of."""

    def __init__(self, file):
        self._file = file
        self._folders = set()
        self._inode = 0

    def _add(self, path, mode, data=b"", device=(0, 0)):
        self._inode += 1
        name = path.lstrip("/").encode() + b"\0"
        fields = (
            self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, device[0], device[1], len(name), 0)
        self._file.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        self._align()
        self._file.write(data)
        self._align()

    def _align(self):
        self._file.write(bytes(-self._file.tell() % 4))

    def folder(self, path):
        """A folder, and those above it."""
        path = path.strip("/")
        if path and path not in self._folders:
            self.folder(os.path.dirname(path))
            self._folders.add(path)
            self._add(path, stat.S_IFDIR | 0o755)

    def file(self, path, data, mode=0o755):
        """A file that holds `data`."""
        self.folder(os.path.dirname(path))
        self._add(path, stat.S_IFREG | mode, data)

    def link(self, path, target):
        """A symbolic link."""
        self.folder(os.path.dirname(path))
        self._add(path, stat.S_IFLNK | 0o777, os.fsencode(target))

    def character_device(self, path, major, minor):
        """A device node."""
        self.folder(os.path.dirname(path))
        self._add(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def tree(self, source, path=""):
        """A file or a folder with all that is in it, at `path`."""
        if os.path.islink(source):
            self.link(path, os.readlink(source))
        elif os.path.isdir(source):
            self.folder(path)
            for name in sorted(os.listdir(source)):
                self.tree(os.path.join(source, name), os.path.join(path, name))
        else:
            with open(source, "rb") as file:
                self.file(path, file.read(), stat.S_IMODE(os.stat(source).st_mode))

    def end(self):
        """What the kernel looks for at the end."""
        self._add("TRAILER!!!", 0)


def initramfs(kept, init, path):
    """Writes the archive that starts a host: busybox, the modules and the script `init`."""
    temporary = path + ".new"
    with open(temporary, "wb") as file:
        archive = Archive(file)
        for folder in ("dev", "proc", "sys", "run", "tmp", "host"):
            archive.folder(folder)
        archive.character_device("dev/console", 5, 1)
        archive.tree(kept.busybox, "bin/busybox")
        archive.link("bin/sh", "busybox")
        archive.tree(kept.tree)
        with open(init, "rb") as script:
            archive.file("init", script.read())
        archive.end()
    os.rename(temporary, path)


def is_newer(path, *sources):
    """Whether `path` is there and not older than its sources."""
    return os.path.exists(path) and all(
        os.stat(path).st_mtime_ns >= os.stat(source).st_mtime_ns for source in sources)
