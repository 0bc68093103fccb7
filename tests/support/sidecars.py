"""Real sidecar processes on ports of 127.0.0.1, and ways to ask them.

Every sidecar has its own folders, and only its own processes are ever signalled. Nothing sleeps for luck: what has
to happen is polled, with a deadline.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

from guests import Guests
from hookline_runtime.host.kv import KvStore
from local_ports import reserve_ports
from ready_programs import ready
from waiting import PATIENCE_S as DEADLINE
from waiting import until, until_true


def manifest(name, *, source=None, config=None, **spec):
    """A WasmPlugin as plain data; by default of the file ``<name>.wasm``, and with a long time-out.

    Short enough for the event loop, and long enough for a call on a busy machine that waits for another worker.
    """
    spec["limits"] = {"timeout": "900ms"} | spec.get("limits", {})
    spec["source"] = source or {"file": {"path": f"{name}.wasm"}}
    if config is not None:
        spec["config"] = config
        spec.setdefault("permissions", ["config.read"])
    return {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name}, "spec": spec}


class Folder:
    """A plugin folder, written as an editor does: elsewhere, then renamed."""

    def __init__(self, path):
        self.path = path
        path.mkdir(exist_ok=True)

    def write(self, name, content):
        """Put a file there: text, bytes, or documents that become YAML."""
        if isinstance(content, dict | list):
            documents = content if isinstance(content, list) else [content]
            content = yaml.safe_dump_all(documents, sort_keys=False)
        raw = content.encode() if isinstance(content, str) else content
        aside = self.path / f".{name}.tmp"
        aside.write_bytes(raw)
        aside.replace(self.path / name)

    def plugin(self, name, module=None, **spec):
        """Put a plugin there: its module as ``<name>.wasm``, its manifest as ``<name>.yaml``."""
        if module is not None:
            self.write(f"{name}.wasm", module)
        self.write(f"{name}.yaml", manifest(name, **spec))

    def remove(self, name):
        """Take a file away."""
        (self.path / name).unlink()


class Sidecar:
    """One running sidecar."""

    def __init__(self, root, **options):
        self.root = root
        self.folder = Folder(root / "plugins")
        self.state = root / "state"
        self.socket = root / "hooks.sock"
        self.port, self.admin_port = reserve_ports(2)
        self.options = options
        self.process = None
        self.mortal = set()
        self._log = root / "log"

    def start(self, *, wait=True, environment=None, **options):
        """Start the process; with ``wait``, return once it is ready."""
        self.options |= options
        given = {
            "plugins": self.folder.path,
            "state": self.state,
            "listen": f"127.0.0.1:{self.port}",
            "socket": self.socket,
            "admin": f"127.0.0.1:{self.admin_port}",
        } | self.options
        arguments = [
            part
            for name, value in given.items()
            if value is not None
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        if self.process is not None:  # threads of what was killed may outlive its first one by a moment
            until(self._is_free, "the end of the one before")
        with self._log.open("ab") as log:
            if environment:  # parts of it are read while the program is imported
                command = [sys.executable, "-m", "hookline_sidecar", *arguments]
                variables = clean_environment() | environment
                self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, env=variables)
            else:
                program = ready("hookline_sidecar.cli", "hookline_sidecar.parent")
                code = "from hookline_sidecar.cli import main; main()"
                self.process = program.start(code, arguments, environment=clean_environment(), log=log)
        if wait:
            self.wait_ready()
        return self

    def _is_free(self):
        """Whether no process holds the state folder."""
        try:
            with (self.state / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # nobody can hold what is not there
            pass
        return True

    def stop(self, *, wait=True):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE) if wait else None

    def end(self):
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            family = self.pids
            self.process.kill()
            self.process.wait()
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def let_go(self, plugin):
        """Have calls of ``Guests.patient`` end."""
        store = KvStore(self.state / "kv")
        store.put(plugin, b"go", b"1")
        store.close()

    @property
    def log(self):
        """What it has written to stderr."""
        return self._log.read_text()

    def logs(self, words):
        """Return once the log has these words: a line may come after what was seen elsewhere."""
        until(lambda: words in self.log, lambda: f"{words!r} in:\n{self.log}")

    def settled_log(self):
        """The log once it names the bundle that runs: from then on it holds what happens next, and nothing more."""

        def settled():
            log, answer = self.log, self.looks("/v1/bundle")
            said = re.findall("bundle ([0-9a-f]{12}) runs", log)
            waits = log.rfind("not ready: ") > log.rfind(": ready\n")  # that it does no longer is another line
            return log if said and not waits and answer is not None and answer[1].get("version") == said[-1] else None

        return until(settled, lambda: f"a word about the bundle that runs; there was:\n{self.log}")

    def get(self, path, *, method="GET"):
        """Status and body of the admin port; JSON is parsed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            is_json = "json" in (answer.headers["Content-Type"] or "")
            return answer.status, json.loads(body) if is_json else body.decode()

    def looks(self, path):
        """As ``get``, and None where nobody answers."""
        try:
            return self.get(path)
        except (OSError, http.client.HTTPException):
            return None

    def wait_ready(self):
        """Return once ``/readyz`` says so."""

        def ready():
            assert self.process.poll() is None, self.log
            answer = self.looks("/readyz")
            return answer is not None and answer[0] == 200

        until(ready, lambda: f"a ready sidecar; it said:\n{self.log}")

    def wait_workers(self):
        """Return once every worker runs the bundle: for ``/readyz``, one is enough."""

        def current():
            workers = self.get("/v1/plugins")[1]["workers"]
            return workers["current"] == workers["wanted"]

        until(current, lambda: f"the bundle in all workers; it said:\n{self.log}")

    def connections(self):
        """How many each worker has."""
        lines = self.get("/metrics")[1].splitlines()
        return [int(float(line.split()[-1])) for line in lines if line.startswith("hookline_connections{")]

    def plugins(self):
        """``/v1/plugins``, the plugins by name."""
        _, body = self.looks("/v1/plugins") or (0, {"plugins": []})
        return {each["name"]: each for each in body["plugins"]}

    def plugin(self, name):
        """One plugin of ``/v1/plugins``."""
        return self.plugins().get(name)

    def problems(self):
        """What ``/v1/plugins`` says of the folder."""
        return self.get("/v1/plugins")[1]["problems"]

    def wait_plugin(self, name, **facts):
        """A plugin once all these facts are true of it; a callable fact is asked."""

        def there():
            found = self.plugin(name)
            good = found is not None and all(
                fact(found[key]) if callable(fact) else found[key] == fact for key, fact in facts.items()
            )
            return found if good else None

        return until(there, lambda: f"plugin {name} with {facts}; it was {self.plugin(name)}")

    def wait_problem(self, words):
        """The first problem whose file, field or message has these words."""

        def there():
            return next((each for each in self.problems() if words in json.dumps(each)), None)

        return until(there, lambda: f"a problem about {words!r}; there were {self.problems()}")

    @property
    def pids(self):
        """Supervisor and workers."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in children.split()]

    @property
    def workers(self):
        """The workers' processes: those that hold the hook port."""
        return [pid for pid in self.pids if self._listens(pid, self.port)]

    @property
    def supervisor(self):
        """The supervisor's process: the child that answers no hooks."""
        workers = self.workers
        return next((pid for pid in self.pids if pid not in workers), None)

    def used(self):
        """What the workers have used of the processor so far, in ticks of 10 ms."""
        facts = [process(pid) for pid in self.workers]
        return sum(int(ticks) for each in facts if each is not None for ticks in each[11:13])

    async def wait_busy(self, before, calls=1):
        """Return when the workers are at work on so many long calls; ``before`` is what was ``used`` before these."""
        await until_true(lambda: self.used() >= before + 10 * calls, "workers that are at work")

    def _listens(self, pid, port):
        inodes = {
            line.split()[9]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        }
        links = set()
        with contextlib.suppress(OSError):
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    links.add(str(each.readlink()))
        return any(f"socket:[{inode}]" in links for inode in inodes)

    @contextlib.asynccontextmanager
    async def client(self, *, unix=False, **options):
        """An HTTP client on the hook endpoint."""
        connector = aiohttp.UnixConnector(str(self.socket), limit=0) if unix else aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}", connector=connector, timeout=timeout, **options
        ) as session:
            yield session

    async def ask(self, hook="custom_hook", body=0, *, unix=False):
        """One hook call's decision."""
        async with self.client(unix=unix) as session:
            return await decide(session, hook, body)

    async def says(self):
        """What the custom hook answers, without its frame."""
        return (await self.ask()).get("value")

    async def wait_says(self, value):
        """Return once the custom hook answers this."""
        said = None

        async def as_wanted():
            nonlocal said
            said = await self.says()
            return said == value

        await until_true(as_wanted, lambda: f"the answer {value!r}; it says {said!r}")

    def raw(self, data, *, seconds=DEADLINE, pieces=None):
        """Send bytes on a new connection; everything that comes back until it is closed."""
        with self.connect() as connection:
            connection.settimeout(seconds)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces or (data,):
                    connection.sendall(piece)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    received += chunk
            return received

    def connect(self):
        """A raw connection."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


async def decide(session, hook="custom_hook", body=0):
    """One hook call on an open client."""
    async with session.post(f"/v1/hooks/{hook}", json=body) as response:
        decision = await response.json()
        assert response.status == 200, decision
        return decision


def process(pid):
    """What the system says of a process, from its state on; None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None


def clean_environment():
    """This environment without what a sidecar would read of it."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HOOKLINE_")}


@pytest.fixture(scope="session")
def guests():
    """The maker of modules."""
    return Guests()


@pytest.fixture(scope="session")
def eventually():
    """``waiting.until``: what has to happen is asked for until it is so."""
    return until


@pytest.fixture(scope="session")
def ports():
    """``reserve_ports``."""
    return reserve_ports


@pytest.fixture(scope="module")
def new_sidecar(tmp_path_factory):
    """Makes sidecars that are not started yet; they end with the module at the latest."""
    made = []

    def make(**options):
        sidecar = Sidecar(tmp_path_factory.mktemp("sidecar"), **options)
        made.append(sidecar)
        return sidecar

    yield make
    for sidecar in made:
        sidecar.end()
