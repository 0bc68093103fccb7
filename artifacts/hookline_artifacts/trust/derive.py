"""From a signed artifact to the module in it: whoever runs a module finds out whether it is the one that was signed.

Evidence leads by digests from what was signed to the manifest that names the layers. Where a layer is the module
itself, that is all; where the module is packed, the layers are looked into once more, as they were when it was pulled.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.package.layouts import Descriptor, check_compression, choose, module_layers, read_manifest
from hookline_artifacts.package.search import Search
from hookline_artifacts.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hookline_artifacts.limits import FetchLimits
    from hookline_artifacts.trust.evidence import Evidence

_RAW = "raw"


class FetchLayer(Protocol):
    """Where the bytes of a layer come from."""

    async def __call__(self, layer: Descriptor, into: BinaryIO, *, cap: int) -> None:
        """Write them, checked against the layer's digest and at most ``cap``. Raises FetchError and VerifyError."""


class Named(NamedTuple):
    """What evidence says that a module is in."""

    layers: Sequence[Descriptor]
    """To be looked into one after the other."""
    layout: str
    annotations: Mapping[str, object]
    """Of the manifest."""


def named_by(evidence: Evidence) -> Named:
    """The layers that evidence leads to, or the file itself. Raises VerifyError where it leads nowhere."""
    current, manifest = evidence.digest, None
    for _ in range(len(evidence.documents)):
        if current not in evidence.documents:
            break
        manifest = read_manifest(evidence.documents[current])
        if manifest.entries is None:
            return Named(*module_layers(manifest), manifest.annotations)
        current = choose(manifest.entries).digest
    if manifest is not None:
        raise VerifyError("the signatures are of an index, and what it leads to was not sent with them")
    whole = Descriptor(media_type="", digest=evidence.digest, size=-1, annotations={}, platform={})
    return Named([whole], _RAW, {})


async def derive(
    evidence: Evidence,
    *,
    sha256: str,
    fetch: FetchLayer,
    scratch: Callable[[], contextlib.AbstractContextManager[BinaryIO]],
    limits: FetchLimits,
) -> PluginDescription | None:
    """What an artifact says of its module. Raises VerifyError where the module that evidence is of is another one.

    ``sha256`` is of the module that is to run; ``scratch`` gives files for layers, where there are any to be fetched.
    """
    named = named_by(evidence)
    stated = PluginDescription.from_annotations(named.annotations)
    if len(named.layers) == 1 and named.layers[0].digest == f"sha256:{sha256}":
        return stated
    search, left = Search(limits=limits), limits.download
    with contextlib.ExitStack() as kept:
        for layer in named.layers:
            check_compression(layer)
            if layer.size > left:
                raise VerifyError(
                    f"the layers that the module is in have more than the {limits.download} bytes allowed"
                )
            with contextlib.ExitStack() as one:
                file = one.enter_context(scratch())
                await fetch(layer, file, cap=layer.size if layer.size >= 0 else left)
                left -= max(layer.size, 0)
                found = await in_thread(search.look, file, shown=layer.shown)
                if search.needs(file):
                    kept.push(one.pop_all())
            if found:
                break
        with scratch() as module:
            unpacked = await in_thread(search.take, module, layout=named.layout)
    if unpacked.sha256 != sha256:
        raise VerifyError(
            f"the signatures are of an artifact with the module {unpacked.sha256}, and {sha256} is what would run"
        )
    return unpacked.description.over(stated) if unpacked.description is not None else stated
