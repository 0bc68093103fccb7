"""``hookline kv``: the keys of a sidecar's plugins."""

from __future__ import annotations

import base64
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from hookline_cli.frame import Answer, UsageError, command
from hookline_cli.inquiry.options import Asked, cluster_options, of_cluster, sidecar_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_cli.inquiry.keys import Keys

_ABOUT: Final = """
    PLUGIN is the metadata.name of the plugin's resource. Each sidecar, so each pod, has keys of its own. They are those
    of the sidecar at --admin or --state, of --pod in a cluster (kubectl exec), or of the one on this machine, whose
    state folder is HOOKLINE_STATE or ~/.local/state/hookline."""
_LIST: Final = """
hookline kv list
hookline kv list residency-router --prefix region
hookline kv list residency-router --pod web-7d9f8 -n shop
"""
_GET: Final = """
hookline kv get cost-governor budget/tenant-a
hookline kv get cost-governor budget/tenant-a --admin http://127.0.0.1:9902 --admin-token token
"""
_SET: Final = """
hookline kv set cost-governor budget/tenant-a '{"queries_per_minute": 1000}'
hookline kv set column-mask rules - < rules.json
hookline kv set cost-governor budget/tenant-a 100 --only-new --pod web-7d9f8
"""
_DELETE: Final = """
hookline kv delete cost-governor budget/tenant-a
hookline kv delete cost-governor budget/tenant-a --state ./state
"""


def _options() -> list[click.Parameter]:
    return [
        click.Option(["--pod"], metavar="NAME", help="Ask the sidecar of this pod."),
        *cluster_options(),
        *sidecar_options(),
    ]


@command(
    "list",
    text=f"List a plugin's keys with their sizes, or the plugins.\n{_ABOUT}",
    examples=_LIST,
    options=[
        click.Argument(["plugin"], required=False),
        click.Option(["--prefix"], default="", metavar="TEXT", help="Only the keys that begin so."),
        *_options(),
    ],
)
def LIST(*, plugin: str | None, prefix: str, pod: str | None, **given: Any) -> Answer:  # noqa: N802 - a constant
    """List keys, or plugins."""
    from hookline_cli.inquiry.tables import table  # noqa: PLC0415

    keys = _keys(pod, given)
    if plugin is None:
        found = keys.plugins()
        rows = [
            [str(each.get("plugin")), *(["on a server", "-"] if each.get("scope") == "Cluster"
                                        else [str(each.get("keys")), str(each.get("bytes"))])]
            for each in found.get("plugins") or ()
        ]  # fmt: skip
        return Answer(lines=table(("PLUGIN", "KEYS", "BYTES"), rows), data=found)
    found = keys.list(plugin, prefix)
    rows = [[_shown(each), str(each.get("size")), _ends(each)] for each in found.get("entries") or ()]
    return Answer(lines=table(("KEY", "BYTES", "ENDS IN"), rows), data=found)


@command(
    "get",
    text=f"Write a value to stdout, byte for byte.\n{_ABOUT}",
    examples=_GET,
    options=[click.Argument(["plugin"]), click.Argument(["key"]), *_options()],
)
def GET(*, plugin: str, key: str, pod: str | None, **given: Any) -> Answer:  # noqa: N802 - the decorator's constant
    """Read a value."""
    value = _keys(pod, given).get(plugin, key)
    try:
        data = {"plugin": plugin, "key": key, "value": value.decode()}
    except UnicodeDecodeError:
        data = {"plugin": plugin, "key": key, "value_base64": base64.b64encode(value).decode()}
    return Answer(lines=[], raw=value, data=data)


@command(
    "set",
    text=f"Store a value.\n{_ABOUT} VALUE is text, or - for stdin: at most 64 KiB. The plugin's next call sees it.",
    examples=_SET,
    options=[
        click.Argument(["plugin"]),
        click.Argument(["key"]),
        click.Argument(["value"]),
        click.Option(["--only-new"], is_flag=True, help="Only where the key does not exist."),
        click.Option(["--prepare"], is_flag=True, help="Also for a plugin that does not exist yet."),
        *_options(),
    ],
)
def SET(  # noqa: N802 - what the decorator makes of it is a constant
    *, plugin: str, key: str, value: str, only_new: bool, prepare: bool, pod: str | None, **given: Any
) -> Answer:
    """Store a value."""
    from hookline_cli.inquiry.keys import MAX_VALUE  # noqa: PLC0415

    keys = _keys(pod, given)
    data = sys.stdin.buffer.read(MAX_VALUE + 1) if value == "-" else os.fsencode(value)
    if len(data) > MAX_VALUE:
        raise UsageError(f"a value has at most {MAX_VALUE} bytes; nothing is stored")
    found = keys.set(plugin, key, data, only_new=only_new, prepare=prepare)
    done = "replaced" if found.get("existed") else "stored"
    return Answer(lines=[f"{plugin} {ascii(key)[1:-1]}: {done}, {len(data)} bytes"], data=found)


@command(
    "delete",
    text=f"Delete a key; one that does not exist is no error.\n{_ABOUT}",
    examples=_DELETE,
    options=[click.Argument(["plugin"]), click.Argument(["key"]), *_options()],
)
def DELETE(*, plugin: str, key: str, pod: str | None, **given: Any) -> Answer:  # noqa: N802 - the decorator's constant
    """Delete a key."""
    found = _keys(pod, given).delete(plugin, key)
    done = "deleted" if found.get("existed") else "did not exist"
    return Answer(lines=[f"{plugin} {ascii(key)[1:-1]}: {done}"], data=found)


def _keys(pod: str | None, given: Mapping[str, Any]) -> Keys:
    """Whose keys."""
    from hookline_cli.inquiry.admin import Admin, default_state  # noqa: PLC0415
    from hookline_cli.inquiry.keys import AdminKeys, PodKeys  # noqa: PLC0415

    asked = Asked(**given)
    sidecar = asked.sidecar()
    if pod is not None:
        if sidecar is not None:
            raise UsageError("give --pod, or one of --admin and --state: each names a sidecar")
        return PodKeys(asked.cluster(), pod.removeprefix("pod/"))
    if sidecar is not None:
        return AdminKeys(sidecar)
    if (asked.namespace, asked.context, asked.kubeconfig) != (None, None, None):
        raise UsageError("--namespace, --context and --kubeconfig are for --pod: name the pod")
    of_cluster(needs="--pod, --admin or --state")
    return AdminKeys(Admin.of_state(default_state()))


def _shown(entry: Mapping[str, Any]) -> str:
    key = entry.get("key")
    return key if isinstance(key, str) and key and key.isprintable() else str(entry.get("path")).split("/", 4)[-1]


def _ends(entry: Mapping[str, Any]) -> str:
    ttl = entry.get("ttl_ms")
    return "-" if not isinstance(ttl, int | float) else f"{ttl / 1000:.0f}s"
