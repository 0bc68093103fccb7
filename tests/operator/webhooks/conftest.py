"""A client of a server with both webhooks; and a real API server that asks them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from admission_reviews import SETTINGS
from cluster import ClusterError
from hookline_operator.cluster.kube import Kube
from hookline_operator.webhooks.admission import routes
from hookline_operator.webhooks.annotations import InjectionSettings
from hookline_operator.webhooks.certificates import CertificateKeeper
from hookline_operator.webhooks.dry_run import ENTRY
from hookline_operator.webhooks.dry_run import PATH as POLICIES_PATH
from waiting import PATIENCE_S
from webhook_configurations import SERVICE, configurations, service

ROOT = Path(__file__).parents[3]
CONFIGURATION = "hookline-admission-tests"
_WRONG = {
    "apiVersion": "hookline.dev/v1alpha1",
    "kind": "WasmPlugin",
    "metadata": {"name": "demo"},
    "spec": {"source": {"oci": {"reference": "registry.example/p:1"}}, "verify": {"keys": ["k"]}},
}


class Checker:
    """Stands in for the operator's knowledge of modules."""

    def __init__(self):
        self.answer = None
        self.asked = []

    async def __call__(self, found):
        """As `check_config`."""
        self.asked.append(found)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "slow":
            await asyncio.sleep(3600)
        return self.answer


@pytest.fixture
def checker():
    """Says nothing, until a test gives it words."""
    return Checker()


@pytest.fixture
def current():
    """The settings of the moment, last."""
    return [SETTINGS]


@pytest.fixture
async def client(checker, current):
    """A client of a server with both webhooks; and a real API server that asks them."""
    app = web.Application()
    app.add_routes(routes(settings=lambda: current[-1], check_config=checker))
    async with TestClient(TestServer(app)) as found:
        yield found


@dataclass
class Plane:
    """The API server; what blocks runs in a thread, since the webhooks are answered by this process."""

    control_plane: object
    root = ROOT

    async def kubectl(self, *arguments, found=None, namespace=None):
        """What kubectl says. Raises ClusterError with its words."""
        where = ["--namespace", namespace] if namespace else []
        text = None if found is None else json.dumps(found)
        return await asyncio.to_thread(self.control_plane.kubectl, *arguments, *where, input=text)

    async def create(self, found, namespace, *more):
        """The object as it was stored."""
        text = await self.kubectl("create", "--filename=-", "--output=json", *more, found=found, namespace=namespace)
        return json.loads(text[text.index("{") :])

    @contextlib.asynccontextmanager
    async def namespace(self, name, **labels):
        """A namespace with its default service account, which pods need."""
        with contextlib.ExitStack() as held:
            await asyncio.to_thread(held.enter_context, self.control_plane.namespace(name))
            for key, value in labels.items():
                await self.kubectl("label", "namespace", name, f"{key}={value}")
            await self.kubectl(
                "wait", "--for=create", "serviceaccount/default", f"--timeout={PATIENCE_S:.0f}s", namespace=name
            )
            try:
                yield name
            finally:
                await self.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", namespace=name)


@pytest.fixture
async def plane(control_plane):
    """With the CRD, as the tests see it."""
    await asyncio.to_thread(control_plane.install_crd, ROOT / "crds" / "hookline.dev_wasmplugins.yaml")
    return Plane(control_plane)


@pytest.fixture
async def kube(control_plane):
    """The operator's own client."""
    found = await Kube.connect(control_plane.kubeconfig)
    yield found
    await found.close()


class Hookline:
    """The webhooks' server, which can go away and come back."""

    def __init__(self, home, keeper):
        self.home, self.keeper = home, keeper
        self.wrong = {}
        self.asked = []
        self.port, self.runner = 0, None

    async def start(self):
        """Answer, at the same port again."""
        app = web.Application()

        def settings():
            where = f"https://{SERVICE}.{self.home}.svc"
            return InjectionSettings(image="hookline-sidecar:1", operator=where, operator_ca=self.keeper.bundle)

        app.add_routes(routes(settings=settings, check_config=self._check))
        self.runner = web.AppRunner(app, shutdown_timeout=1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=self.keeper.context, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _check(self, found):
        self.asked.append((found.metadata.namespace, found.metadata.name, found.metadata.uid))
        return self.wrong.get(found.metadata.name)

    async def stop(self):
        """Gone, without a word."""
        if self.runner is not None:
            await self.runner.cleanup()
        self.runner = None


@pytest.fixture
async def hookline(plane, kube):
    """The webhooks, answered by this process and known to the API server."""
    home = f"hookline-{secrets.token_hex(3)}"  # a namespace takes its time to go
    async with contextlib.AsyncExitStack() as held:
        await held.enter_async_context(plane.namespace(home))
        keeper = CertificateKeeper(
            kube, service=SERVICE, namespace=home, webhooks=CONFIGURATION, paths=lambda: {ENTRY: f"{POLICIES_PATH}/abc"}
        )
        await keeper.sync()
        server = Hookline(home, keeper)
        await server.start()
        held.push_async_callback(server.stop)
        await plane.create(service(), home)
        for configuration in configurations(home, server.port, name=CONFIGURATION):
            await plane.create(configuration, None)
            kind = configuration["kind"].lower()
            held.push_async_callback(plane.kubectl, "delete", kind, configuration["metadata"]["name"])
        await keeper.sync()
        await _heard(plane, home)
        yield server


async def _heard(plane, home):
    """The API server reads its webhook configurations with some delay."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(ClusterError):
                await plane.create(_WRONG, home, "--dry-run=server")
                await asyncio.sleep(0.2)
                continue
            return
