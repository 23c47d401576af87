"""A server that runs, for the tests: started, asked, looked into."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 240


class Running:
    """`export/serve.py` on a folder, as a process."""

    def __init__(self, folder, log, *flags):
        self.port = free_port()
        self.log = log
        command = [
            sys.executable,
            REPOSITORY / "export/serve.py",
            f"--folder={folder}",
            f"--port={self.port}",
        ]
        command += [f"--metrics_port={free_port()}", *flags]
        with open(log, "w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self):
        end = time.monotonic() + START_SECONDS
        while f"http://127.0.0.1:{self.port}" not in Path(self.log).read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no server: {Path(self.log).read_text()[-3000:]}")
            time.sleep(0.5)

    def ask(self, path, body=None, method=None, timeout=60):
        """Status and what the JSON of the answer says, or its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method or ("GET" if body is None else "POST"), path, data)
            answer = connection.getresponse()
            text = answer.read().decode()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def replicas(self):
        """Process ids of the replicas (Linux)."""
        parents, replicas = {}, []
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                with contextlib.suppress(OSError):
                    parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        for pid in parents:
            ancestor = pid
            while ancestor in parents and ancestor != self.process.pid:
                ancestor = parents[ancestor]
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_text()
                if ancestor == self.process.pid and name.startswith("ray::ServeReplica"):
                    replicas.append(pid)
        return sorted(replicas)

    def memory(self):
        """Resident MB of the replicas together."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.replicas())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
