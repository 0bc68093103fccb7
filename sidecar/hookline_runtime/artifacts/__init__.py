"""Artifacts: from what a resource says to a module's bytes on disk, checked.

    store = ArtifactStore(Path("/var/cache/hookline"))
    fetcher = Fetcher(store)
    digest = await fetcher.resolve(source)                        # a tag becomes one digest, once
    artifact = await fetcher.fetch_oci(source, digest=digest)     # pinned; no network if the store knows it
    store.pin([artifact.sha256])                                  # what is loaded is never dropped
    await fetcher.close()

Everything that comes from outside (a registry's answers, an archive, a description, a file of the store itself) is
taken as hostile: bounded in bytes, time, depth and number, and checked against its digest. Every failure is a
FetchError (``transient`` says whether to try again) or a VerifyError, in one sentence without secrets.

What belongs here: names, pulling, unpacking, caching. What does not: looking into a module beyond its first eight
bytes, signatures (they come between ``resolve`` and ``fetch_oci``, see ``Fetcher.repository``), Kubernetes.
A reader starts at ``fetch.py``.
"""

from hookline_runtime.artifacts.describe import PluginDescription, PluginResources
from hookline_runtime.artifacts.fetch import Fetcher
from hookline_runtime.artifacts.limits import FetchLimits
from hookline_runtime.artifacts.reference import LayoutReference, Reference, parse
from hookline_runtime.artifacts.registry import RegistryAccess, Repository
from hookline_runtime.artifacts.store import Artifact, ArtifactStore

__all__ = [
    "Artifact",
    "ArtifactStore",
    "FetchLimits",
    "Fetcher",
    "LayoutReference",
    "PluginDescription",
    "PluginResources",
    "Reference",
    "RegistryAccess",
    "Repository",
    "parse",
]
