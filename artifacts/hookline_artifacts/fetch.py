"""Fetching: where this package is entered. A source goes in, an ``Artifact`` in the store comes out, or one error.

The way is the same for all: *resolve* (a name to a digest, one request), *look* (the store knows the digest from this
place, and whoever asks has proven a right to it: done, without any network), *download* (bounded, hashed as it comes),
*unpack* (the one module in it), *keep*. Between resolve and fetch a caller may verify a signature: what is then fetched
is pinned to the digest that was verified, and ``routes`` reads the signature's own manifests and blobs: from mirrors
where there are some, and from the reference's own registry.

However many ask for the same thing at the same time, it is fetched once; one of them giving up leaves the others
waiting for it, and the last one giving up ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.folder import LayoutFolder, read_file
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.login.keychain import Keychain
from hookline_artifacts.login.login import Tokens
from hookline_artifacts.mirrors import Mirror, MirrorFile, own_mirrors
from hookline_artifacts.module.describe import PluginDescription, described_by
from hookline_artifacts.net.addresses import AddressPolicy
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.proxies import NO_PROXIES, Proxies
from hookline_artifacts.net.transport import OF_A_URL, AwayError, StatusError, Transport
from hookline_artifacts.net.urls import foreign, shown
from hookline_artifacts.package import layouts
from hookline_artifacts.package.search import Search
from hookline_artifacts.reference import DIGEST, LayoutReference, Reference, parse
from hookline_artifacts.registry import RemoteRepository, Repository
from hookline_artifacts.routes import Absences, Routes, Way
from hookline_artifacts.threads import in_thread, in_thread_if_large
from hookline_artifacts.trust.collect import collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from hookline_api.resources import HTTPSource, OCISource
    from hookline_artifacts.package.layouts import Descriptor
    from hookline_artifacts.store import Artifact, ArtifactStore
    from hookline_artifacts.trust.evidence import Evidence

_MAX_DEPTH: Final = 4
_ABSENT: Final = frozenset({403, 404, 410})
"""How servers say that there is no such file; object stores say 403 to whoever may not list them."""
_DEFAULT_LIMITS: Final = FetchLimits()
_OWN_MACHINE_TOO: Final = AddressPolicy()
_NO_ACCESS: Final = RegistryAccess()
_AT_HAND: Final = "at hand"
"""The place of bytes that whoever asks brings along."""
_MAX_KEPT: Final = 1024
_MAX_KEPT_BYTES: Final = 4 << 20
"""Artifacts whose evidence is kept, and bytes of it all: a signature of cosign's has 2 KiB."""
_BRIEF_CONNECT_S: Final = 5.0
_BRIEF_STALL_S: Final = 10.0
"""A mirror is asked once, and with less patience: whoever comes after it is the second attempt."""


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Artifact]
    waiting: int = 0


async def _know(access: RegistryAccess) -> None:
    """Have its fingerprint computed, which is of up to 16 MiB. Then it is known."""
    if "fingerprint" not in vars(access):
        await in_thread(getattr, access, "fingerprint")


class _KeptEvidence:
    """The evidence of artifacts that were verified, the last used, within bounds."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, ...]) -> bytes | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: tuple[str, ...], evidence: bytes) -> None:
        self._bytes += len(evidence) - len(self._kept.pop(key, b""))
        self._kept[key] = evidence
        while len(self._kept) > _MAX_KEPT or self._bytes > _MAX_KEPT_BYTES:
            _, old = self._kept.popitem(last=False)
            self._bytes -= len(old)


class Fetcher:
    """Fetches artifacts into a store. Of one event loop; ``close`` it when done.

    ``docker_config`` is the machine's ``config.json``, by default where docker has it; ``addresses`` says who is never
    asked, ``mirrors`` who is asked before a registry, and ``proxies`` through whom.
    ``received`` is told of each number of bytes of a module that has come. Every method raises FetchError and
    VerifyError, and nothing else.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        limits: FetchLimits = _DEFAULT_LIMITS,
        docker_config: Path | None = None,
        addresses: AddressPolicy = _OWN_MACHINE_TOO,
        mirrors: MirrorFile | None = None,
        proxies: Proxies = NO_PROXIES,
        received: Callable[[int], None] | None = None,
    ) -> None:
        self._store = store
        self._received = received
        self._limits = limits
        self._docker_config = docker_config
        self._mirrors = mirrors or MirrorFile(None)
        self._absences = Absences()
        self._transport = Transport(limits, addresses, proxies)
        self._brief = Transport(
            dataclasses.replace(
                limits,
                attempts=1,
                connect=min(limits.connect, _BRIEF_CONNECT_S),
                stall=min(limits.stall, _BRIEF_STALL_S),
            ),
            addresses,
            proxies,
        )
        self._tokens = Tokens()
        self._permits = asyncio.Semaphore(limits.parallel)
        self._shares: weakref.WeakValueDictionary[tuple[str, str], asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._evidence = _KeptEvidence()
        self._flights: dict[tuple[str, ...], _Flight] = {}
        self._tasks: set[asyncio.Task[Artifact]] = set()
        self._closed = False

    async def resolve(self, source: OCISource, *, access: RegistryAccess = _NO_ACCESS, base: Path | None = None) -> str:
        """The digest that the reference means now; a reference by digest is answered without a request."""
        async with self._bounded(source.reference):
            return await (await self.routes(source, access=access, base=base)).resolve()

    async def signatures(
        self,
        source: OCISource,
        digest: str,
        *,
        access: RegistryAccess = _NO_ACCESS,
        base: Path | None = None,
        enough: Callable[[Evidence], bool] | None = None,
    ) -> Evidence:
        """Every signature that the source's repository has for a digest; nothing of them is verified.

        Where those of a mirror are not ``enough``, the reference's own registry is asked for its, too: an artifact may
        be signed again after it was mirrored. ``enough`` is called in a thread.
        """
        async with self._bounded(f"the signatures of {source.reference}"):
            routes = await self.routes(source, access=access, base=base)
            found = await collect(routes, digest)
            if not found.signatures and routes.unasked is not None:
                raise routes.unasked  # it may have some there
            own = routes.own() if enough is not None else None
            if own is not None and enough is not None and not await in_thread(enough, found):
                try:
                    more = await collect(own, digest)
                    found = dataclasses.replace(found, signatures=(*more.signatures, *found.signatures))
                except AwayError:
                    own.pass_over()
                except (FetchError, VerifyError):
                    pass  # what a mirror has is all that there is
            return found

    async def known_evidence(
        self, source: OCISource, digest: str, *, access: RegistryAccess = _NO_ACCESS, base: Path | None = None
    ) -> bytes | None:
        """The evidence by which this artifact was verified before, for who had it from the same place with this access.

        It proves nothing by itself. A thousand plugins of one artifact need not all ask for its signatures.
        """
        return self._evidence.get(await self._as_had(source, digest, access=access, base=base))

    async def keep_evidence(
        self,
        source: OCISource,
        digest: str,
        evidence: bytes,
        *,
        access: RegistryAccess = _NO_ACCESS,
        base: Path | None = None,
    ) -> None:
        """Remember by what an artifact was verified that was had with this access."""
        self._evidence.put(await self._as_had(source, digest, access=access, base=base), evidence)

    async def _as_had(
        self, source: OCISource, digest: str, *, access: RegistryAccess, base: Path | None
    ) -> tuple[str, ...]:
        places = [way.place for way in (await self.routes(source, access=access, base=base)).ways]
        return (*places, f"access {access.fingerprint}", digest)

    async def fetch_oci(
        self,
        source: OCISource,
        *,
        digest: str | None = None,
        access: RegistryAccess = _NO_ACCESS,
        base: Path | None = None,
        prove: bool = False,
        owner: str | None = None,
    ) -> Artifact:
        """The module of a reference, pinned to ``digest`` where one is given.

        ``base`` is the folder that ``oci-layout:`` paths are relative to; without it they are refused. What the store
        has from another repository counts for nothing, and what it has from this one is given to those with whose
        ``access`` the registry was asked; ``prove`` asks it once more. ``owner`` is whom the store remembers as one
        that may have the module.
        """
        routes = await self.routes(source, access=access, base=base)
        if digest is None:
            digest = await self.resolve(source, access=access, base=base)
        if not DIGEST.fullmatch(digest):
            raise FetchError(f"{digest!r:.80} is not a sha256 digest", transient=False)
        if prove:
            async with self._bounded(source.reference):
                await routes.manifest(digest)
        places, holder = [way.place for way in routes.ways], f"access {access.fingerprint}"

        def had() -> Artifact | None:
            found = (self._store.get(digest, place=place, holder=holder) for place in places)
            return next((each for each in found if each is not None), None)

        async def had_by_others(way: Way) -> Artifact | None:
            """What somebody else had from this repository: it is asked whether this access is good for it."""
            known = await in_thread(self._store.get, digest, place=way.place)
            if known is not None:
                if not prove or len(routes.ways) > 1:
                    await way.repository.manifest(digest)
                await in_thread(self._store.prove, known, place=way.place, holder=holder)
            return known

        async def pull(way: Way) -> Artifact:
            # All of it from one repository: it is known as had there, and only who may have all of it there has it.
            return await had_by_others(way) or await self._pull(
                way.repository, digest, way.shown, place=way.place, holder=holder
            )

        return await self._once(
            ("oci", *places, holder, digest),
            had,
            lambda: routes.pull(pull),
            what=source.reference,
            host=places[-1].partition("/v2/")[0],
            owner=owner,
        )

    async def fetch_http(self, source: HTTPSource, *, prove: bool = False, owner: str | None = None) -> Artifact:
        """The module at a URL, or in a packed file there, if its bytes have the source's sha256.

        ``prove`` downloads it even where the store knows it; so does another ``owner``. See ``fetch_oci``.
        """
        digest = f"sha256:{source.sha256}"
        try:
            url = foreign(source.url)
        except ValueError:
            raise FetchError("source.http.url cannot be asked; check its host", transient=False) from None

        async def download() -> Artifact:
            with self._store.scratch() as file:
                body = Body(file, what=f"the file at {shown(url)}", cap=self._limits.download, received=self._received)
                await self._transport.request("GET", url, what=body.what, into=body, advice=OF_A_URL)
                body.verify(digest)
                return await self._keep(await self._found_in(file), digest=digest, place=place, holder=holder)

        place, holder = f"url {source.url}", f"owner {owner}"
        return await self._once(
            (place, holder, digest, str(prove)),
            lambda: None if prove else self._store.get(digest, place=place, holder=holder),
            download,
            what="the file",
            host=str(url.origin()),
            owner=owner,
        )

    async def fetch_layer(self, source: OCISource, layer: Descriptor, *, access: RegistryAccess, owner: str) -> None:
        """Have the store keep the bytes of a layer as they are, packed or not, as something that ``owner`` may have."""
        what = f"the layer {layer.shown} of {source.reference}"
        routes, limits = await self.routes(source, access=access), self._limits
        async with self._share("owner", owner, limits.of_one_owner), self._permits, self._bounded(what):
            with self._store.scratch() as file:
                body = Body(file, what=what, cap=limits.download, expected=layer.size)
                await routes.blob(layer.digest, body, whole=True)
                body.verify(layer.digest)
                sha256 = layer.digest.removeprefix("sha256:")
                await in_thread(lambda: self._store.grant_file(file, owner=owner, sha256=sha256, size=layer.size))

    async def beside(self, source: HTTPSource, suffix: str, *, most: int) -> bytes | None:
        """The small file whose URL is the source's with a suffix to its path; None where there is none.

        One of more than ``most`` bytes is a FetchError.
        """
        try:
            url = foreign(source.url)
        except ValueError:
            return None  # `fetch_http` says so
        path, asked, query = url.raw_path.partition("?")
        url = url.with_path(f"{path}{suffix}{asked}{query}", encoded=True)
        buffer = io.BytesIO()
        body = Body(buffer, what=f"the file at {shown(url)}", cap=most)
        async with self._bounded(body.what):
            try:
                await self._transport.request("GET", url, what=body.what, into=body, advice=OF_A_URL)
            except StatusError as error:
                if error.status in _ABSENT:
                    return None
                raise
        return buffer.getvalue()

    async def fetch_file(self, path: Path) -> Artifact:
        """The module in a file, raw or packed."""

        def copy(body: Body) -> None:
            read_file(path, body)

        return await self._take(copy, what=f"the file {path.name}")

    async def fetch_bytes(self, data: bytes, *, owner: str | None = None) -> Artifact:
        """The module in these bytes, raw or packed."""
        artifact = await self._take(lambda body: body.write(data), what="the module")
        return await self._granted(artifact, owner)

    async def close(self) -> None:
        """End everything that is under way; whoever waits for it gets a FetchError."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._transport.close()
        await self._brief.close()

    async def routes(
        self, source: OCISource, *, access: RegistryAccess = _NO_ACCESS, base: Path | None = None
    ) -> Routes:
        """The manifests and blobs around a reference, checked but not kept, from wherever they are to be had."""
        reference = parse(source.reference)
        if isinstance(reference, LayoutReference):
            if base is None:
                # in a cluster this would read the operator's own disk
                raise FetchError(
                    "oci-layout: references work in manifest folders only; name a registry", transient=False
                )
            folder = LayoutFolder(reference, base=base, limits=self._limits)
            place = f"layout {base}/{reference.path}"
            ways = [Way(place=place, shown=source.reference, is_mirror=False, key=(), repository=folder, brief=folder)]
        else:
            table = await self._mirrors.table()
            mirrors = [*own_mirrors(source.mirrors, reference), *table.of(reference)]
            await _know(access)
            ways = [await self._mirror(each, access) for each in mirrors]
            ways.append(self._way(reference, access, insecure=source.insecure, shown=source.reference))
        return Routes(ways, self._absences, what=source.reference, seconds=self._limits.total)

    async def _mirror(self, mirror: Mirror, access: RegistryAccess) -> Way:
        if not mirror.of_resource and mirror.ca_pem != access.ca_pem:
            access = dataclasses.replace(access, ca_pem=mirror.ca_pem)
            await _know(access)
        of = "resource" if mirror.of_resource else "cluster"
        shown = f"{mirror.reference.registry}/{mirror.reference.repository}"
        return self._way(mirror.reference, access, insecure=mirror.insecure, shown=shown, of=of)

    def _way(self, reference: Reference, access: RegistryAccess, *, insecure: bool, shown: str, of: str = "") -> Way:
        host = f"{'http' if insecure else 'https'}://{reference.host}"
        return Way(
            # What is known from here is known for nowhere else.
            place=f"{host}/v2/{reference.repository}",
            shown=shown,
            is_mirror=bool(of),
            key=(of, host),
            repository=self._remote(reference, access, self._brief if of else self._transport, insecure=insecure),
            brief=self._remote(reference, access, self._brief, insecure=insecure),
        )

    def _remote(
        self, reference: Reference, access: RegistryAccess, transport: Transport, *, insecure: bool
    ) -> Repository:
        return RemoteRepository(
            reference,
            insecure=insecure,
            access=access,
            keychain=Keychain(
                documents=access.dockerconfigs,
                docker_config=self._docker_config,
                helper_timeout=self._limits.helper,
            ),
            transport=transport,
            tokens=self._tokens,
            limits=self._limits,
        )

    async def _granted(self, artifact: Artifact, owner: str | None) -> Artifact:
        if owner is not None:
            async with self._bounded("the module"):
                await in_thread(self._store.grant, artifact, owner=owner)
        return artifact

    async def _pull(self, repository: Repository, digest: str, name: str, *, place: str, holder: str) -> Artifact:
        manifest = await in_thread_if_large(layouts.read_manifest, await repository.manifest(digest))
        for _ in range(_MAX_DEPTH):
            if manifest.entries is None:
                break
            document = await repository.manifest(layouts.choose(manifest.entries).digest)
            manifest = await in_thread_if_large(layouts.read_manifest, document)
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
                    body = Body(file, what=what, cap=left, expected=layer.size, received=self._received)
                    await repository.blob(layer.digest, body)
                    body.verify(layer.digest)
                    left -= layer.size
                    found = await in_thread(search.look, file, shown=layer.shown)
                    if search.needs(file):
                        kept.push(one.pop_all())
                if found:
                    break
            with _about(what if layer is layers[0] else name):
                return await self._keep(
                    search,
                    digest=digest,
                    layout=layout,
                    annotations=manifest.annotations,
                    place=place,
                    holder=holder,
                )

    async def _take(self, fill: Callable[[Body], None], *, what: str) -> Artifact:
        async with self._bounded(what):
            with self._store.scratch() as file:
                body = Body(file, what=what, cap=self._limits.download)
                await in_thread(fill, body)
                # Of bytes that are here nothing has to be proven; what a manifest of this digest means is another's.
                known = await in_thread(self._store.get, body.digest, place=_AT_HAND)
                return known or await self._keep(await self._found_in(file), digest=body.digest, place=_AT_HAND)

    async def _found_in(self, file: BinaryIO) -> Search:
        search = Search(limits=self._limits)
        await in_thread(search.look, file)
        return search

    async def _keep(
        self,
        search: Search,
        *,
        digest: str,
        place: str,
        holder: str | None = None,
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
                    place=place,
                    holder=holder,
                    description=found.description.over(stated) if found.description else stated,
                    described_by={**found.described_by, **described_by({}, annotations or {})},
                    signatures=found.signatures,
                )

        return await in_thread(work)

    async def _once(
        self,
        key: tuple[str, ...],
        look: Callable[[], Artifact | None],
        fetch: Callable[[], Awaitable[Artifact]],
        *,
        what: str,
        host: str,
        owner: str | None,
    ) -> Artifact:
        """What ``look`` finds or ``fetch`` gives, run once for everybody who asks for ``key`` meanwhile."""
        flight = self._flights.get(key)
        if flight is None:
            if self._closed:
                raise FetchError("the fetcher is closed", transient=False)
            flight = self._flights[key] = _Flight(
                asyncio.create_task(self._look_and_fetch(look, fetch, what=what, host=host, owner=owner))
            )
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._tasks.discard)
        flight.waiting += 1
        try:
            artifact = await asyncio.shield(flight.task)
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
        return await self._granted(artifact, owner)

    async def _look_and_fetch(
        self,
        look: Callable[[], Artifact | None],
        fetch: Callable[[], Awaitable[Artifact]],
        *,
        what: str,
        host: str,
        owner: str | None,
    ) -> Artifact:
        known = await in_thread(look)
        if known is not None:
            return known
        # First the owner's own permits and the host's, then those of all: who waits for a slow one holds none of these.
        limits = self._limits
        async with (
            self._share("owner", owner or "", limits.of_one_owner),
            self._share("host", host, limits.of_one_host),
            self._permits,
            self._bounded(what),
        ):
            return await fetch()

    def _share(self, kind: str, name: str, permits: int) -> asyncio.Semaphore:
        """The permits of one host or of one owner, while somebody has or wants one."""
        return self._shares.setdefault((kind, name), asyncio.Semaphore(permits))

    @contextlib.asynccontextmanager
    async def _bounded(self, what: str) -> AsyncIterator[None]:
        """The total time-out, and the failures of the store's disk, as FetchErrors."""
        try:
            async with asyncio.timeout(self._limits.total):
                yield
        except TimeoutError:
            raise FetchError(
                f"{what} could not be fetched within {self._limits.total:g} s; is its source slow?"
            ) from None
        except OSError as error:
            raise FetchError(f"the store cannot be used: {error.strerror}; make room or check its folder") from None


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """Say of what a VerifyError is."""
    try:
        yield
    except VerifyError as error:
        # a body names itself
        raise error if str(error).startswith(what) else type(error)(f"{what}: {error}") from None
