"""Runs commands in a clean clone of HEAD on a machine that has nothing but Python, make and Debian's archive.

The machine is a root folder of its own, made by mmdebstrap of Debian's smallest variant with Python, make and the
certificates of authorities. The commands run in it as root, under CI=true, where nothing may be skipped. Only root can
make one. The bare system is kept in ``~/.cache/hookline/bare`` (``--fresh`` makes it anew), and each run begins with a
copy of it.

Which mirrors and proxies this machine uses is its own business: they are looked up here each time, and told to the
bare one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from images import RELEASE, ROOT, SOURCES, apt_settings, pip_settings

PACKAGES: Final = ("python3", "make", "ca-certificates")
DEFAULT: Final = ("make demo", "make test")
_CLONE: Final = "srv/hookline"
_AUTHORITIES: Final = Path("/usr/local/share/ca-certificates")
_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
# Set by whoever runs this, and true on the bare machine as well: it has the same network.
_NETWORK: Final = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE"),
)
# DANGER: it runs as root. All mounts are made in a namespace of its own that dies with it, and this machine's root is
# gone from it before a command runs: what is removed in there, or afterwards here, is never this machine's.
_ENTER: Final = r"""
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
while read -r name major minor; do mknod -m 666 "$root/dev/$name" c "$major" "$minor"; done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
for link in ptmx:pts/ptmx fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
  ln -s "${link#*:}" "$root/dev/${link%%:*}"
done
mkdir "$root/.outside"
cd "$root"
pivot_root . .outside
umount -l /.outside
rmdir /.outside
cd /srv/hookline
for command; do
  echo "bare machine: $command" >&2
  sh -c "$command" || { status=$?; echo "bare machine: this ended with $status: $command" >&2; exit "$status"; }
done
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = ", ".join(map(repr, DEFAULT))
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"commands to run (default: {default})")
    parser.add_argument("--fresh", action="store_true", help="make the bare system anew")
    parser.add_argument("--keep", action="store_true", help="leave the folder of this run where it is, and name it")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bare machine: only root can make one. Try: sudo make bare")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hookline" / "bare"
    cache.mkdir(parents=True, exist_ok=True)
    system = cache / f"{RELEASE}.tar"
    if options.fresh or not system.exists():
        _make_system(system)
    root = Path(tempfile.mkdtemp(prefix="root-", dir=cache))
    try:
        _fill(root, system)
        status = _run_in(root, options.commands or DEFAULT)
    finally:
        if options.keep:
            _say(f"kept: {root}")
        else:
            shutil.rmtree(root)
    sys.exit(status)


def _make_system(system: Path) -> None:
    _install("mmdebstrap", "debian-archive-keyring")
    _say(f"a bare Debian {RELEASE} with {', '.join(PACKAGES)}, once (minutes, by the mirror) …")
    started = time.monotonic()
    part = system.with_suffix(".part")
    own = Path("/etc/apt/sources.list.d/debian.sources")
    text = own.read_text() if own.exists() and RELEASE in own.read_text() else SOURCES
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "debian.sources"
        sources.write_text(text)
        settings = [f"--aptopt={line.rstrip(';')}" for line in apt_settings()]
        command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        _run(*command, *settings, RELEASE, str(part), str(sources))
    part.replace(system)
    _say(f"the bare system was made in {time.monotonic() - started:.0f} s")


def _install(*packages: str) -> None:
    if shutil.which("mmdebstrap"):
        return
    if not shutil.which("apt-get"):
        sys.exit("bare machine: mmdebstrap is missing. Install it, or run this on Debian or Ubuntu")
    _say(f"installing {' '.join(packages)} …")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    _run("apt-get", "update", "-qq", env=environment)
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, env=environment)


def _fill(root: Path, system: Path) -> None:
    """The bare system, a clone of HEAD, and what this machine knows of its network."""
    root.chmod(0o755)
    _run("tar", "--extract", f"--file={system}", f"--directory={root}", "--exclude=./dev/*")
    _run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(root / _CLONE))
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        (root / name[1:]).unlink(missing_ok=True)
        shutil.copyfile(name, root / name[1:])
    if _AUTHORITIES.is_dir():
        for file in _AUTHORITIES.glob("*.crt"):
            shutil.copy(file, root / str(_AUTHORITIES)[1:])
    pip = pip_settings() | {"cert": _BUNDLE}
    lines = [f"{key} = {value.replace(chr(10), chr(10) + '  ')}\n" for key, value in pip.items()]
    (root / "etc/pip.conf").write_text("[global]\n" + "".join(lines))


def _run_in(root: Path, commands: Sequence[str]) -> int:
    """The exit code of the first command that failed; they see nothing of this machine but its kernel and network."""
    environment = {name: value for name in _NETWORK if (value := os.environ.get(name) or _go_setting(name))}
    environment |= _npm_settings() | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "CI": "true",
    }
    command = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    command += ["sh", "-c", _ENTER, "sh", str(root), "update-ca-certificates >/dev/null", *commands]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def _go_setting(name: str) -> str:
    if not name.startswith("GO") or not shutil.which("go"):
        return ""
    return subprocess.run(["go", "env", name], capture_output=True, text=True, check=False).stdout.strip()


def _npm_settings() -> dict[str, str]:
    """Node brings authorities of its own: it is told of the system's. The registry is this machine's, where npm is."""
    settings = {"NODE_EXTRA_CA_CERTS": _BUNDLE}
    if shutil.which("npm"):
        done = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            settings["npm_config_registry"] = done.stdout.strip()
    return settings


def _run(*command: str, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=os.environ | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"bare machine: this failed with {done.returncode}: {' '.join(command)}\n{done.stdout.strip()}")


def _say(text: str) -> None:
    print(f"bare machine: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
