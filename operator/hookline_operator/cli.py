"""``hookline-operator``: the command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hookline_api import plugins_of_pydantic
from hookline_api.commands import Options, address, existing_or_not, keep_secrets, log_to_stderr, one_of
from hookline_api.quantities import parse_size
from hookline_artifacts.net.addresses import parse_networks
from hookline_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_artifacts.net.addresses import Network
    from hookline_artifacts.net.proxies import Proxies

_EPILOG: Final = """\
Each option can also be set in the environment (--own-namespace as HOOKLINE_OWN_NAMESPACE); the command line wins.
HTTP_PROXY, HTTPS_PROXY and NO_PROXY are for registries and URLs of modules, and for nothing else.

The chart in helm/ runs the operator in a cluster. To run it on your machine against a cluster:
  hookline-operator --kubeconfig ~/.kube/config --own-namespace default --pod-ip 127.0.0.1 --cache /tmp/hookline
"""
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_RESOURCES: Final = ("cpu-request", "cpu-limit", "memory-request", "memory-limit")


def main() -> None:
    """The entry point of ``hookline-operator``."""
    plugins_of_pydantic.switch_off()
    sys.exit(run(sys.argv[1:], os.environ))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run an operator. Returns the exit code: 0 after a clean stop, 2 for settings that cannot be, 1 otherwise."""
    parser = _parser(environment)
    options = parser.parse_args(arguments)
    keep_secrets()
    log_to_stderr(options.log_level, as_json=options.log_format == "json")
    if options.own_namespace is None:
        try:
            options.own_namespace = _NAMESPACE_FILE.read_text().strip()
        except OSError:
            parser.error("--own-namespace is needed outside of a pod: it holds the Lease and the certificate")
    settings = Settings(
        namespaces=tuple(options.namespace),
        listen=options.listen,
        health=options.health,
        service=options.service,
        own_namespace=options.own_namespace,
        pod_name=options.pod_name,
        pod_ip=options.pod_ip,
        service_account=options.service_account,
        cache=options.cache,
        cache_size=options.cache_size,
        webhooks=options.webhooks or "",
        sidecar_image=options.sidecar_image,
        sidecar_image_pull_policy=options.sidecar_image_pull_policy or "",
        sidecar_resources={
            name: value
            for name in (each.replace("-", "_") for each in _RESOURCES)
            if (value := getattr(options, f"sidecar_{name}"))
        },
        sidecar_log_level=options.sidecar_log_level,
        tls_secret=options.tls_secret,
        key_secret=options.key_secret,
        ca_config_map=options.ca_config_map,
        lease=options.lease,
        migrate=options.migrate_controller_revisions == "true",
        token=options.token,
        kubeconfig=options.kubeconfig,
        allow_source_addresses=options.allow_source_addresses,
        image_volumes=options.image_volumes == "true",
        mirrors=options.mirrors,
        proxies=_proxies(parser, options.mirrors, environment),
    )
    # Imported late, so that --help is quick.
    from hookline_api.base import build_models  # noqa: PLC0415
    from hookline_operator.cluster.kube import KubeError  # noqa: PLC0415
    from hookline_operator.process import Operator  # noqa: PLC0415
    from hookline_operator.webhooks.annotations import InjectionSettings  # noqa: PLC0415

    try:
        InjectionSettings.of(settings, authority="of later")
    except ValueError as error:
        parser.error(f"the settings of injected sidecars are wrong: {error}")
    build_models()
    try:
        return asyncio.run(Operator(settings).run())
    except (KubeError, OSError) as error:
        parser.exit(1, f"hookline-operator: error: {error}\n")


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
        program="hookline-operator",
        description="Gives the sidecars of pods the WebAssembly plugins that WasmPlugin resources describe.",
        epilog=_EPILOG,
    )
    add = options.add
    options.group("cluster")
    add("namespace", kind=_names, metavar="NAME[,NAME]", default="",
        text="namespaces to serve (default: all)")  # fmt: skip
    add("kubeconfig", kind=existing_or_not, metavar="FILE",
        text="kubeconfig for the API server; needed only outside of a pod")  # fmt: skip
    add("webhooks", kind=str, metavar="NAME",
        text="name of the mutating and of the validating webhook configuration; the operator keeps the caBundle of "
        "both up to date")  # fmt: skip
    add("migrate-controller-revisions", kind=one_of("true", "false"), metavar="true|false", default="true",
        text="read revisions that an older version kept as ControllerRevisions, and keep them as "
        "WasmPluginRevisions")  # fmt: skip
    options.group("addresses")
    add("listen", kind=address, metavar="HOST:PORT", default="0.0.0.0:9443",
        text="HTTPS address for sidecars, webhooks and the other replicas")  # fmt: skip
    add("health", kind=address, metavar="HOST:PORT", default="0.0.0.0:8080",
        text="HTTP address for /healthz, /readyz and /metrics")  # fmt: skip
    options.group("replicas")
    add("service", kind=str, metavar="NAME", default="hookline-operator",
        text="name of the Service in front of the replicas")  # fmt: skip
    add("own-namespace", kind=str, metavar="NAME",
        text="namespace that the operator runs in (default: that of its pod)")  # fmt: skip
    add("pod-name", kind=str, metavar="NAME", default=socket.gethostname(),
        text="name of this replica in the Lease")  # fmt: skip
    add("pod-ip", kind=str, metavar="IP", default="127.0.0.1",
        text="IP address at which the other replicas reach this one")  # fmt: skip
    add("service-account", kind=str, metavar="NAME", default="hookline-operator",
        text="name of the operator's service account, by which the replicas know each other")  # fmt: skip
    add("token", kind=existing_or_not, metavar="FILE", default="/var/run/secrets/hookline.dev/token",
        text="token of that service account for the audience hookline.dev, shown to the other replicas")  # fmt: skip
    add("lease", kind=str, metavar="NAME", default="hookline-operator",
        text="name of the Lease whose holder reconciles")  # fmt: skip
    add("tls-secret", kind=str, metavar="NAME", default="hookline-operator-tls",
        text="name of the Secret with the certificate that the replicas share")  # fmt: skip
    add("key-secret", kind=str, metavar="NAME", default="hookline-operator-key",
        text="name of the Secret with the key that seals values of Secrets in revisions")  # fmt: skip
    add("ca-config-map", kind=str, metavar="NAME", default="hookline-ca",
        text="name of the ConfigMap that publishes the certificate authority")  # fmt: skip
    _add_modules(options)
    _add_sidecars(options)
    options.add_logging()
    return options.parser


def _add_modules(options: Options) -> None:
    add = options.add
    options.group("modules")
    add("cache", kind=existing_or_not, metavar="DIR", default="/var/cache/hookline",
        text="folder for downloaded modules")  # fmt: skip
    add("cache-size", kind=parse_size, metavar="SIZE", default="1Gi", text="largest size of --cache")
    add("allow-source-addresses", kind=_networks, metavar="CIDR[,CIDR]", default="",
        text="addresses to download modules from although they are loopback, link-local or the like; 127.0.0.0/8 for "
        "a registry on the operator's own node")  # fmt: skip
    add("mirrors", kind=existing_or_not, metavar="FILE",
        text="YAML file that says which mirrors are asked before which registries; read again when it "
        "changes")  # fmt: skip


def _add_sidecars(options: Options) -> None:
    add = options.add
    options.group("injected sidecars")
    add("sidecar-image", kind=str, metavar="IMAGE", default="hookline-sidecar",
        text="image of the sidecar to inject into pods")  # fmt: skip
    add("sidecar-image-pull-policy", kind=str, metavar="POLICY",
        text="image pull policy of injected sidecars: Always, IfNotPresent or Never")  # fmt: skip
    for name in _RESOURCES:
        add(f"sidecar-{name}", kind=str, metavar="QUANTITY",
            text=f"{name.replace('cpu', 'CPU').replace('-', ' ')} of an injected sidecar, unless its pod sets "
            "another")  # fmt: skip
    add("image-volumes", kind=one_of("true", "false"), metavar="true|false", default="false",
        text="mount the images that a pod's annotation hookline.dev/image-volumes names; needs the feature gate "
        "ImageVolume in the API server and on the nodes")  # fmt: skip
    add("sidecar-log-level", kind=str, metavar="LEVEL", default="info", text="log level of injected sidecars")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
