"""Container images from this repository's Dockerfiles, with a Docker engine or without one.

``python3 scripts/images.py operator sidecar`` writes ``build/images/hookline-{operator,sidecar}.tar``, which
``docker load``, ``kind load image-archive`` and ``ctr -n k8s.io images import`` read. It needs Python alone.

Where no Docker engine answers, Debian's buildah runs the same Dockerfiles as root in a chroot, on a base that
mmdebstrap makes of the same Debian release. Its layers live in ``~/.cache/hookline/images``, outside the repository:
the base by release and options, dependencies by their lock. So a change of sources costs seconds; ``--fresh`` begins
with nothing.

Which mirrors this machine uses is its own business. What pip and apt are told here reaches a build as secrets, mounted
while a step runs: neither a layer nor the image's history knows of it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RELEASE: Final = "bookworm"  # of Debian, the one in the Dockerfiles' BASE
_E2E: Final = ROOT / "tests" / "e2e" / "images"
# Each image: its Dockerfile and the folder that is sent to the build.
IMAGES: Final[Mapping[str, tuple[Path, Path]]] = {
    "operator": (ROOT / "operator" / "Dockerfile", ROOT),
    "sidecar": (ROOT / "sidecar" / "Dockerfile", ROOT),
    **{name: (_E2E / name / "Dockerfile", _E2E / name) for name in ("nginx", "tools", "postgres", "valkey")},
}

# The same as debian:bookworm-slim: no manual pages, translations and documentation, the licenses excepted.
_DPKG_OPTIONS: Final = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
_MMDEBSTRAP_OPTIONS: Final = (
    "--variant=minbase",
    # Born with merged folders, and so without usrmerge, which would bring the whole of Perl.
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    "--include=usr-is-merged",
    *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
)
# What mmdebstrap leaves of this machine's network and name: a base tells nothing of where it was made.
_TRACES: Final = (
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/*",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/var/cache/debconf/*-old",
    "/var/log/*",
)
SOURCES: Final = f"""\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {RELEASE} {RELEASE}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {RELEASE}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_BASE: Final = """\
FROM scratch
ADD base.tar /
COPY debian.sources /etc/apt/sources.list.d/debian.sources
CMD ["bash"]
"""
# Each build leaves some layers, and all are looked through for one to use again: beyond this number unused ones go,
# and some with them that the next build has to make anew.
_MANY: Final = 600
_PIP_SETTINGS: Final = frozenset({
    "cert", "client-cert", "default-timeout", "extra-index-url", "find-links", "index-url", "no-index", "proxy",
    "retries", "timeout", "trusted-host",
})  # fmt: skip
_APT_SETTING: Final = re.compile(r"Acquire::(Retries|Check-|https?::(Proxy|Timeout|Verify|[^ ]+::Proxy))")
# Where the Dockerfiles mount these. Not over a file that the base has: buildah would take it away for good.
_CA_IN_BUILD: Final = "/run/secrets/ca"
_SOURCES_IN_BUILD: Final = "/run/secrets/build.sources"
_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class ImagesError(Exception):
    """Why there is no image, and what to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What all images of one run share. Secrets are files by id, arguments those of the Dockerfiles."""

    prefix: str
    tag: str
    out: Path
    secrets: Mapping[str, Path]
    arguments: Mapping[str, str]

    def reference(self, name: str) -> str:
        """The name of the image: ``hookline-sidecar:dev``."""
        return f"{self.prefix}{name}:{self.tag}"

    def full_reference(self, name: str) -> str:
        """What Docker and Kubernetes make of that name: ``docker.io/library/hookline-sidecar:dev``."""
        reference = self.reference(name)
        host, slash, _ = reference.partition("/")
        if not slash:
            return f"docker.io/library/{reference}"
        return reference if "." in host or ":" in host or host == "localhost" else f"docker.io/{reference}"

    def archive(self, name: str) -> Path:
        """The file that the image is written to."""
        return self.out / f"hookline-{name}.tar"

    def flags(self, name: str) -> list[str]:
        """What ``docker build`` and ``buildah bud`` have in common."""
        dockerfile, _ = IMAGES[name]
        secrets = [f"--secret=id={key},src={path}" for key, path in self.secrets.items()]
        arguments = [f"--build-arg={key}={value}" for key, value in self.arguments.items()]
        return [f"--file={dockerfile}", *secrets, *arguments]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Build container images into archives, with a Docker engine or without one.",
        epilog="The layers are kept in ${XDG_CACHE_HOME:-~/.cache}/hookline/images where no Docker engine runs.",
    )
    parser.add_argument("names", nargs="*", metavar="IMAGE", help=f"{', '.join(IMAGES)} (default: operator sidecar)")
    parser.add_argument("--prefix", default="hookline-", help="what the images' names begin with (default: hookline-)")
    parser.add_argument("--tag", default="dev", help="tag of the images (default: dev)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "images", help="folder of the archives")
    parser.add_argument("--fresh", action="store_true", help="begin with a new base and no cache")
    options = parser.parse_args()
    names = options.names or ["operator", "sidecar"]
    if unknown := set(names) - set(IMAGES):
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(IMAGES)}")
    try:
        build(names, prefix=options.prefix, tag=options.tag, out=options.out, fresh=options.fresh)
    except ImagesError as error:
        sys.exit(f"images: {error}")


def build(names: Sequence[str], *, prefix: str = "hookline-", tag: str = "dev", out: Path, fresh: bool = False) -> None:
    """Build the images ``names``, in that order, into ``out/hookline-NAME.tar``. Raises ImagesError."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hookline-images-") as folder:
        what = Build(
            prefix=prefix, tag=tag, out=out, secrets=_secrets(Path(folder)),
            arguments={"VERSION": _version(), "REVISION": _revision()},
        )  # fmt: skip
        builder = _build_with_docker if _docker_runs() else _build_with_buildah
        builder(what, names, fresh=fresh)


# ---- with a Docker engine


def _docker_runs() -> bool:
    return bool(shutil.which("docker")) and _works("docker", "info")


def _build_with_docker(what: Build, names: Sequence[str], *, fresh: bool) -> None:
    extra = ["--pull", "--no-cache"] if fresh else []
    # Without a value they are taken from the environment; these names leave no trace in the history.
    extra += [f"--build-arg={name}" for name in _PROXY_VARIABLES if os.environ.get(name)]
    for name in names:
        with _told(f"{what.reference(name)} by Docker"):
            _, context = IMAGES[name]
            # BuildKit, which alone knows mounts, was optional before Docker 23.
            environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
            reference = what.reference(name)
            _run(["docker", "build", *what.flags(name), *extra, f"--tag={reference}", str(context)], environment)
            with _replaced(what.archive(name)) as archive:
                _run(["docker", "save", f"--output={archive}", reference])


# ---- without one


def _build_with_buildah(what: Build, names: Sequence[str], *, fresh: bool) -> None:
    if os.geteuid() != 0:
        raise ImagesError("no Docker engine answers, and without one only root can build: start Docker, or use sudo")
    _install()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hookline" / "images"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # One at a time: two would make the same base twice.
        fcntl.flock(lock, fcntl.LOCK_EX)
        buildah = _buildah(cache)
        if fresh:
            _say("forgetting all layers …")
            _run([*buildah, "rmi", "--all", "--force"], quiet=True)
        base = _base(buildah, cache, what.secrets)
        for name in names:
            _build_one(buildah, what, name, base)
        listed = subprocess.run([*buildah, "images", "--all", "--quiet"], capture_output=True, text=True, check=False)
        if listed.stdout.count("\n") > _MANY:
            _say("forgetting old layers …")
            _run([*buildah, "rmi", "--prune"], quiet=True)


def _build_one(buildah: Sequence[str], what: Build, name: str, base: str) -> None:
    reference = what.full_reference(name)
    _, context = IMAGES[name]
    with _told(f"{what.reference(name)} by buildah"):
        command = [*buildah, "bud", "--isolation=chroot", "--network=host", "--layers", "--pull-never"]
        command += [*what.flags(name), f"--build-arg=BASE={base}", f"--tag={reference}", str(context)]
        _run(command)
        with _replaced(what.archive(name)) as archive:
            _run([*buildah, "push", "--quiet", reference, f"docker-archive:{archive}:{reference}"], quiet=True)


def _buildah(cache: Path) -> list[str]:
    # What is mounted is forgotten at the next start of the machine, as the storage library wants it: under /run.
    key = hashlib.sha256(str(cache).encode()).hexdigest()[:12]
    for driver in ("overlay", "vfs"):  # vfs copies every layer, but works on overlayfs too, as within a container
        # TMPDIR: where buildah keeps the caches that a Dockerfile mounts.
        command = ["env", f"TMPDIR={cache}", "buildah", "--storage-driver", driver, "--root", str(cache / driver)]
        command += ["--runroot", f"/run/hookline-images-{key}-{driver}"]
        if _works(*command, "images"):
            return command
    raise ImagesError(f"buildah cannot keep images in {cache}; see: {' '.join(command)} images")


def _base(buildah: Sequence[str], cache: Path, secrets: Mapping[str, Path]) -> str:
    """The base image's name; it is made where it is missing."""
    key = hashlib.sha256("\n".join((RELEASE, *_MMDEBSTRAP_OPTIONS, *_TRACES, SOURCES, _BASE)).encode()).hexdigest()[:12]
    name = f"localhost/hookline-base:{RELEASE}-{key}"
    if _works(*buildah, "inspect", "--type=image", name):
        return name
    with _told(f"a base of Debian {RELEASE} by mmdebstrap"), tempfile.TemporaryDirectory(dir=cache) as folder:
        context = Path(folder)
        command = ["mmdebstrap", "--quiet", *_MMDEBSTRAP_OPTIONS]
        command += [f"--aptopt={line.rstrip(';')}" for line in apt_settings()]
        command += ["--customize-hook=rm -rf " + " ".join(f'"$1"{path}' for path in _TRACES)]
        sources = secrets.get("sources", context / "debian.sources")
        (context / "debian.sources").write_text(SOURCES)
        _run([*command, RELEASE, str(context / "base.tar"), str(sources)], quiet=True)
        (context / "Dockerfile").write_text(_BASE)
        _run([*buildah, "bud", "--isolation=chroot", "--quiet", f"--tag={name}", str(context)], quiet=True)
    return name


def _install() -> None:
    """What builds without a Docker engine, from Debian's or Ubuntu's packages."""
    files = {
        "buildah": "/usr/bin/buildah",
        "mmdebstrap": "/usr/bin/mmdebstrap",
        "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
    }
    missing = [package for package, file in files.items() if not Path(file).exists()]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ImagesError(f"no Docker engine answers; without one, {', '.join(missing)} are needed and not installed")
    with _told(f"installing {' '.join(missing)}"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "update", "-qq"], environment, quiet=True)
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], environment, quiet=True)


# ---- what this machine knows about its mirrors


def _secrets(folder: Path) -> dict[str, Path]:
    """Files for the secrets of the Dockerfiles, as far as this machine has anything to tell."""
    found: dict[str, Path] = {}

    def keep(name: str, text: str) -> None:
        if text:
            found[name] = folder / name
            found[name].write_text(text)

    pip = pip_settings()
    authorities = Path(pip.get("cert") or os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    if authorities.is_file():
        keep("ca", authorities.read_text())
        pip["cert"] = _CA_IN_BUILD
    else:
        pip.pop("cert", None)
    keep(
        "pip",
        "[global]\n" + "".join(f"{key} = {value.replace(chr(10), chr(10) + '  ')}\n" for key, value in pip.items()),
    )

    apt = apt_settings()
    if "ca" in found:
        apt.append(f'Acquire::https::CAInfo "{_CA_IN_BUILD}";')
    if f"VERSION_CODENAME={RELEASE}\n" in _text("/etc/os-release"):
        # Only Debian's own: what else a machine has there is not for a base.
        keep("sources", _text("/etc/apt/sources.list.d/debian.sources"))
    if "sources" in found:
        apt += [f'Dir::Etc::SourceList "{_SOURCES_IN_BUILD}";', 'Dir::Etc::SourceParts "-";']
    keep("apt", "".join(f"{line}\n" for line in apt))
    return found


def pip_settings() -> dict[str, str]:
    """What pip says of its files and variables; the last of them wins."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:  # Debian's python3 may have no pip
        lines = [f":env:.{key[4:].lower()}={value!r}" for key, value in os.environ.items() if key.startswith("PIP_")]
    settings: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        key = key.replace("_", "-")
        if section in {"global", "install", ":env:"} and key in _PIP_SETTINGS:
            settings[key] = ast.literal_eval(value)
    # A folder of this machine is not in the build.
    links = [link for link in settings.pop("find-links", "").split() if "://" in link]
    return settings | ({"find-links": "\n".join(links)} if links else {})


def apt_settings() -> list[str]:
    """What apt-config says here of proxies, timeouts and checks: lines of an apt.conf."""
    if not shutil.which("apt-config"):
        return []
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [line for line in dump.splitlines() if _APT_SETTING.match(line) and not line.endswith(' "";')]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


# ---- running things


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None, *, quiet: bool = False) -> None:
    """Run it with its words on stderr; quiet, only where it fails."""
    where = subprocess.PIPE if quiet else sys.stderr
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=where,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        words = f", and said:\n{done.stdout.strip()}" if quiet else "; what it said is above"
        raise ImagesError(f"this failed with {done.returncode}: {' '.join(command)}{words}")


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A name to write to that becomes ``path`` when all went well: buildah refuses to write over an archive."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    _say(f"{what} …")
    start = time.monotonic()
    yield
    _say(f"{what}: {time.monotonic() - start:.1f} s")


def _say(text: str) -> None:
    print(f"images: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
