"""The options that say who is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hookline_cli import frame
from hookline_cli.frame import FILE, UsageError

if TYPE_CHECKING:
    from hookline_cli.inquiry.admin import Admin
    from hookline_cli.inquiry.kubectl import Kubectl


def cluster_options() -> list[click.Parameter]:
    """As kubectl has them."""
    return [
        click.Option(["-n", "--namespace"], metavar="NAME", help="The plugin's. Default: the context's."),
        click.Option(["--context"], metavar="NAME", help="Of the kubeconfig. Default: the current one."),
        click.Option(["--kubeconfig"], type=FILE, metavar="FILE", help="Default: where kubectl has it."),
    ]


def sidecar_options() -> list[click.Parameter]:
    """A sidecar that is not asked through a cluster."""
    return [
        click.Option(["--admin"], metavar="URL|unix:PATH",
                     help="Ask this sidecar: its --admin port, or its socket admin.sock."),
        click.Option(["--state"], type=FILE, metavar="DIR",
                     help="Ask the sidecar with this state folder, by the socket in it."),
        click.Option(["--admin-token"], type=FILE, metavar="FILE", help="The token of the sidecar, for --admin URL."),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What these options say."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None
    admin: str | None = None
    state: Path | None = None
    admin_token: Path | None = None

    def sidecar(self) -> Admin | None:
        """The sidecar that is asked; None where a cluster is. Raises UsageError and ConfigError."""
        from hookline_cli.inquiry.admin import Admin  # noqa: PLC0415

        if self.admin is None and self.state is None:
            if self.admin_token is not None:
                raise UsageError("--admin-token is for --admin with a URL")
            return None
        if self.admin is not None and self.state is not None:
            raise UsageError("give --admin or --state, not both: each names a sidecar")
        if (self.namespace, self.context, self.kubeconfig) != (None, None, None):
            raise UsageError("--namespace, --context and --kubeconfig name a cluster; --admin and --state a sidecar")
        if self.state is not None:
            return Admin.of_state(self.state)
        return Admin.of(str(self.admin), token=self.admin_token)

    def cluster(self) -> Kubectl:
        """The cluster. Raises ConfigError where there is no kubectl."""
        from hookline_cli.inquiry.kubectl import Kubectl  # noqa: PLC0415

        return Kubectl.found(namespace=self.namespace, context=self.context, kubeconfig=self.kubeconfig)


def of_cluster(*, needs: str) -> None:
    """Raise UsageError where the program is a plugin of kubectl and a sidecar here would be asked."""
    if frame.is_kubectl():
        raise UsageError(f"give {needs}: as a plugin of kubectl this asks pods")
