"""A ``hookline dev`` that runs, as somebody at a terminal has it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

from local_ports import reserve_port
from waiting import PATIENCE_S


class Desk:
    """A ``hookline dev`` that runs, and what it says."""

    def __init__(self, folder, *options):
        self.port = reserve_port()
        command = [sys.executable, "-m", "hookline_cli", "dev", str(folder), "--json", *options]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def until(self, event):
        """The next event of that name; those before it are left."""
        for line in self.process.stdout:
            told = json.loads(line)
            if told["event"] == event:
                return told
        raise AssertionError(f"it ended before '{event}': {self.process.stderr.read()}")

    def ask(self, query):
        """What the sidecar decides of a statement."""
        return self.asks({"query": query})

    def asks(self, question):
        """What the sidecar decides of an input of ``pre_query``."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/hooks/pre_query",
            data=json.dumps(question).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())

    def end(self):
        """As Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in said
        return self.process.returncode
