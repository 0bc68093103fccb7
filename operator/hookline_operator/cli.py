"""``hookline-operator``: the command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hookline_api.commands import Options, address, existing_or_not, keep_secrets, log_to_stderr, one_of
from hookline_api.quantities import parse_size
from hookline_artifacts.net.addresses import parse_networks
from hookline_operator.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_artifacts.net.addresses import Network

_EPILOG: Final = """\
Each option can also be given in the environment (--own-namespace as HOOKLINE_OWN_NAMESPACE); the command line wins.

The chart in helm/ runs it in a cluster. Outside of one, against a cluster of yours:
  hookline-operator --kubeconfig ~/.kube/config --own-namespace default --pod-ip 127.0.0.1 --cache /tmp/hookline
"""
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_RESOURCES: Final = ("cpu-request", "cpu-limit", "memory-request", "memory-limit")


def main() -> None:
    """The entry point of ``hookline-operator``."""
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
            parser.error("--own-namespace is needed outside of a pod: where are the Lease and the certificate to be?")
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
    )
    # Imported late, so that --help is quick.
    from hookline_operator.cluster.kube import KubeError  # noqa: PLC0415
    from hookline_operator.process import Operator  # noqa: PLC0415
    from hookline_operator.webhooks.annotations import InjectionSettings  # noqa: PLC0415

    try:
        InjectionSettings.of(settings, authority="of later")
    except ValueError as error:
        parser.error(f"no pod could have such a sidecar: {error}")
    try:
        return asyncio.run(Operator(settings).run())
    except (KubeError, OSError) as error:
        parser.exit(1, f"hookline-operator: error: {error}\n")


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    options = Options(
        environment,
        program="hookline-operator",
        description="Hands the WebAssembly plugins that WasmPlugin resources describe to the sidecars of their pods.",
        epilog=_EPILOG,
    )
    add = options.add
    add("namespace", kind=_names, metavar="NAME[,NAME]", default="", text="only these namespaces; without it, all")
    add("listen", kind=address, metavar="HOST:PORT", default="0.0.0.0:9443",
        text="HTTPS: distribution to sidecars, and webhooks")  # fmt: skip
    add("health", kind=address, metavar="HOST:PORT", default="0.0.0.0:8080", text="HTTP: /healthz, /readyz, /metrics")
    add("service", kind=str, metavar="NAME", default="hookline-operator", text="the Service in front of the replicas")
    add("own-namespace", kind=str, metavar="NAME", text="where this operator is (default: its pod's)")
    add("pod-name", kind=str, metavar="NAME", default=socket.gethostname(), text="of this replica, in the Lease")
    add("pod-ip", kind=str, metavar="IP", default="127.0.0.1", text="at which the other replicas reach this one")
    add("service-account", kind=str, metavar="NAME", default="hookline-operator",
        text="of this operator: its replicas know each other by it")  # fmt: skip
    add("cache", kind=existing_or_not, metavar="DIR", default="/var/cache/hookline", text="folder for modules")
    add("cache-size", kind=parse_size, metavar="SIZE", default="1Gi", text="of that folder, at most")
    add("webhooks", kind=str, metavar="NAME",
        text="the webhook configurations, mutating and validating, whose caBundle is to be kept right")  # fmt: skip
    add("sidecar-image", kind=str, metavar="IMAGE", default="hookline-sidecar", text="what is injected into pods")
    add("sidecar-image-pull-policy", kind=str, metavar="POLICY", text="Always, IfNotPresent or Never")
    for name in _RESOURCES:
        add(
            f"sidecar-{name}",
            kind=str,
            metavar="QUANTITY",
            text="of an injected sidecar, unless its pod's annotations say otherwise",
        )
    add("sidecar-log-level", kind=str, metavar="LEVEL", default="info", text="of injected sidecars")
    add("tls-secret", kind=str, metavar="NAME", default="hookline-operator-tls",
        text="where the replicas share their certificate")  # fmt: skip
    add("key-secret", kind=str, metavar="NAME", default="hookline-operator-key",
        text="where they share the key that seals values of Secrets in revisions")  # fmt: skip
    add("ca-config-map", kind=str, metavar="NAME", default="hookline-ca",
        text="where the certificate authority is published")  # fmt: skip
    add("lease", kind=str, metavar="NAME", default="hookline-operator", text="whose holder reconciles")
    add("migrate-controller-revisions", kind=one_of("true", "false"), metavar="true|false", default="true",
        text="read what an older version kept as ControllerRevisions, and keep it as WasmPluginRevisions")  # fmt: skip
    add("token", kind=existing_or_not, metavar="FILE", default="/var/run/secrets/hookline.dev/token",
        text="service-account token of the audience hookline.dev, for the other replicas")  # fmt: skip
    add("kubeconfig", kind=existing_or_not, metavar="FILE", text="outside of a pod: how to reach the API server")
    add("allow-source-addresses", kind=_networks, metavar="CIDR[,CIDR]", default="",
        text="networks that modules may come from although they are refused otherwise (loopback, link-local and the "
        "like), such as 127.0.0.0/8 for a registry on the operator's own node")  # fmt: skip
    options.add_logging()
    return options.parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
