# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared, each set up as its own documentation advises, and how one is
started, waited for and ended.

Several settings of a peer take part where its manual offers them for what is measured here; of each
workload the best one speaks for the peer.
"""

import os
import shutil
import signal
import socket
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ["PATH"] += ":/usr/sbin:/sbin"


class Failure(Exception):
    """A server or the generator did not do what it should; the text says what was seen."""


class Setting:
    """One way of running one server. `command` gets the medium's path, the socket ("unix" or
    "tcp"), its place (a path, or a port) and a directory of its own, and returns the words."""

    def __init__(self, server, name, command, media=("tmpfs", "disk"), filled=False, daemon=False):
        self.server, self.name, self.command, self.media = server, name, command, media
        self.filled = filled  # Holds its own copy of the medium, which has to be written first.
        self.daemon = daemon  # Leaves its process id in the file `pid` of its directory.


def rootlinkd(program, options=""):
    def command(path, kind, place, directory):
        address = f"unix:{place}" if kind == "unix" else f"tcp:127.0.0.1:{place}"
        return [program, "serve", "--export", f"={path}{options}", "--listen", address,
                "--control", f"{directory}/control", "--overlay-directory", directory]
    return command


def limit(program, *options):
    def command(path, kind, place, directory):
        address = f"unix:{place}" if kind == "unix" else f"tcp:127.0.0.1:{place}"
        return [program, *options, address, path]
    return command


def nbdkit(*words, options=()):
    """nbdkit(1): --threads is for each connection; nbdkit-file-plugin(1) advises the noextents
    filter for tmpfs, and cache=none for reading past the page cache."""
    def command(path, kind, place, directory):
        where = ["--unix", place] if kind == "unix" else ["--ipaddr=127.0.0.1", f"--port={place}"]
        return ["nbdkit", "--foreground", "--log=null", *where, *options,
                *[word.replace("PATH", path) for word in words]]
    return command


def qemu_nbd(*options):
    """qemu-nbd(8): --cache and --aio; --shared=0 for any number of clients."""
    def command(path, kind, place, directory):
        where = [f"--socket={place}"] if kind == "unix" else ["--bind=127.0.0.1", f"--port={place}"]
        return ["qemu-nbd", "--format=raw", "--persistent", "--shared=0", *where, *options, path]
    return command


def nbd_server(**options):
    """nbd-server(5): splice "can speed up handling of such calls significantly"."""
    def command(path, kind, place, directory):
        with open(f"{directory}/config", "w", encoding="utf-8") as file:
            where = (f"unixsock = {place}\n" if kind == "unix"
                     else f"listenaddr = 127.0.0.1\nport = {place}\n")
            file.write(f"[generic]\n{where}")
            for key, value in options.items():
                if key == "max_threads":
                    file.write(f"{key} = {value}\n")
            file.write(f"[bench]\nexportname = {path}\n")
            for key, value in options.items():
                if key != "max_threads":
                    file.write(f"{key} = {value}\n")
        return ["nbd-server", "-C", f"{directory}/config", "-p", f"{directory}/pid"]
    return command


OURS, LIMIT = "rootlinkd", "limit"
PEERS = ("nbdkit", "qemu-nbd", "nbd-server")


def settings(programs, byte_count):
    """All that takes part. `programs` names the built ones."""
    mebibytes = f"{byte_count >> 20}M"
    ours, bare = programs["rootlinkd"], programs["limit"]
    both = [
        Setting(OURS, "default", rootlinkd(ours), ("tmpfs",)),
        Setting(OURS, "direct", rootlinkd(ours, ",direct"), ("disk",)),
        Setting(OURS, "overlay", rootlinkd(ours, ",overlay"), ("overlay",)),
        Setting(LIMIT, "thread each", limit(bare), ("tmpfs",)),
        Setting(LIMIT, "thread each, no sendfile", limit(bare, "--sendfile-from=4294967295"),
                ("tmpfs",)),
        Setting(LIMIT, "epoll", limit(bare, "--threads=1"), ("tmpfs",)),
        Setting(LIMIT, "epoll, no sendfile",
                limit(bare, "--threads=1", "--sendfile-from=4294967295"), ("tmpfs",)),
        Setting(LIMIT, "epoll, 2 threads", limit(bare, "--threads=2"), ("tmpfs",)),
        Setting(LIMIT, "io_uring, O_DIRECT", limit(bare, "--direct"), ("disk",)),
    ]
    for threads in ("16", "4", "1"):
        option = (f"--threads={threads}",)
        both += [
            Setting("nbdkit", f"file, {threads} threads",
                    nbdkit("file", "PATH", options=option + ("--filter=noextents",)), ("tmpfs",)),
            Setting("nbdkit", f"memory, {threads} threads",
                    nbdkit("memory", mebibytes, options=option), ("tmpfs",), filled=True),
            Setting("nbdkit", f"file cache=none, {threads} threads",
                    nbdkit("file", "PATH", "cache=none", "fadvise=random", options=option),
                    ("disk",)),
        ]
    both += [
        Setting("qemu-nbd", "default", qemu_nbd(), ("tmpfs",)),
        Setting("qemu-nbd", "aio=io_uring", qemu_nbd("--aio=io_uring"), ("tmpfs",)),
        Setting("qemu-nbd", "cache=none aio=threads", qemu_nbd("--cache=none", "--aio=threads"),
                ("tmpfs", "disk")),
        Setting("qemu-nbd", "cache=none aio=native", qemu_nbd("--cache=none", "--aio=native"),
                ("tmpfs", "disk")),
        Setting("qemu-nbd", "cache=none aio=io_uring", qemu_nbd("--cache=none", "--aio=io_uring"),
                ("disk",)),
        Setting("nbd-server", "default", nbd_server(), ("tmpfs",), daemon=True),
        Setting("nbd-server", "splice", nbd_server(splice="true"), ("tmpfs",), daemon=True),
    ]
    return both


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Running:
    """A started server: `address` as the generator takes it, and the process to watch."""

    def __init__(self, setting, path, kind, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        place = f"{directory}/socket" if kind == "unix" else free_port()
        self.address = f"unix:{place}" if kind == "unix" else f"tcp:127.0.0.1:{place}"
        self.daemon = setting.daemon
        words = setting.command(path, kind, place, directory)
        if not shutil.which(words[0]):
            raise Failure(f"{words[0]} is missing")
        # Not into a pipe: nobody reads it, and a server that has much to say would wait.
        with open(f"{directory}/log", "wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=directory)
        self.pid = self.process.pid
        try:
            self.wait(kind, place)
        except Failure:
            self.end()
            raise

    def wait(self, kind, place):
        """Until it accepts connections."""
        deadline = time.monotonic() + 60
        while True:
            if not self.daemon and self.process.poll() is not None:
                raise Failure(f"ended with {self.process.returncode}: {self.said()}")
            try:
                if self.daemon:
                    with open(f"{self.directory}/pid", encoding="ascii") as file:
                        self.pid = int(file.read())
                family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
                with socket.socket(family) as probe:
                    probe.settimeout(10)
                    probe.connect(place if kind == "unix" else ("127.0.0.1", place))
                    probe.recv(18)
                return
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise Failure(f"does not accept connections: {self.said()}") from None
                time.sleep(0.005)

    def said(self):
        with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as file:
            return file.read()[-300:].strip().replace("\n", " / ")

    def is_alive(self):
        if not self.daemon:
            return self.process.poll() is None
        try:
            os.kill(self.pid, 0)
            return True
        except ProcessLookupError:
            return False

    def end(self):
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            if not self.is_alive():
                break
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while self.is_alive() and time.monotonic() < deadline:
                time.sleep(0.005)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
