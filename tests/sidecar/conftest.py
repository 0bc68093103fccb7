"""Real sidecar processes on ports of 127.0.0.1, the guests that they run, and ways to ask them.

Every sidecar has its own folders, and only its own processes are ever signalled. Nothing sleeps for luck: what has
to happen is polled, with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import wasmtime
import yaml

from cluster.binaries import cache
from hookline_api.hooks import Hook
from hookline_runtime.host.kv import KvStore
from local_ports import reserve_port, reserve_ports
from ready_programs import ready
from waiting import PATIENCE_S as DEADLINE
from waiting import until, until_true

_GUARD = Path(__file__).parent / "heliosdb" / "guard"
_PACKAGES = Path("/usr/share/cargo/registry")
"""Where Debian's packages put the sources of crates."""

_BUMP = """
(global $top (mut i32) (i32.const 65536))
(func $alloc (export "alloc") (param $n i32) (result i32)
  (local $p i32)
  (local.set $p (global.get $top))
  (global.set $top (i32.add (global.get $top) (local.get $n)))
  (loop $more
    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
      (then (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))))
  (local.get $p))
"""


class Guests:
    """Makes small modules of the guest ABI."""

    echo = """(i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))
                      (i64.extend_i32_u (local.get $n)))"""
    forever = "(loop $ever (br $ever)) (i64.const 0)"
    trap = "unreachable"

    def module(self, hooks, *, imports="", data=None, parts=""):
        """The bytes of a module; ``hooks`` are bodies by name, in which ``$p`` and ``$n`` are the input."""
        functions = [
            f'(func (export "{name}") (param $p i32) (param $n i32) (result i64) (local $i i64) {body})'
            for name, body in hooks.items()
        ]
        segments = [
            '(data (i32.const {}) "{}")'.format(where, "".join(f"\\{byte:02x}" for byte in raw))
            for where, raw in (data or {}).items()
        ]
        text = ["(module", imports, '(memory (export "memory") 2)', *segments, _BUMP, *functions, parts, ")"]
        return bytes(wasmtime.wat2wasm("\n".join(text)))

    def answering(self, **answers):
        """A module whose hooks answer these constants, written as JSON."""
        bodies, data, at = {}, {}, 1024
        for name, answer in answers.items():
            data[at] = raw = json.dumps(answer).encode()
            bodies[name] = f"(i64.const {at << 32 | len(raw)})"
            at += len(raw) + 16
        return self.module(bodies, data=data)

    def saying(self, value):
        """A module whose custom hook answers a constant: to tell versions apart."""
        return self.answering(custom_hook=value)

    def configured(self):
        """A module whose every hook answers what its config holds under the hook's name; nothing without."""
        names = {hook.value: 1024 + 64 * index for index, hook in enumerate(Hook)}
        return self.module(
            {name: f"(call $get_config (i32.const {where}) (i32.const {len(name)}))" for name, where in names.items()},
            imports='(import "hookline" "get_config" (func $get_config (param i32 i32) (result i64)))',
            data={where: name.encode() for name, where in names.items()},
        )

    def stored(self, hook="custom_hook"):
        """A module whose hook answers the value at the key ``k`` of the plugin's store; nothing without."""
        body = """
        (local.set $n (call $kv_get (i32.const 1024) (i32.const 1) (i32.const 4096) (i32.const 16384)))
        (if (i32.lt_s (local.get $n) (i32.const 0)) (then (return (i64.const 0))))
        (i64.or (i64.shl (i64.const 4096) (i64.const 32)) (i64.extend_i32_u (local.get $n)))"""
        return self.module(
            {hook: body},
            imports='(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))',
            data={1024: b"k"},
        )

    def busy(self, rounds):
        """A module whose custom hook counts to ``rounds`` (about a nanosecond each), then answers its input."""
        counting = f"""(loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
                       (br_if $more (i64.lt_u (local.get $i) (i64.const {rounds}))))"""
        return self.module({"custom_hook": counting + self.echo})

    def patient(self):
        """A module whose custom hook is at work until ``Sidecar.let_go``, and then answers its input.

        It needs the permission ``kv.read``.
        """
        waiting = """(loop $until
          (local.set $i (i64.const 0))
          (loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
            (br_if $more (i64.lt_u (local.get $i) (i64.const 3000000))))
          (br_if $until (i32.lt_s
            (call $kv_get (i32.const 1024) (i32.const 2) (i32.const 2048) (i32.const 8)) (i32.const 0))))"""
        return self.module(
            {"custom_hook": waiting + self.echo},
            imports='(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))',
            data={1024: b"go"},
        )

    def counter(self):
        """A module whose custom hook adds one to the number at the key ``n`` and answers the sum."""
        body = """
        (local.set $i (call $incr (i32.const 1024) (i32.const 1) (i64.const 1)))
        (call $digits (local.get $i))"""
        digits = """
        (func $digits (param $v i64) (result i64) (local $at i32)
          (local.set $at (i32.const 4096))
          (loop $more
            (local.set $at (i32.sub (local.get $at) (i32.const 1)))
            (i32.store8 (local.get $at)
              (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $v) (i64.const 10)))))
            (local.set $v (i64.div_u (local.get $v) (i64.const 10)))
            (br_if $more (i64.ne (local.get $v) (i64.const 0))))
          (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
                  (i64.extend_i32_u (i32.sub (i32.const 4096) (local.get $at)))))"""
        return self.module(
            {"custom_hook": body},
            imports='(import "hookline" "kv_incr" (func $incr (param i32 i32 i64) (result i64)))',
            data={1024: b"n"},
            parts=digits,
        )


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


class Load:
    """Client loops that ask some hundred times a second; what they got."""

    def __init__(self):
        self.answers = []
        self.failures = []
        self._going = True
        self._tasks = []

    async def loop(self, sidecar, hook, body, *, reconnect):
        """One client; with ``reconnect`` it asks again where its connection broke."""
        async with sidecar.client() as session:
            while self._going:
                try:
                    self.answers.append(await decide(session, hook, body))
                    await asyncio.sleep(0.002)  # the pace: a full processor would starve the compiler
                except (aiohttp.ClientError, AssertionError) as error:
                    self.failures.append(repr(error))
                    if not reconnect:
                        return

    async def reaches(self, count):
        """Return when so many more answers have come."""
        goal = len(self.answers) + count
        await until_true(
            lambda: len(self.answers) >= goal,
            lambda: f"{count} more answers; {len(self.answers)} of {goal}, and {self.failures[-3:]}",
        )


@pytest.fixture(scope="session")
def guests():
    """The maker of modules."""
    return Guests()


@pytest.fixture(scope="session")
def heliosdb_guard(tmp_path_factory, need):
    """A guard that reads its input as HeliosDB's SDK does; Debian's cargo builds it once, from crates of Debian's."""
    for program, package in ("/usr/bin/cargo", "cargo"), ("/usr/bin/rustc", "rustc"), ("/usr/bin/rust-lld", "lld"):
        need(program, package)
    if not list(_PACKAGES.glob("serde_json-*")):
        need("serde", "librust-serde-json-dev librust-serde-derive-dev")
    work, target = tmp_path_factory.mktemp("guard"), cache() / "heliosdb-guard"
    shutil.copytree(_GUARD, work, dirs_exist_ok=True)  # cargo writes a lock beside the manifest
    command = [
        "/usr/bin/cargo", "build", "--quiet", "--release", "--offline", "--target", "wasm32-unknown-unknown",
        "--target-dir", target, "--config", 'source.crates-io.replace-with="packages"',
        "--config", f'source.packages.directory="{_PACKAGES}"',
    ]  # fmt: skip
    path = {"PATH": f"/usr/bin:/bin:{os.environ['PATH']}", "RUSTC": "/usr/bin/rustc"}
    subprocess.run(command, cwd=work, env=os.environ | path, check=True)
    return (target / "wasm32-unknown-unknown" / "release" / "guard.wasm").read_bytes()


@pytest.fixture(scope="session")
def make_manifest():
    """``manifest``."""
    return manifest


@pytest.fixture(scope="session")
def eventually():
    """``waiting.until``: what has to happen is asked for until it is so."""
    return until


@pytest.fixture(scope="session")
def all_gone():
    """Whether none of these processes runs."""
    return lambda pids: all(facts is None or facts[0] == "Z" for facts in map(process, pids))


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


@pytest.fixture
def sidecar(new_sidecar):
    """A sidecar that is not started yet, where a file has no other."""
    sidecar = new_sidecar()
    yield sidecar
    sidecar.end()


@pytest.fixture
def load():
    """Runs client loops while the body of an ``async with`` goes on."""

    @contextlib.asynccontextmanager
    async def run(sidecar, *, clients=4, hook="custom_hook", body=0, reconnect=False):
        made = Load()
        tasks = [asyncio.create_task(made.loop(sidecar, hook, body, reconnect=reconnect)) for _ in range(clients)]
        try:
            yield made
        finally:
            made._going = False
            await asyncio.gather(*tasks)

    return run


@pytest.fixture
def operator(tmp_path):
    """An operator that does what it is told; see operator_double.py."""
    # Beside this file, which is no package: tests are imported each by its path.
    path = Path(__file__).with_name("operator_double.py")
    spec = importlib.util.spec_from_file_location("operator_double", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.OperatorDouble(tmp_path, reserve_port()).start()
    yield made
    made.end()
