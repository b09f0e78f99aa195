# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives that Linux boots from, made without any tool: what test hosts, their guests and the demo's Linux guest start with.

    tree = Tree()
    tree.console()
    tree.file("build/guests/linux/count", "/init")
    tree.modules("6.1.0-9-amd64", ["virtio_pci", "virtio_net"])
    tree.write("initrd")
"""
import glob
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import subprocess

UNPACK = {"": bytes, ".xz": lzma.decompress, ".gz": gzip.decompress}


class Missing(Exception):
    """Something that has to be installed first; the text says what."""


def installed_kernels(pattern="*", root=""):
    """The releases that have an image which can be read, and modules, on this machine: the newest first."""
    found = [path[len(f"{root}/boot/vmlinuz-"):] for path in glob.glob(f"{root}/boot/vmlinuz-{pattern}") if os.access(path, os.R_OK)]
    found = [r for r in found if os.path.isfile(f"{root}/lib/modules/{r}/modules.dep")]
    return sorted(found, key=lambda r: [int(n) for n in re.findall(r"\d+", r)], reverse=True)


def kernel_image(release, root=""):
    return f"{root}/boot/vmlinuz-{release}"


def module_name(path):
    return os.path.basename(path).split(".ko")[0].replace("-", "_")


def module_files(release, names, root=""):
    """The files of these modules and of all they need, in loading order; nothing for what is built in."""
    base = f"{root}/lib/modules/{release}"
    needs = {}
    with open(f"{base}/modules.dep", encoding="ascii") as dep:
        for line in dep:
            path, _, rest = line.partition(":")
            needs[path] = rest.split()
    path_of = {module_name(path): path for path in needs}
    with open(f"{base}/modules.builtin", encoding="ascii") as builtin:
        built_in = {module_name(line.strip()) for line in builtin}
    order = []

    def add(path):
        # modules.dep lists what comes first last.
        for need in reversed(needs[path]):
            add(need)
        if path not in order:
            order.append(path)

    for name in (n.replace("-", "_") for n in names):
        if name in path_of:
            add(path_of[name])
        elif name not in built_in:
            raise Missing(f"Linux {release} has no {name}")
    return [f"{base}/{path}" for path in order]


def unpacked_module(path):
    """Its name and content as insmod takes it."""
    stem, _, packing = os.path.basename(path).partition(".ko")
    if packing not in UNPACK:
        raise Missing(f"{path} is packed in a way that nothing here unpacks")
    with open(path, "rb") as f:
        return stem + ".ko", UNPACK[packing](f.read())


def shared_libraries(binary):
    """Every file that ldd names for this program, the loader among them."""
    out = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    lost = re.findall(r"(\S+) => not found", out)
    if lost:
        raise Missing(f"{binary} needs {', '.join(lost)}, which is not installed")
    return re.findall(r"(?:=> |^\s)(/\S+)", out, re.M)


class Tree:
    """The content of one archive: path -> (mode, bytes or a source file)."""

    def __init__(self):
        self.entries = {}

    def _parents(self, path):
        parent = os.path.dirname(path)
        if parent not in ("", "/") and parent not in self.entries:
            self._parents(parent)
            self.entries[parent] = (stat.S_IFDIR | 0o755, b"")

    def data(self, path, content, mode=0o644):
        self._parents(path)
        self.entries[path] = (stat.S_IFREG | mode, content)

    def directory(self, path):
        self._parents(path + "/x")

    def symlink(self, path, target):
        self._parents(path)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def console(self):
        """The kernel opens /dev/console before anything can mount /dev."""
        self._parents("/dev/console")
        self.entries["/dev/console"] = (stat.S_IFCHR | 0o600, b"")

    def file(self, source, path=None):
        try:
            with open(source, "rb") as f:
                self.data(path or source, f.read(), 0o755 if os.access(source, os.X_OK) else 0o644)
        except FileNotFoundError:
            raise Missing(f"{source} is not there: install the package that has it") from None

    def program(self, source, path=None):
        self.file(source, path)
        for library in shared_libraries(source):
            if library not in self.entries:
                self.file(library)

    def busybox(self):
        self.file("/bin/busybox")
        names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
        for name in set(names.split()) - {"busybox"}:
            self.symlink(f"/bin/{name}", "busybox")

    def modules(self, release, names, root=""):
        """With their order in /lib/modules/order, a name a line."""
        modules = [unpacked_module(path) for path in module_files(release, names, root)]
        for name, content in modules:
            self.data(f"/lib/modules/{name}", content)
        self.data("/lib/modules/order", "".join(f"{name}\n" for name, _ in modules).encode())

    def digest(self):
        h = hashlib.sha256()
        for path, (mode, content) in sorted(self.entries.items()):
            h.update(f"{path}\0{mode}\0{len(content)}\0".encode())
            h.update(content)
        return h.hexdigest()

    def write(self, target):
        """As a "newc" cpio archive, unless it is there already with the same content."""
        stamp = target + ".sha256"
        digest = self.digest()
        if os.path.exists(target) and os.path.exists(stamp):
            with open(stamp, encoding="ascii") as f:
                if f.read() == digest:
                    return target
        out = io.BytesIO()
        for ino, (path, (mode, content)) in enumerate(sorted(self.entries.items()), 1):
            write_cpio_entry(out, ino, path.lstrip("/"), mode, content)
        write_cpio_entry(out, 0, "TRAILER!!!", 0, b"")
        replace_file(target, out.getvalue())
        replace_file(stamp, digest.encode())
        return target


def write_cpio_entry(out, ino, name, mode, content):
    device = (5, 1) if stat.S_ISCHR(mode) else (0, 0)
    fields = (ino, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
    out.write(b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0")
    out.write(b"\0" * (-out.tell() % 4))
    out.write(content)
    out.write(b"\0" * (-out.tell() % 4))


def replace_file(path, content):
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as f:
        f.write(content)
    os.replace(temporary, path)
