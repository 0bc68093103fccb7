"""Which credentials are tried, and in which order.

Nothing is read before a registry asks, and no source before the one ahead of it was refused: pull secrets come
first, in order, then the machine's docker configuration: the registry's own helper, the file's entries, the
general helper. A source that cannot be used is a ``Gap``: it stops none of the others, and whoever asks reports it
where nothing else was good. A pull secret is somebody else's text, so only its ``auths`` count: it can never make
a helper run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.login.credentials import Credentials, Gap, PullSecret
from hookline_artifacts.login.docker_config import own_helper, parse, read_entries, read_secret
from hookline_artifacts.login.helpers import ask_helper
from hookline_artifacts.reference import DOCKER_HUB
from hookline_artifacts.threads import in_thread, open_at_once

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hookline_artifacts.reference import Reference

MAX_SECRETS: Final = 16
"""Pull secrets that are read for one reference."""
_MAX_CONFIG: Final = 1 << 20
_HUB_SERVER: Final = "https://index.docker.io/v1/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Keychain:
    """Finds credentials for a reference."""

    documents: Sequence[Mapping[str, Any] | str | PullSecret]
    """Pull secrets in the order in which to try them; also a ``.dockerconfigjson`` by itself, parsed or not."""
    docker_config: Path | None = None
    """The machine's ``config.json``; None is where docker has it."""
    helper_timeout: float = 20.0
    """Seconds for one credential helper."""

    async def find(self, reference: Reference) -> AsyncGenerator[Credentials | Gap, None]:
        """Every candidate, the best first, and what cannot be used. Each source is read when it is come to."""
        for number, document in enumerate(self.documents, 1):
            if number > MAX_SECRETS:
                where = "name the right one in spec.source.oci.pullSecrets"
                yield Gap(why=f"only the first {MAX_SECRETS} pull secrets are read: {where}")
                break
            for found in await in_thread(read_secret, document, number, reference):
                yield found
        machine, what = await in_thread(_machine_config, self.docker_config)
        if isinstance(machine, Gap):
            yield machine
            return
        server = _HUB_SERVER if reference.registry == DOCKER_HUB else reference.registry
        own, helped = own_helper(machine, reference), False
        if own:
            for found in await ask_helper(own, server, self.helper_timeout):
                helped = helped or isinstance(found, Credentials)
                yield found
        general = machine.get("credsStore")
        for found in await in_thread(read_entries, machine.get("auths"), reference, what, marks=bool(own or general)):
            yield found
        if general and not helped:
            for found in await ask_helper(general, server, self.helper_timeout):
                yield found


def _machine_config(path: Path | None) -> tuple[Mapping[str, Any] | Gap, str]:
    if path is None:
        folder = os.environ.get("DOCKER_CONFIG")
        try:
            path = (Path(folder) if folder else Path("~/.docker").expanduser()) / "config.json"
        except RuntimeError:  # neither HOME nor an entry in passwd: so docker has no configuration here
            return {}, ""
    what = f"the docker configuration {path}"
    try:
        with open(path, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Gap(why=f"{what} is not a regular file"), what
            text = file.read(_MAX_CONFIG + 1)
    except FileNotFoundError:
        return {}, what
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "this is not a file name"
        return Gap(why=f"{what} cannot be read: {why}"), what
    if len(text) > _MAX_CONFIG:
        return Gap(why=f"{what} has more than {_MAX_CONFIG} bytes"), what
    return parse(text, what=what), what
