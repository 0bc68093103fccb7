"""Fetching: the door of this package. A source goes in, an ``Artifact`` in the store comes out, or one error.

The way is the same for all: *resolve* (a name to a digest, one request), *look* (the store knows the digest: done,
without any network), *download* (bounded, hashed as it comes), *unpack* (the one module in it), *keep*. Between
resolve and fetch a caller may verify a signature: what is then fetched is pinned to the digest that was verified,
and ``repository`` reads the signature's own manifests and blobs.

However many ask for the same thing at the same time, it is fetched once; one of them giving up leaves the others
waiting for it, and the last one giving up ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from hookline_runtime.artifacts import layouts
from hookline_runtime.artifacts.addresses import AddressPolicy
from hookline_runtime.artifacts.credentials import Keychain
from hookline_runtime.artifacts.describe import PluginDescription
from hookline_runtime.artifacts.folder import LayoutFolder, read_file
from hookline_runtime.artifacts.limits import FetchLimits
from hookline_runtime.artifacts.reference import DIGEST, LayoutReference, parse
from hookline_runtime.artifacts.registry import RegistryAccess, RemoteRepository, Repository, Tokens
from hookline_runtime.artifacts.search import Search
from hookline_runtime.artifacts.transport import OF_A_URL, Body, Transport
from hookline_runtime.artifacts.urls import foreign, shown
from hookline_runtime.errors import FetchError, VerifyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from hookline_api.resources import HTTPSource, OCISource
    from hookline_runtime.artifacts.store import Artifact, ArtifactStore

_MAX_DEPTH: Final = 4
_DEFAULT_LIMITS: Final = FetchLimits()
_OWN_MACHINE_TOO: Final = AddressPolicy()
_NO_ACCESS: Final = RegistryAccess()


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Artifact]
    waiting: int = 0


class Fetcher:
    """Fetches artifacts into a store. Of one event loop; ``close`` it when done.

    ``docker_config`` is the machine's ``config.json``, by default where docker has it; ``addresses`` says who is never
    asked. Every method raises FetchError and VerifyError, and nothing else.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        limits: FetchLimits = _DEFAULT_LIMITS,
        docker_config: Path | None = None,
        addresses: AddressPolicy = _OWN_MACHINE_TOO,
    ) -> None:
        self._store = store
        self._limits = limits
        self._docker_config = docker_config
        self._transport = Transport(limits, addresses)
        self._tokens = Tokens()
        self._places = asyncio.Semaphore(limits.parallel)
        self._flights: dict[tuple[str, ...], _Flight] = {}
        self._tasks: set[asyncio.Task[Artifact]] = set()
        self._closed = False

    async def resolve(self, source: OCISource, *, access: RegistryAccess = _NO_ACCESS, base: Path | None = None) -> str:
        """The digest that the reference means now; a reference by digest is answered without a request."""
        async with self._bounded(source.reference):
            return await self.repository(source, access=access, base=base).resolve()

    async def fetch_oci(
        self,
        source: OCISource,
        *,
        digest: str | None = None,
        access: RegistryAccess = _NO_ACCESS,
        base: Path | None = None,
        prove: bool = False,
    ) -> Artifact:
        """The module of a reference, pinned to ``digest`` where one is given.

        ``base`` is the folder that ``oci-layout:`` paths are relative to; without it they are refused. ``prove``
        asks the registry with ``access`` even where the store knows the digest: for a store that serves several
        owners, of whom one may hold a password that another has not.
        """
        repository = self.repository(source, access=access, base=base)
        if digest is None:
            digest = await self.resolve(source, access=access, base=base)
        if not DIGEST.fullmatch(digest):
            raise FetchError(f"{digest!r:.80} is no sha256 digest", transient=False)
        if prove:
            async with self._bounded(source.reference):
                await repository.manifest(digest)
        key = ("oci", source.reference, str(source.insecure), str(base), access.fingerprint, digest)
        return await self._once(
            key, digest, lambda: self._pull(repository, digest, source.reference), what=source.reference
        )

    async def fetch_http(self, source: HTTPSource, *, prove: bool = False) -> Artifact:
        """The module at a URL, or in a packed file there, if its bytes have the source's sha256.

        ``prove`` downloads it even where the store knows it: see ``fetch_oci``.
        """
        digest = f"sha256:{source.sha256}"
        try:
            url = foreign(source.url)
        except ValueError:
            raise FetchError("source.http.url is no URL that can be asked; check its host", transient=False) from None

        async def download() -> Artifact:
            with self._store.scratch() as file:
                body = Body(file, what=f"the file at {shown(url)}", cap=self._limits.download)
                await self._transport.request("GET", url, what=body.what, into=body, advice=OF_A_URL)
                body.verify(digest)
                return await self._keep(await self._found_in(file), digest=digest)

        return await self._once(("http", source.url, digest, str(prove)), None if prove else digest, download)

    async def fetch_file(self, path: Path) -> Artifact:
        """The module in a file, raw or packed."""

        def copy(body: Body) -> None:
            read_file(path, body)

        return await self._take(copy, what=f"the file {path.name}")

    async def fetch_bytes(self, data: bytes) -> Artifact:
        """The module in these bytes, raw or packed."""
        return await self._take(lambda body: body.write(data), what="the module")

    async def close(self) -> None:
        """End everything that is under way; whoever waits for it gets a FetchError."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._transport.close()

    def repository(
        self, source: OCISource, *, access: RegistryAccess = _NO_ACCESS, base: Path | None = None
    ) -> Repository:
        """The manifests and blobs around a reference, checked but not kept: for signatures."""
        reference = parse(source.reference)
        if isinstance(reference, LayoutReference):
            if base is None:
                # in a cluster this would read the operator's own disk
                raise FetchError(
                    "oci-layout: references work in manifest folders only; name a registry", transient=False
                )
            return LayoutFolder(reference, base=base, limits=self._limits)
        return RemoteRepository(
            reference,
            insecure=source.insecure,
            access=access,
            keychain=Keychain(
                documents=access.dockerconfigs,
                docker_config=self._docker_config,
                helper_timeout=self._limits.helper,
            ),
            transport=self._transport,
            tokens=self._tokens,
            limits=self._limits,
        )

    async def _pull(self, repository: Repository, digest: str, name: str) -> Artifact:
        manifest = layouts.read_manifest(await repository.manifest(digest))
        for _ in range(_MAX_DEPTH):
            if manifest.entries is None:
                break
            manifest = layouts.read_manifest(await repository.manifest(layouts.choose(manifest.entries).digest))
        if manifest.entries is not None:
            raise VerifyError(f"{name} is an index of indexes, deeper than {_MAX_DEPTH}; push the module anew")
        layers, layout = layouts.module_layers(manifest)
        search, left = Search(limits=self._limits), self._limits.download
        with contextlib.ExitStack() as kept:
            for layer in layers:
                what = f"the layer {layer.shown} of {name}"
                with contextlib.ExitStack() as one, _about(what):
                    layouts.check_compression(layer)
                    file = one.enter_context(self._store.scratch())
                    body = Body(file, what=what, cap=left, expected=layer.size)
                    await repository.blob(layer.digest, body)
                    body.verify(layer.digest)
                    left -= layer.size
                    found = await asyncio.to_thread(search.look, file, shown=layer.shown)
                    if search.needs(file):
                        kept.push(one.pop_all())
                if found:
                    break
            with _about(what if layer is layers[0] else name):
                return await self._keep(search, digest=digest, layout=layout, annotations=manifest.annotations)

    async def _take(self, fill: Callable[[Body], None], *, what: str) -> Artifact:
        async with self._bounded(what):
            with self._store.scratch() as file:
                body = Body(file, what=what, cap=self._limits.download)
                await asyncio.to_thread(fill, body)
                known = await asyncio.to_thread(self._store.get, body.digest)
                return known or await self._keep(await self._found_in(file), digest=body.digest)

    async def _found_in(self, file: BinaryIO) -> Search:
        search = Search(limits=self._limits)
        await asyncio.to_thread(search.look, file)
        return search

    async def _keep(
        self,
        search: Search,
        *,
        digest: str,
        layout: str = "raw",
        annotations: Mapping[str, Any] | None = None,
    ) -> Artifact:
        def work() -> Artifact:
            with self._store.scratch() as module:
                found = search.take(module, layout=layout)
                stated = PluginDescription.from_annotations(annotations or {})
                return self._store.add(
                    module,
                    digest=digest,
                    sha256=found.sha256,
                    size=found.size,
                    layout=found.layout,
                    description=found.description.over(stated) if found.description else stated,
                )

        return await asyncio.to_thread(work)

    async def _once(
        self,
        key: tuple[str, ...],
        digest: str | None,
        fetch: Callable[[], Awaitable[Artifact]],
        *,
        what: str = "the file",
    ) -> Artifact:
        """What ``fetch`` gives, run once for everybody who asks for ``key`` meanwhile."""
        flight = self._flights.get(key)
        if flight is None:
            if self._closed:
                raise FetchError("the fetcher is closed", transient=False)
            flight = self._flights[key] = _Flight(asyncio.create_task(self._look_and_fetch(digest, fetch, what)))
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._tasks.discard)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if self._closed and flight.task.cancelled():
                raise FetchError("the fetcher was closed meanwhile", transient=False) from None
            raise
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 or flight.task.done():
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def _look_and_fetch(
        self, digest: str | None, fetch: Callable[[], Awaitable[Artifact]], what: str
    ) -> Artifact:
        known = await asyncio.to_thread(self._store.get, digest) if digest is not None else None
        if known is not None:
            return known
        async with self._places, self._bounded(what):
            return await fetch()

    @contextlib.asynccontextmanager
    async def _bounded(self, what: str) -> AsyncIterator[None]:
        """The total time-out, and the failures of the store's disk, as FetchErrors."""
        try:
            async with asyncio.timeout(self._limits.total):
                yield
        except TimeoutError:
            raise FetchError(f"{what} could not be had within {self._limits.total:g} s; is its source slow?") from None
        except OSError as error:
            raise FetchError(f"the store cannot be used: {error.strerror}; make room or check its folder") from None


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """Say of what a VerifyError is."""
    try:
        yield
    except VerifyError as error:
        # a body names itself
        raise error if str(error).startswith(what) else VerifyError(f"{what}: {error}") from None
