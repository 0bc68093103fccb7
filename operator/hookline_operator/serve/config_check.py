"""Checks a plugin for admission against the module that it has now: its settings, and its permissions."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from hookline_api.abi import permission_refusal, permission_warning, ungranted_imports
from hookline_api.resources import Source
from hookline_artifacts.errors import ConfigError, LoadError
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import inspect_file
from hookline_artifacts.resolve import is_asked_again
from hookline_artifacts.schema_check import check_apart
from hookline_artifacts.threads import in_thread
from hookline_operator.webhooks import admission

if TYPE_CHECKING:
    from hookline_api.resources import WasmPlugin
    from hookline_artifacts.store import ArtifactStore
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.revisions import Revision, Template
    from hookline_operator.serve.blobs import Blobs
    from hookline_operator.serve.bundles import Bundles

_CHECK_S: Final = 2
_CHECKS_AT_ONCE: Final = 2


class ConfigCheck:
    """Checks settings against the schema of the plugin's present module. Admission cannot wait long for it.

    Anybody can reach a webhook, and claim to be about another tenant's plugin. So nothing is looked up, checked or said
    unless the review has that plugin's uid. It is random, and known to those who may read the plugin.
    """

    def __init__(self, catalogue: Catalogue, bundles: Bundles, store: ArtifactStore, blobs: Blobs) -> None:
        self._catalogue = catalogue
        self._bundles = bundles
        self._store = store
        self._blobs = blobs
        self._permits = asyncio.Semaphore(_CHECKS_AT_ONCE)

    async def __call__(self, plugin: WasmPlugin) -> str | None:
        """One sentence about what is wrong; None where nothing is, or where it is not known here."""
        revision, template = self._known(plugin)
        if revision is None or template is None or plugin.spec.config_from:  # what comes from Secrets is not here
            return None
        try:
            schema = await self._schema(revision, template.artifact.sha256)
            if schema is not None:
                # Anybody can reach a webhook, and each check is a process. Who waits too long is let in with a warning.
                async with self._permits:
                    await check_apart(plugin.spec.config, schema, secret_paths=[], seconds=_CHECK_S)
        except ConfigError as error:
            return str(error)
        except (LoadError, ValidationError, OSError):
            return None
        return None

    def lacks(self, plugin: WasmPlugin) -> admission.Lack | None:
        """What the present module imports and the resource does not grant; None where nothing is missing or known."""
        revision, template = self._known(plugin)
        ungranted = ungranted_imports(template.imports, plugin.spec.permissions) if template is not None else {}
        if not ungranted:
            return None
        strict = plugin.spec.permissions_policy == "Strict"
        if not strict:
            return admission.Lack(permission_warning(ungranted), refused=False)
        # What a tag or a ConfigMap means may be another module by now, which needs less: the status says it then.
        stays = revision is not None and self._catalogue.inputs_now(revision) == revision.inputs
        return admission.Lack(permission_refusal(ungranted), refused=stays and not is_asked_again(plugin.spec.source))

    def _known(self, plugin: WasmPlugin) -> tuple[Revision | None, Template | None]:
        """What the plugin runs now, where that is of the same source."""
        known = self._catalogue.plugin((plugin.metadata.namespace or "", plugin.metadata.name))
        told = (plugin.metadata.uid or "").encode(errors="replace")
        if known is None or not hmac.compare_digest(known.uid.encode(), told):
            return None, None
        revision = self._catalogue.current(known)
        if revision is None:
            return None, None
        with contextlib.suppress(ValidationError):
            template = revision.parsed()
            # As models: one that writes a default out means the same as one that does not.
            same = Source.model_validate(template.spec.get("source")) == plugin.spec.source
            return revision, template if same else None
        return None, None

    async def _schema(self, revision: Revision, sha256: str) -> dict[str, Any] | None:
        artifact = await in_thread(self._store.granted, sha256, owner=revision.namespace)
        if artifact is not None:
            where, told = artifact.path, artifact.description
        else:  # another replica resolved it, and no sidecar has asked this one for it yet
            _, entry = await self._bundles.entry(revision)
            async with asyncio.timeout(_CHECK_S):
                where, told = (await self._blobs.fetch(revision.namespace, entry)).path, PluginDescription()
        raw = (await in_thread(inspect_file, where)).description
        inside = PluginDescription.from_json(raw) if raw is not None else PluginDescription()
        return inside.over(told).config_schema
