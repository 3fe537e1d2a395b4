# SPDX-License-Identifier: MIT
"""The ground under a run: a network and mounts of our own where the system permits that, a small disk, and links that
can be cut.

enter() starts the program anew in its own namespaces (as root; else in a user namespace), so that nothing done to
network or disk is seen outside, and all of it goes when the program ends. Whatever is not permitted is left out, and
`skipped` says so.
"""

import collections
import errno
import os
import subprocess
import sys
from pathlib import Path

from cutting_proxy import CuttingProxy

ENTERED = "POSTERN_CHAOS_GROUND"
DISK_BYTES = 16 << 20
BALLAST_STEP_BYTES = 1 << 20


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
        self.cuts = []  # (link, way)

    def names(self):
        return list(self.ends)

    @staticmethod
    def works():
        return run("nft", "-f", "-", text="table inet chaos { chain in { type filter hook input priority 0; }; }\n")

    def add(self, name, address, port):
        self.ends[name] = (address, port)
        return address, port

    def cut(self, name, way="both"):
        """way: "both", "there" (towards the server) or "back". Cut twice, it is to be mended twice."""
        self.cuts.append((name, way))
        self._apply()

    def mend(self, name, way="both"):
        self.cuts.remove((name, way))
        self._apply()

    def _apply(self):
        rules = []
        for name, way in self.cuts:
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
        self.cuts = collections.Counter()

    def names(self):
        return list(self.proxies)

    def add(self, name, address, port):
        self.proxies[name] = CuttingProxy((address, port))
        return "127.0.0.1", self.proxies[name].port

    def cut(self, name, _way="both"):
        self.cuts[name] += 1
        self.proxies[name].refuse(True)

    def mend(self, name, _way="both"):
        self.cuts[name] -= 1
        self.proxies[name].refuse(self.cuts[name] > 0)

    def end(self):
        for proxy in self.proxies.values():
            proxy.end()


class Disk:
    """A small file system for the gateway, in memory. full(): no space is left on it; free() undoes that.

    A disk whose writes and syncs fail is not among the faults: ext4 on a loop device with nothing behind it loses,
    after such a failure, blocks whose sync it had called good. Storage that fails and keeps its word is in
    faulty_files.c and in the simulator."""

    def __init__(self, ground):
        self.mount = ground.folder / "disk"
        self.mount.mkdir()
        self.is_small = False
        if ground.why_not:
            ground.skip("a small disk: there are no mounts of our own")
            return
        self.is_small, said = run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.mount))
        if not self.is_small:
            ground.skip(f"a small disk: {said}")

    def full(self):
        fill(self.mount / "ballast")

    def free(self):
        (self.mount / "ballast").unlink(missing_ok=True)

    def end(self):
        """What it held is gone; its folder can be removed then."""
        if self.is_small:
            run("umount", "-l", str(self.mount))
