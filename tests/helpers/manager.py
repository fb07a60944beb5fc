"""Runs a command as systemd runs a service of Type=notify with a store for descriptors.

SIGUSR1 restarts it: stop, wait, start with what is in the store. SIGHUP and SIGUSR2 go to the
command. It comes back when it dies. What is in the store whose other end is closed is dropped.
"""

import array
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile


class Manager:
    """One service."""

    def __init__(self, command):
        place = command.index("serve") + 1
        self.command = [*command[:place], "--hand-over", *command[place:]]
        self.folder = tempfile.mkdtemp()
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.link.bind(f"{self.folder}/notify")
        self.store = []
        self.signals, sender = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(sender)
        os.set_blocking(sender, False)
        for number in (
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGCHLD,
        ):
            signal.signal(number, lambda *_: None)
        self.ending = False
        self.start()

    def start(self):
        """Start the command with the store as descriptors 3, 4, ..."""
        fds = [fd for _, fd in self.store]
        names = ":".join(name for name, _ in self.store)
        high = [os.dup(fd) for fd in fds]
        script = (
            "import os, sys; fds = [int(n) for n in sys.argv[1].split(',') if n];\n"
            "import fcntl\n"
            "high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in fds]\n"
            "[os.dup2(fd, 3 + n) for n, fd in enumerate(high)]\n"
            "os.closerange(3 + len(fds), 1000)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": f"{self.folder}/notify",
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": names,
        }
        self.child = subprocess.Popen(
            [sys.executable, "-c", script, ",".join(map(str, high)), *self.command],
            env=environment,
            pass_fds=high,
        )
        for fd in high:
            os.close(fd)

    def run(self):
        """Do what is asked for until SIGTERM."""
        while self.child.poll() is None or not self.ending:
            if self.child.poll() is not None:
                while select.select([self.link], [], [], 0)[0]:
                    self.listen()
                self.start()
            self.wait()
        return self.child.returncode

    def wait(self):
        """Hear what comes next."""
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        poll.register(self.signals, select.POLLIN)
        for _, fd in self.store:
            poll.register(fd, 0)
        for fd, event in poll.poll():
            if fd == self.link.fileno():
                self.listen()
            elif fd == self.signals:
                for number in os.read(self.signals, 100):
                    self.obey(number)
            elif event & select.POLLHUP:
                self.drop(lambda name, kept, gone=fd: kept == gone)

    def obey(self, number):
        """Do what a signal means."""
        if number == signal.SIGTERM:
            self.ending = True
            self.child.terminate()
        elif number == signal.SIGUSR1:
            self.child.terminate()
        elif number in (signal.SIGHUP, signal.SIGUSR2):
            self.child.send_signal(number)

    def listen(self):
        """Take a message."""
        data, ancillary, _, _ = self.link.recvmsg(4096, socket.CMSG_SPACE(64))
        values = dict(line.split("=", 1) for line in data.decode().splitlines())
        for _, _, octets in ancillary:
            fds = array.array("i")
            fds.frombytes(octets)
            for fd in fds:
                if any(os.fstat(fd).st_ino == os.fstat(kept).st_ino for _, kept in self.store):
                    os.close(fd)
                else:
                    self.store.append((values["FDNAME"], fd))
        if "FDSTOREREMOVE" in values:
            self.drop(lambda name, _: name == values["FDNAME"])

    def drop(self, is_meant):
        """Close what is meant."""
        for entry in [each for each in self.store if is_meant(*each)]:
            os.close(entry[1])
            self.store.remove(entry)


if __name__ == "__main__":
    sys.exit(Manager(sys.argv[1:]).run())
