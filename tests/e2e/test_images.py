"""The images are built from their Dockerfiles, and run as a cluster with restricted pod security runs them.

That is by runc, on a read-only root, as a user by number who is nobody, and without capabilities.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local_ports import reserve_port, reserve_ports
from waiting import PATIENCE_S as DEADLINE
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
NAMES = ("operator", "sidecar", "nginx", "tools", "postgres", "valkey")
NOBODY = 65532
MIRROR = "a-mirror-of-our-own.example"

# A guest that answers a constant to pre_query.
_ANSWER = b'{"action":"block","value":"no"}'
_GUEST = f"""
(module
  (memory (export "memory") 2)
  (data (i32.const 1024) "{"".join(f"{chr(92)}{byte:02x}" for byte in _ANSWER)}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "pre_query") (param i32 i32) (result i64) (i64.const {1024 << 32 | len(_ANSWER)})))
"""
_MANIFEST = """
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {name: refuses}
spec: {source: {file: {path: refuses.wasm}}}
"""
# For nginx, as a ConfigMap brings it.
_PROXY = """
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {
        listen 127.0.0.1:PORT;
        location = /mounted { return 200 "mounted"; }
        location = /kept { auth_request /asked; root /etc; }
        location = /asked { internal; return 403; }
    }
}
"""


@dataclass(frozen=True)
class Image:
    """An image as its archive has it, and its files as a container sees them."""

    archive: Path
    root: Path
    tags: list[str]
    layers: list[str]
    config: dict[str, Any]

    @property
    def packages(self) -> Path:
        """Where the project and its dependencies are."""
        return self.root / "opt/hookline/lib/python3.11/site-packages"


@dataclass(frozen=True)
class Container:
    """A process that runs in an image."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> str:
        """What it said, once it ended well."""
        assert self.process.wait(DEADLINE) == 0, self.log.read_text()
        return self.log.read_text()

    def answer(self, request: str | urllib.request.Request) -> tuple[int, bytes]:
        """The status and body, once somebody listens."""

        def asked() -> tuple[int, bytes]:
            assert self.process.poll() is None, f"it ended; it said:\n{self.log.read_text()}"
            try:
                with urllib.request.urlopen(request, timeout=DEADLINE) as response:
                    return response.status, response.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        return until(asked, lambda: f"an answer; the container said:\n{self.log.read_text()}", ignoring=(OSError,))


@pytest.fixture(scope="module")
def images(need, tmp_path_factory) -> Iterator[dict[str, Image]]:
    """All images, built and unpacked."""
    need("runc", "runc")
    if os.geteuid() != 0:
        pytest.skip("runc starts containers for root alone")
    out = tmp_path_factory.mktemp("images")
    command = [sys.executable, ROOT / "scripts" / "images.py", "--tag", "test", "--out", out, *NAMES]
    subprocess.run(command, check=True, env={**os.environ, "PIP_TRUSTED_HOST": MIRROR})
    yield {name: _unpacked(out / f"hookline-{name}.tar", out / name) for name in NAMES}
    shutil.rmtree(out)


@pytest.fixture
def start(images, tmp_path):
    """Start an image's entry point, or ``program``, until the test ends.

    ``mounts`` are files or folders by the path where they are read-only; ``writable`` are empty folders.
    """
    tmp_path.chmod(0o755)  # pytest's are for their owner alone
    with contextlib.ExitStack() as containers:

        def start(name, *arguments, program=(), mounts=None, writable=()) -> Container:
            image = images[name]
            command = [*(program or image.config["Entrypoint"]), *arguments]
            empty = [*writable, *(image.config.get("Volumes") or ())]
            return containers.enter_context(_running(image, command, mounts or {}, empty, tmp_path))

        yield start


def test_a_sidecar_answers_hooks_on_a_read_only_root_as_nobody(start, tmp_path) -> None:
    """With nothing writable but its state, and without any capability."""
    wasmtime = pytest.importorskip("wasmtime")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "refuses.wasm").write_bytes(wasmtime.wat2wasm(_GUEST))
    (plugins / "refuses.yaml").write_text(_MANIFEST)
    hooks, admin = reserve_ports(2)
    arguments = ["--plugins", "/plugins", "--listen", f"127.0.0.1:{hooks}", "--admin", f"127.0.0.1:{admin}"]
    sidecar = start("sidecar", *arguments, mounts={"/plugins": plugins})
    assert sidecar.answer(f"http://127.0.0.1:{admin}/healthz")[0] == 200
    until(lambda: sidecar.answer(f"http://127.0.0.1:{admin}/readyz")[0] == 200, sidecar.log.read_text)
    call = urllib.request.Request(
        f"http://127.0.0.1:{hooks}/v1/hooks/pre_query",
        data=b'{"query": "drop table t"}',
        headers={"content-type": "application/json"},
    )
    status, body = sidecar.answer(call)
    answer = json.loads(body)
    assert (status, answer["action"], answer["value"]) == (200, "block", "no")


@pytest.mark.parametrize("name", ["operator", "sidecar"])
def test_each_part_explains_itself(start, name) -> None:
    """``--help`` of the entry point, from the image alone."""
    assert f"usage: hookline-{name}" in start(name, "--help").ended()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("operator", ["hookline_api", "hookline_artifacts", "hookline_serving", "hookline_operator"]),
        ("sidecar", ["hookline_api", "hookline_artifacts", "hookline_runtime", "hookline_serving", "hookline_sidecar"]),
    ],
)
def test_every_module_that_a_part_uses_loads(images, start, name, ours) -> None:
    """Our own, and all extension modules: they were stripped of symbols, and need system libraries of the image."""
    packages = images[name].packages
    extensions = [file for file in packages.rglob("*.so") if re.search(r"\.(cpython-|abi3)", file.name)]
    sources = [file for folder in ours for file in (packages / folder).rglob("*.py") if not file.stem.startswith("__")]
    assert len(extensions) > 5
    assert len(sources) > 10
    # Our own first: psycopg_binary is loaded by psycopg alone.
    modules = [str(file.relative_to(packages)).split(".", 1)[0].replace("/", ".") for file in sources + extensions]
    program = f"import importlib, ssl, ctypes\nfor name in {modules}: importlib.import_module(name)\nprint('loaded')"
    assert "loaded" in start(name, program=["python", "-W", "error", "-c", program]).ended()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_nobody_by_number(images, name) -> None:
    """A kubelet refuses a name where runAsNonRoot is asked for: it cannot tell who that is."""
    assert images[name].config["User"] == f"{NOBODY}:{NOBODY}"


def test_an_image_says_what_it_is(images) -> None:
    """Its names, entry point, state and labels."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("operator", "sidecar"):
        image = images[name]
        assert [tag.removeprefix("docker.io/library/") for tag in image.tags] == [f"hookline-{name}:test"]
        assert image.config["Entrypoint"] == [f"hookline-{name}"]
        assert image.config["Labels"]["org.opencontainers.image.title"] == f"hookline-{name}"
        assert image.config["Labels"]["org.opencontainers.image.version"] == version
        assert image.config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert list(images["operator"].config["Volumes"]) == ["/var/cache/hookline"]
    assert list(images["sidecar"].config["Volumes"]) == ["/var/lib/hookline"]


def test_an_image_holds_what_it_runs_and_no_more(images) -> None:
    """No installer, no compiler, nothing of the other part; the operator cannot run WebAssembly at all."""
    for name in ("operator", "sidecar"):
        image = images[name]
        for pattern in ("pip", "ensurepip", "setuptools", "hatchling"):
            assert not list(image.root.rglob(pattern)), f"{pattern} in {name}"
        for program in ("gcc", "cc", "strip", "ld", "git", "curl"):
            assert not (image.root / "usr/bin" / program).exists()
        assert not list(image.packages.rglob("tests"))
        installed = {path.name for path in image.packages.glob("hookline_*")}
        compiled = {"hookline_accelerator.abi3.so"} if name == "sidecar" else set()
        runtime = {"hookline_runtime"} if name == "sidecar" else set()
        command = {"hookline_cli", "hookline_sdk"} if name == "sidecar" else set()
        libraries = {"hookline_api", "hookline_artifacts", "hookline_serving"}
        assert installed == libraries | runtime | command | {f"hookline_{name}"} | compiled
        programs = {f"hookline-{name}"} | ({"hookline"} if command else set())
        assert {path.name for path in (image.root / "opt/hookline/bin").glob("hookline*")} == programs
    assert [path.name for path in (images["sidecar"].packages / "hookline_sdk").iterdir() if path.is_dir()] == [
        "__pycache__"
    ]  # its templates are for a desk with compilers
    for engine in ("wasmtime", "lmdb", "uvloop"):
        assert not (images["operator"].packages / engine).exists()
        assert (images["sidecar"].packages / engine).exists()


def test_nothing_is_compiled_at_each_start(images) -> None:
    """Every module has its bytecode, since a read-only root could not keep it."""
    for name in ("operator", "sidecar"):
        for source in images[name].packages.glob("hookline_*/**/*.py"):
            assert (source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc").exists(), source


def test_a_new_version_is_a_small_download(images) -> None:
    """Both images share Debian and Python, and the project is a layer of its own over its dependencies."""
    assert images["operator"].layers[:2] == images["sidecar"].layers[:2]
    for name in ("operator", "sidecar"):
        with tarfile.open(images[name].archive) as archive:
            sizes = [archive.getmember(layer).size for layer in images[name].layers]
        assert sizes[-1] < 8 * 2**20  # packed, a third of it


def test_images_do_not_tell_where_they_were_built(images) -> None:
    """Neither this machine's mirrors, which the build used, nor its name, nor the folder of the checkout."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    text = told.stdout + (sources.read_text() if sources.exists() else "")
    hosts = {MIRROR} | {host.rpartition("@")[2] for host in re.findall(r"https?://([^/\s'\"\\]+)", text)}
    public = {"deb.debian.org", "security.debian.org", "snapshot.debian.org", "pypi.org", "files.pythonhosted.org"}
    secrets = [secret.encode() for secret in (*(hosts - public), str(ROOT))]
    for name in NAMES:
        image = images[name]
        for settings in ("etc/resolv.conf", "etc/hostname", "etc/pip.conf", "etc/apt/apt.conf.d/99build"):
            assert not (image.root / settings).exists() or not (image.root / settings).read_text().strip()
        with image.archive.open("rb") as file:
            rest = b""
            while chunk := file.read(2**24):
                found = [secret for secret in secrets if secret in rest + chunk]
                assert not found, f"the image {name} tells of {found}"
                rest = chunk[-1000:]


def test_nginx_takes_its_configuration_from_a_mount(start, tmp_path) -> None:
    """And asks by subrequest, which is how the end-to-end tests put a sidecar behind it."""
    port = reserve_port()
    (tmp_path / "nginx.conf").write_text(_PROXY.replace("PORT", str(port)))
    nginx = start("nginx", mounts={"/etc/nginx/nginx.conf": tmp_path / "nginx.conf"}, writable=["/tmp"])
    assert nginx.answer(f"http://127.0.0.1:{port}/mounted") == (200, b"mounted")
    assert nginx.answer(f"http://127.0.0.1:{port}/kept")[0] == 403


def test_the_tools_can_serve_and_ask(start) -> None:
    """Python and curl."""
    tools = start("tools", program=["sh", "-c", "python3 -c 'import ssl, asyncio' && curl --version"])
    assert "curl" in tools.ended()


def _unpacked(archive: Path, root: Path) -> Image:
    """What a container engine does with an archive, for images that replace and delete files of lower layers."""
    root.mkdir()
    # Python 3.11.2, which Debian has, knows no filters, and trusts.
    trusted: Any = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(archive) as outer:
        (manifest,) = json.loads(_read(outer, "manifest.json"))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                for member in inner:
                    folder, name = os.path.split(member.name)
                    if name.startswith(".wh."):
                        gone = root / folder / name.removeprefix(".wh.")
                        assert gone != root / folder, "an opaque folder is not expected"
                        subprocess.run(["rm", "-rf", gone], check=True)
                    else:
                        # Hard links and absolute symbolic links are an image's own business: it is ours.
                        inner.extract(member, root, numeric_owner=True, **trusted)
        config = json.loads(_read(outer, manifest["Config"]))["config"]
    return Image(archive=archive, root=root, tags=manifest["RepoTags"], layers=manifest["Layers"], config=config)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


@contextlib.contextmanager
def _running(
    image: Image, command: list[str], mounts: dict[str, Path], empty: list[str], folder: Path
) -> Iterator[Container]:
    """The container of a pod with restricted security, in this machine's network."""
    number = uuid.uuid4().hex[:8]
    bundle, state = folder / f"bundle-{number}", folder / "runc"
    bundle.mkdir()
    specification = {
        "ociVersion": "1.0.2",
        "process": {
            "args": command,
            "env": image.config["Env"],
            "cwd": image.config.get("WorkingDir") or "/",
            "user": {"uid": NOBODY, "gid": NOBODY},
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *(
                {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": [f"uid={NOBODY}", "mode=700"]}
                for path in empty
            ),
            *(
                {"destination": path, "type": "bind", "source": str(source), "options": ["bind", "ro"]}
                for path, source in mounts.items()
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }
    (bundle / "config.json").write_text(json.dumps(specification))
    log = bundle / "log"
    runc = ["runc", "--root", str(state)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*runc, "run", "--bundle", bundle, number], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Container(process, log)
    finally:
        subprocess.run([*runc, "delete", "--force", number], capture_output=True, check=False)
        process.wait(DEADLINE)
