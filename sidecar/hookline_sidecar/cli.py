"""``hookline-sidecar``: the command line."""

from __future__ import annotations

import argparse
import gc
import grp
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hookline_api import plugins_of_pydantic
from hookline_api.commands import (
    Address,
    Options,
    address,
    existing_or_not,
    keep_secrets,
    log_to_stderr,
    one_of,
)
from hookline_api.quantities import parse_duration, parse_size
from hookline_sidecar import kv_command
from hookline_sidecar.hooks.original import PROXIES
from hookline_sidecar.settings import TRUST_POLICIES, OperatorSettings, Settings, default_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hookline_artifacts.net.proxies import Proxies

_EPILOG: Final = """\
Each option can also be set in the environment (--max-body as HOOKLINE_MAX_BODY); the command line wins.
HTTP_PROXY, HTTPS_PROXY and NO_PROXY are for registries and URLs of --plugins, and for nothing else.

examples:
  hookline-sidecar --plugins ./plugins
  hookline-sidecar --plugins /etc/hookline --socket /run/hookline/hooks.sock --socket-group www-data --workers 2
  hookline-sidecar --operator https://hookline-operator.hookline-system.svc \\
    --operator-ca /var/run/secrets/hookline.dev/ca.crt --operator-token /var/run/secrets/hookline.dev/token

  curl -s localhost:9901/v1/hooks/pre_query -H 'content-type: application/json' -d '{"query": "drop table t"}'
  curl -s localhost:9902/v1/plugins

ask a running sidecar what it runs, and read or write its plugins' keys, over the socket in its --state:
  hookline-sidecar get /v1/plugins
  hookline-sidecar kv --help

signals:
  SIGTERM  stop accepting connections, finish calls under way, exit
  SIGHUP   read the plugin folder again (or connect to the operator at once), and retry what failed
"""
_ADMIN: Final[Address] = ("127.0.0.1", 9902)
_OFF: Final = "off"
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - looked for, not listened at
_LEAST_CACHE_MEMORY: Final = 4 * 2**20
_EXIT_USAGE: Final = 2
_NO_ID: Final = 2**32 - 1  # to chown it means "leave it"


def main() -> None:
    """The entry point of ``hookline-sidecar``."""
    plugins_of_pydantic.switch_off()
    gc.disable()  # what is imported is no garbage; ``parent`` looks for some once it is
    sys.exit(run(sys.argv[1:], os.environ))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a sidecar, ``kv`` or ``get``; the exit code: 0 after a clean stop, 2 for what cannot be, 1 otherwise."""
    if arguments and arguments[0] == "kv":
        return kv_command.run(arguments[1:], environment)
    if arguments and arguments[0] == "get":
        return kv_command.run_get(arguments[1:], environment)
    parser = _parser(environment)
    options = parser.parse_args(arguments)
    keep_secrets()
    log_to_stderr(options.log_level, as_json=options.log_format == "json")
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts every event
    settings = Settings(
        plugins=options.plugins,
        operator=_operator(parser, options),
        state=options.state,
        listen=options.listen,
        socket=options.socket,
        socket_mode=options.socket_mode,
        socket_group=options.socket_group,
        health=options.health,
        admin=_admin(parser, options),
        admin_token=options.admin_token,
        workers=options.workers,
        max_body=options.max_body,
        body_timeout=options.body_timeout / 1000,
        drain=options.drain / 1000,
        auth_headers=options.auth_headers,
        cache_memory=options.cache_memory,
        log_decisions=options.log_decisions,
        memory=options.memory,
        mirrors=options.mirrors,
        proxies=_proxies(parser, options.mirrors, environment) if options.plugins is not None else None,
        trust_policies=_trust_policies(options),
    )
    _check(parser, settings)

    # Imported late, so that --help is quick and a usage error needs no engine.
    from hookline_sidecar import parent  # noqa: PLC0415
    from hookline_sidecar.control.sources import foreign  # noqa: PLC0415
    from hookline_sidecar.state import StateFolder, StateInUseError  # noqa: PLC0415

    state = StateFolder(settings.state)
    try:
        state.take()
        if settings.plugins is not None and not settings.plugins.is_dir() and state.load_bundle() is None:
            why = foreign.of_path(settings.plugins)
            parser.error(
                f"--plugins {settings.plugins} is not a folder, and {settings.state} holds no last good bundle"
                f"{f': {why}' if why else ''}"
            )
        return parent.run(settings, state)
    except StateInUseError as error:
        parser.exit(_EXIT_USAGE, f"hookline-sidecar: error: {error}\n")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        parser.exit(_EXIT_USAGE, f"hookline-sidecar: error: {where}{error.strerror or error}\n")


def _check(parser: argparse.ArgumentParser, settings: Settings) -> None:
    """What does not go together ends the program."""
    if settings.plugins is None and settings.mirrors is not None:
        parser.error("--mirrors is for --plugins: the operator has its own")
    if settings.listen is None and settings.socket is None:
        parser.error("--listen is off and there is no --socket: nobody could ask")
    if settings.socket is None and settings.socket_group is not None:
        parser.error("--socket-group is for --socket")


def _proxies(parser: argparse.ArgumentParser, mirrors: Path | None, environment: Mapping[str, str]) -> Proxies:
    """Those of the environment; a file of mirrors that cannot be read is told here too."""
    from hookline_artifacts.mirrors import MirrorFile  # noqa: PLC0415 - late, so that --help is quick
    from hookline_artifacts.net.proxies import from_environment  # noqa: PLC0415

    try:
        MirrorFile(mirrors)
        return from_environment(environment)
    except ValueError as error:
        parser.error(str(error))


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    options = Options(
        environment,
        program="hookline-sidecar",
        description="Runs WebAssembly plugins for a proxy on this machine and answers its hook calls.",
        epilog=_EPILOG,
    )
    _add_sources(options, environment)
    option = options.add
    options.group("hooks")
    option("listen", kind=_address_or_off, metavar="HOST:PORT", default="127.0.0.1:9901",
           text="TCP address to answer hook calls on, or 'off'")  # fmt: skip
    option("socket", kind=existing_or_not, metavar="PATH", text="Unix socket to answer hook calls on, besides --listen")
    option("socket-mode", kind=_mode, metavar="MODE", default="0660",
           text="file mode of --socket, in octal; 0666 lets a proxy of any user connect")  # fmt: skip
    option("socket-group", kind=_group, metavar="GROUP",
           text="group that owns --socket, by name or number; choose one that the proxy's user belongs to")  # fmt: skip
    option("max-body", kind=_size, metavar="SIZE", default="16Mi", text="largest body of a hook call")
    option("body-timeout", kind=_duration, metavar="TIME", default="10s",
           text="longest time for the body of a hook call to arrive")  # fmt: skip
    option("auth-headers", kind=one_of(*PROXIES), metavar="PROXY", default="any",
           text="proxy whose headers describe the original request to /v1/auth; the headers of other proxies are "
           f"ignored, as a client may have sent them: {', '.join(PROXIES)}; any reads those of all, and they must "
           "agree")  # fmt: skip
    options.group("health and admin")
    option("health", kind=_address_or_off, metavar="HOST:PORT",
           text="address for probes and Prometheus: /healthz, /readyz and /metrics alone, without any text of "
           "plugins (default: off)")  # fmt: skip
    option("admin", kind=_address_or_word, metavar="HOST:PORT",
           text="address of the admin API, or 'off': health, metrics, what runs, and the plugins' keys. The socket "
           "admin.sock in --state always answers the same. If other machines can reach the address (0.0.0.0), all but "
           "health and metrics needs the token of --admin-token (default: 127.0.0.1:9902, or off if --health uses "
           "that port)")  # fmt: skip
    option("admin-token", kind=existing_or_not, metavar="FILE",
           text="file with the bearer token that --admin asks for before it reads or writes plugins' keys, and, if "
           "other machines can reach it, before it shows what runs; read again for every request. Without this option "
           "only the socket admin.sock in --state answers such requests")  # fmt: skip
    _add_limits(options)
    options.add_logging()
    option("log-decisions", kind=one_of("off", "decisions", "inputs"), metavar="WHAT", default="off",
           text="write each decision to stderr as a line of JSON, at most 200 a second, for whoever works on a plugin: "
           "off, decisions, or inputs (the beginning of what was asked, too). Both may hold what only the proxy's "
           "clients may know")  # fmt: skip
    return options.parser


def _add_sources(options: Options, environment: Mapping[str, str]) -> None:
    option = options.add
    options.group("plugins")
    option("plugins", kind=existing_or_not, metavar="DIR",
           text="folder of WasmPlugin manifests to run, watched for changes; give this or --operator")  # fmt: skip
    option("operator", kind=_https, metavar="URL",
           text="https://HOST[:PORT] of the operator that says which plugins to run; give this or "
           "--plugins")  # fmt: skip
    option("operator-ca", kind=existing_or_not, metavar="FILE",
           text="certificate authorities (PEM) to trust for the operator, instead of the system's; read again for "
           "every connection")  # fmt: skip
    option("operator-token", kind=existing_or_not, metavar="FILE",
           text="this pod's token for the operator; read again for every connection")  # fmt: skip
    option("images", kind=existing_or_not, metavar="DIR",
           text="folder in which images are mounted (Kubernetes' image volumes): a module of the operator's that is in "
           "there is not downloaded")  # fmt: skip
    option("mirrors", kind=existing_or_not, metavar="FILE",
           text="YAML file that says which mirrors are asked before which registries, for --plugins; read again when "
           "it changes")  # fmt: skip
    option("trust-policy", kind=_paths, metavar="PATH[:PATH…]",
           text="files or folders of PluginTrustPolicy documents (.yaml) that nothing may run against, whatever the "
           f"operator or the manifests say; watched for changes. {TRUST_POLICIES} is read too")  # fmt: skip
    option("state", kind=existing_or_not, metavar="DIR", default=str(default_state(environment)),
           text="folder for modules, the last good bundle, the plugins' keys and the admin socket")  # fmt: skip


def _add_limits(options: Options) -> None:
    option = options.add
    options.group("processes and limits")
    option("workers", kind=_workers, metavar="N", default="1", text="number of processes that answer hook calls")
    option("memory", kind=_size, metavar="SIZE",
           text="memory for all processes together, plugins included (default: the limit of the container's "
           "cgroup)")  # fmt: skip
    option("cache-memory", kind=_cache_memory, metavar="SIZE", default="64Mi",
           text="memory for all caches of plugins (spec.caches[].memory) together, part of --memory, 4Mi at the least. "
           "A third of it holds entries, the rest is what their file needs. If the caches want more, each gets "
           "less")  # fmt: skip
    option("drain", kind=_duration, metavar="TIME", default="10s",
           text="longest time to finish calls under way after SIGTERM")  # fmt: skip


def _paths(text: str) -> tuple[Path, ...]:
    """Paths between colons."""
    return tuple(existing_or_not(part) for part in text.split(":"))


def _trust_policies(options: argparse.Namespace) -> tuple[Path, ...]:
    given: tuple[Path, ...] = options.trust_policy or ()
    return tuple(dict.fromkeys((*standing_policies(TRUST_POLICIES), *given)))


def standing_policies(place: Path) -> tuple[Path, ...]:
    """The place of policies, unless it is known that nothing is there: a link that leads nowhere is something."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        pass  # what cannot be looked at is not nothing: it is told, and nothing is loaded
    return (place,)


def _operator(parser: argparse.ArgumentParser, options: argparse.Namespace) -> OperatorSettings | None:
    if (options.plugins is None) == (options.operator is None):
        parser.error("give either --plugins (a folder says what to run) or --operator (an operator does)")
    if options.operator is None:
        if any(each is not None for each in (options.operator_ca, options.operator_token, options.images)):
            parser.error("--operator-ca, --operator-token and --images need --operator")
        return None
    if options.operator_token is None:
        parser.error("--operator needs --operator-token, so that the operator knows which pod asks")
    return OperatorSettings(
        url=options.operator, ca=options.operator_ca, token=options.operator_token, images=options.images
    )


def _admin(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Address | None:
    """Where the admin surface is. Not on the port of ``--health``: two sockets cannot share it."""
    wanted: Address | str | None = options.admin
    if wanted is None:
        return None if _meet(options.health, _ADMIN) else _ADMIN
    if isinstance(wanted, str):
        return None
    for name, other in (("health", options.health), ("listen", options.listen)):
        if _meet(other, wanted):
            parser.error(
                f"--admin and --{name} have the same port, {wanted[1]}: change one of them, or set --admin off; "
                "the socket admin.sock in --state answers what --admin does"
            )
    return wanted


def _meet(one: Address | None, other: Address) -> bool:
    """Whether two listening sockets would have the same address."""
    if one is None or one[1] != other[1]:
        return False
    return one[0] == other[0] or not _EVERYWHERE.isdisjoint({one[0], other[0]})


def _address_or_off(text: str) -> Address | None:
    return None if text == _OFF else address(text)


def _address_or_word(text: str) -> Address | str:
    """The same, where None means that nothing was said."""
    return text if text == _OFF else address(text)


def _https(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in text or parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        # Without the text: it may hold a password.
        raise argparse.ArgumentTypeError("must be https://HOST[:PORT]; the pod's token is sent over TLS only")
    return f"https://{parts.netloc}"


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:  # noqa: PLR2004 - all permission bits
        raise argparse.ArgumentTypeError(f"{text!r} is not a file mode such as 0660")
    return mode


def _group(text: str) -> int:
    """A group's number. One that is given as a number need not have a name here: few containers know names."""
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _NO_ID:  # noqa: PLR2004 - digits of 2**32
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the name of a group here; create it (groupadd), or give a number such as 101"
        ) from None


def _size(text: str) -> int:
    return _positive(parse_size, text)


def _cache_memory(text: str) -> int:
    size = _size(text)
    if size < _LEAST_CACHE_MEMORY:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 4Mi")
    return size


def _duration(text: str) -> int:
    return _positive(parse_duration, text)


def _positive(parse: Callable[[str], int], text: str) -> int:
    try:
        value = parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be more than zero")
    return value


def _workers(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:  # noqa: PLR2004 - more than any pod has cores for
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and 64")
    return int(text)
