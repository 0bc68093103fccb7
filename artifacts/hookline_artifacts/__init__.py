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

Rooms: ``resolve`` (one resource, resolved) and ``entry`` (what a bundle holds of it), ``fetch`` and ``folder`` (a
source becomes bytes), ``registry`` and ``login`` (asking for them, and who we are then), ``net`` (whom we ask, and
how), ``package`` (which file is the module), ``module`` (what it is), ``store`` (what is kept), ``apart`` and
``threads`` (where costly work is done). No engine and no Kubernetes. Signatures will come between ``Fetcher.resolve``
and ``Fetcher.fetch_oci``; see ``Fetcher.repository``.
A reader starts at ``resolve.py``.
"""
