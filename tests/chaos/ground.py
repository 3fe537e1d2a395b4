# SPDX-License-Identifier: MIT
"""The ground under a run: a network and mounts of our own where the system permits that, a small disk, and links that
can be cut.

enter() starts the program anew in its own namespaces (as root; else in a user namespace), so that nothing done to
network or disk is seen outside, and all of it goes when the program ends. Whatever is not permitted is left out, and
`skipped` says so.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

from cutting_proxy import CuttingProxy

ENTERED = "POSTERN_CHAOS_GROUND"
BACKING_BYTES = 40 << 20
DISK_BYTES = 48 << 20  # more than backs it: a thin disk
BALLAST_STEP_BYTES = 1 << 20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def run(*command, text=None):
    """Runs a command; returns (worked, what it said)."""
    try:
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, timeout=60)
    except OSError as error:
        return False, str(error)
    return done.returncode == 0, done.stdout.strip()


def enter():
    if ENTERED in os.environ:
        return
    command = ["unshare", "--net", "--mount"]
    if os.geteuid() != 0:
        command += ["--user", "--map-current-user", "--keep-caps"]
    works, said = run(*command, "true")
    if not works:
        os.environ[ENTERED] = said or "unshare failed"
        return
    os.environ[ENTERED] = ""
    os.execvp(command[0], [*command, sys.executable, "-B", *sys.argv])


def fill(path):
    """Takes all space there is on a file system by one file; returns its bytes."""
    size, step = 0, BALLAST_STEP_BYTES
    with open(path, "wb") as file:
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
    return size


class Ground:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.skipped = []
        self.why_not = os.environ.get(ENTERED, "not entered")
        self.links = None
        self.disk = None
        if not self.why_not:
            run("ip", "link", "set", "lo", "up")
        else:
            self.skip(f"a network and mounts of our own: {self.why_not}")

    def skip(self, what):
        self.skipped.append(what)
        print(f"SKIPPED {what}", flush=True)


class SilentLinks:
    """Cuts links by dropping their packets in a netfilter table of our own network: nobody is told, as when a cable is
    pulled. A link is all that goes to one address and port."""

    def __init__(self):
        self.ends = {}
        self.cuts = {}

    def names(self):
        return list(self.ends)

    @staticmethod
    def works():
        return run("nft", "-f", "-", text="table inet chaos { chain in { type filter hook input priority 0; }; }\n")

    def add(self, name, address, port):
        self.ends[name] = (address, port)
        return address, port

    def cut(self, name, way="both"):
        """way: "both", "there" (towards the server) or "back"."""
        self.cuts[name] = way
        self._apply()

    def mend(self, name):
        self.cuts.pop(name, None)
        self._apply()

    def _apply(self):
        rules = []
        for name, way in self.cuts.items():
            address, port = self.ends[name]
            if way != "back":
                rules.append(f"ip daddr {address} tcp dport {port} drop")
            if way != "there":
                rules.append(f"ip saddr {address} tcp sport {port} drop")
        works, said = run("nft", "-f", "-", text="flush chain inet chaos in\n" + "".join(
            f"add rule inet chaos in {rule}\n" for rule in rules))
        if not works:
            raise RuntimeError(f"nft: {said}")

    def end(self):
        self.cuts.clear()
        self._apply()


class ProxyLinks:
    """Where no packet can be dropped: a proxy on each link, which resets its connections and refuses new ones."""

    def __init__(self):
        self.proxies = {}

    def names(self):
        return list(self.proxies)

    def add(self, name, address, port):
        self.proxies[name] = CuttingProxy((address, port))
        return "127.0.0.1", self.proxies[name].port

    def cut(self, name, way="both"):
        self.proxies[name].refuse(True)

    def mend(self, name):
        self.proxies[name].refuse(False)

    def end(self):
        for proxy in self.proxies.values():
            proxy.end()


class Disk:
    """A small file system for the gateway. full(): no space is left on it. refuse(): it has space, but what stands
    behind it has none, so writes fail. free() undoes both. Renewed, it is empty and thin again."""

    def __init__(self, ground):
        self.backing = ground.folder / "backing"
        self.mount = ground.folder / "disk"
        self.is_thin = self.is_small = False
        for folder in (self.backing, self.mount):
            folder.mkdir(exist_ok=True)
        if ground.why_not:
            ground.skip("a small disk: there are no mounts of our own")
            return
        works, said = run("mount", "-t", "tmpfs", "-o", f"size={BACKING_BYTES}", "tmpfs", str(self.backing))
        if not works:
            ground.skip(f"a small disk: {said}")
            return
        self.is_small = True
        said = self._make_thin()
        if not self.is_thin:
            ground.skip(f"a disk that refuses writes: {said}")
            self.mount = self.backing

    def _make_thin(self):
        image = self.backing / "image"
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        # No journal, and no end of service after an error: an error is to hit what is written, not the whole disk.
        for command in (("mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(PAGE_BYTES), "-O", "^has_journal", str(image)),
                        ("mount", "-o", "loop,errors=continue,noatime", str(image), str(self.mount))):
            works, said = run(*command)
            if not works:
                image.unlink()
                return f"{command[0]}: {said}"
        said = self._make_honest()
        if said:
            run("umount", str(self.mount))
            image.unlink()
            return said
        # The folders stand behind it from the start: an error is to hit files, not the way to them.
        for name in ("logs", "spool"):
            (self.mount / name).mkdir()
        run("sync", "-f", str(self.mount))
        self.is_thin = True
        return ""

    def _make_honest(self):
        """The loop device calls a request written when only a part of it was. So its requests are of one page, which is
        written or not."""
        _, device = run("findmnt", "-n", "-o", "SOURCE", str(self.mount))
        try:
            Path(f"/sys/block/{Path(device).name}/queue/max_sectors_kb").write_text(str(PAGE_BYTES // 1024))
            return ""
        except OSError as error:
            return str(error)

    def full(self):
        fill(self.mount / "ballast")

    def refuse(self):
        fill(self.backing / "ballast")

    def free(self):
        for folder in (self.mount, self.backing):
            (folder / "ballast").unlink(missing_ok=True)

    def renew(self):
        """An empty disk in the place of this one, which nobody may be using."""
        self.free()
        if self.is_thin:
            works, said = run("umount", str(self.mount))
            if not works:
                raise RuntimeError(f"umount: {said}")
            (self.backing / "image").unlink()
            self.is_thin = False
            said = self._make_thin()
            if said:
                raise RuntimeError(f"no new disk: {said}")
