"""Policies of this machine: ``PluginTrustPolicy`` documents in files that no operator writes.

They are part of the image, or a ConfigMap that the cluster's owner has mounted. A file that cannot be read, or is
wrong, does not take its policies away: those that it had go on, and it is a *problem*, while which nothing new is
loaded (``trust``).

**Which plugins a policy is for.** Of the namespace its name alone is known here, as the label
``kubernetes.io/metadata.name``, and only where the pod tells it. All that cannot be decided here counts as selecting:
other labels of the namespace, and the names and labels of plugins, which are the word of whoever is not trusted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.base import API_VERSION, POLICY_KIND
from hookline_api.policies import PluginTrustPolicy
from hookline_api.trust import documents
from hookline_artifacts.documents import kubernetes_yaml
from hookline_artifacts.errors import ConfigError, LoadError
from hookline_artifacts.threads import open_at_once
from hookline_artifacts.trust.policy import Policy
from hookline_artifacts.trust.requirement import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_api.resources import LabelSelector

_NAMESPACE: Final = "kubernetes.io/metadata.name"
# https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SUFFIXES: Final = frozenset({".yaml", ".yml"})
_MAX_FILES: Final = 256
_MAX_PROBLEMS: Final = 5
_MAX_TOKEN: Final = 64 * 1024
_LOOK_S: Final = 1.0
"""How often it is looked whether a file changed. kubelet replaces a link, which few events tell of."""

log = logging.getLogger("hookline.trust")


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePolicy:
    """One policy of a file."""

    file: str
    policy: Policy


class _NoObjects:
    """A file can name no object of a cluster: whoever asks, the cluster could answer otherwise."""

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        _refuse_object(namespace, name)

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        _refuse_object(namespace, name)


class PolicyFiles:
    """The policies of some files and folders; those that cannot select a plugin of ``namespace`` are left out."""

    def __init__(self, paths: Sequence[Path], *, namespace: str | None) -> None:
        self.policies: tuple[FilePolicy, ...] = ()
        self.problems: tuple[str, ...] = ()
        """What cannot be used; one sentence each, which begins with the file."""
        self._paths = tuple(paths)
        self._namespace = namespace
        self._by_file: dict[Path, tuple[FilePolicy, ...]] = {}
        """What each file last said, where it could be read."""
        self._keys: frozenset[Path] = frozenset()
        """Files and folders of keys."""
        self._glance: object = None

    @property
    def configured(self) -> bool:
        """Whether there are any places for policies."""
        return bool(self._paths)

    async def read(self) -> bool:
        """Read them; whether anything is another than it was."""
        before = (self._told(), self.problems)
        self._glance = await asyncio.to_thread(self._look)
        found: dict[Path, tuple[FilePolicy, ...]] = {}
        problems: list[str] = []
        self._keys = frozenset()
        for path in self._paths:
            try:
                files = await asyncio.to_thread(_files, path)
            except OSError as error:
                problems.append(f"{path}: cannot be read: {error.strerror}")
                found |= {file: known for file, known in self._by_file.items() if path in {file, file.parent}}
                continue
            for file in files:
                try:
                    found[file] = await self._policies(file)
                except LoadError as error:
                    problems.append(f"{file}: {error}")
                    found[file] = self._by_file.get(file, ())
                except Exception as error:  # a defect of ours must be seen as this file's problem, and not end all
                    log.exception("the policy %s could not be read", file)
                    problems.append(f"{file}: the sidecar failed: {type(error).__name__}; its log says more")
                    found[file] = self._by_file.get(file, ())
        self._by_file = found
        problems += _twice(found)
        self.policies = tuple(each for known in found.values() for each in known)
        self.problems = tuple(problems)
        for problem in set(problems) - set(before[1]):
            log.error("%s; no plugin is loaded that does not run already, until it is mended", problem)
        return (self._told(), self.problems) != before

    async def changed(self) -> None:
        """Return when they may be others than they were when they were last read."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if await asyncio.to_thread(self._look) != self._glance:
                return

    def _told(self) -> list[tuple[str, str, str, str]]:
        return [
            (
                each.file,
                each.policy.name,
                each.policy.spec.model_dump_json(by_alias=True),
                each.policy.requirement.fingerprint if each.policy.requirement is not None else "",
            )
            for each in self.policies
        ]

    def _look(self) -> object:
        """Differs from the last look where something may have changed; one ``stat`` for each file."""
        seen: list[object] = []
        for path in (*self._paths, *sorted(self._keys)):
            try:
                files = [path, *sorted(path.iterdir())[: 2 * _MAX_FILES]] if path.is_dir() else [path]
            except OSError as error:
                seen.append((path, error.errno))
                continue
            for file in files:
                try:
                    now = file.stat()
                except OSError as error:
                    seen.append((file, error.errno))
                else:
                    seen.append((file, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns))
        return seen

    async def _policies(self, path: Path) -> tuple[FilePolicy, ...]:
        """What a file says. Raises LoadError."""
        raw = await asyncio.to_thread(_read, path)
        try:
            found = await asyncio.to_thread(kubernetes_yaml.read, raw)
        except kubernetes_yaml.UnreadableError as error:
            at = f"line {error.line}: " if error.line is not None else ""
            raise ConfigError(f"{at}this cannot be read: {error}") from None
        if not found:
            raise ConfigError("it holds no document; delete the file to take its policies away")
        parsed = await asyncio.to_thread(lambda: [_parsed(each) for each in found])
        made = [await self._policy(each, path) for each in parsed]
        return tuple(each for each in made if each is not None)

    async def _policy(self, policy: PluginTrustPolicy, path: Path) -> FilePolicy | None:
        spec, requirement = policy.spec, None
        if not may_select(spec.namespace_selector, self._namespace):
            return None
        if spec.signatures is not None and spec.signatures.wanted:
            named = documents(spec.signatures)
            self._keys |= {path.parent / each.file for each in named if each.file is not None}
            requirement = await load(
                spec.signatures, objects=_NoObjects(), namespace=None, base=path.parent, where="spec.signatures"
            )
        return FilePolicy(file=path.name, policy=Policy(name=policy.metadata.name, spec=spec, requirement=requirement))


def may_select(selector: LabelSelector, namespace: str | None) -> bool:
    """Whether a selector of namespaces selects this one, or that cannot be decided here."""
    if namespace is None:
        return True
    if selector.match_labels.get(_NAMESPACE, namespace) != namespace:
        return False
    for each in selector.match_expressions:
        if each.key != _NAMESPACE:
            continue
        wrong = {
            "In": namespace not in each.values,
            "NotIn": namespace in each.values,
            "Exists": False,
            "DoesNotExist": True,
        }
        if wrong[each.operator]:
            return False
    return True


def own_namespace(token: Path | None) -> str | None:
    """The namespace of this pod, as kubelet tells it: in its service account's folder, or in its token.

    The signature of the token is not verified: it is a file of this pod's own. None where nothing tells it.
    """
    try:
        text = _ACCOUNT.read_bytes()[:_MAX_TOKEN].decode().strip()
        if text:
            return text
    except (OSError, ValueError):
        pass
    if token is None:
        return None
    try:
        with token.open("rb") as file:
            payload = file.read(_MAX_TOKEN).split(b".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        found = claims["kubernetes.io"]["namespace"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, binascii.Error):
        return None
    return found if isinstance(found, str) and found else None


def _refuse_object(namespace: str | None, name: str) -> NoReturn:
    del namespace
    raise ConfigError(
        f"spec.signatures: '{name}' is a Secret or a ConfigMap, which a policy in a file cannot name: write the key "
        "into it, or give its file"
    )


def _files(path: Path) -> list[Path]:
    """The files to read at a place, in order. Raises OSError.

    A folder with files of which none could be a policy is a mistake, and not one without policies.
    """
    if not path.is_dir():
        path.stat()
        return [path]
    there = [each for each in path.iterdir() if not each.name.startswith(".")]
    found = sorted(each for each in there if each.suffix.lower() in _SUFFIXES)
    if there and not found:
        raise OSError(errno.EINVAL, f"it has files, and none ends in {' or '.join(sorted(_SUFFIXES))}")
    if len(found) > _MAX_FILES:
        raise OSError(errno.E2BIG, f"it has {len(found)} files, and {_MAX_FILES} are allowed")
    return found


def _read(path: Path) -> bytes:
    """A file's bytes, whatever else may stand there. Raises ConfigError."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("it is not a regular file")
            return file.read(kubernetes_yaml.MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from None


def _parsed(document: Any) -> PluginTrustPolicy:
    """One document. Raises ConfigError."""
    if not isinstance(document, dict):
        raise ConfigError("a document must be a mapping")
    if (document.get("apiVersion"), document.get("kind")) != (API_VERSION, POLICY_KIND):
        raise ConfigError(f"a document must have apiVersion: {API_VERSION} and kind: {POLICY_KIND}")
    document.pop("status", None)
    metadata = document.get("metadata")
    if isinstance(metadata, dict):
        # What kubectl and other tools leave there is theirs.
        document["metadata"] = {key: metadata[key] for key in ("name", "labels") if metadata.get(key) is not None}
    try:
        # Strict, as the API server is.
        return PluginTrustPolicy.model_validate_json(
            orjson.dumps(document), strict=True, extra="forbid", by_alias=True, by_name=False
        )
    except ValidationError as error:
        told = [f"{each.path}: {each.text}" for each in sentences.problems(error, most=_MAX_PROBLEMS)]
        raise ConfigError("; ".join(told)) from None


def _twice(found: Mapping[Path, Sequence[FilePolicy]]) -> list[str]:
    """A sentence for each name that several policies have: counts and sentences would be of either."""
    files: dict[str, list[str]] = {}
    for path, policies in found.items():
        for each in policies:
            files.setdefault(each.policy.name, []).append(str(path))
    return [
        f"{' and '.join(dict.fromkeys(where))}: the policy '{name}' is there more than once"
        for name, where in files.items()
        if len(where) > 1
    ]
