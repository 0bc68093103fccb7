"""Ed25519 signatures, as they are put beside a file, into a package, or beside an artifact in a registry."""

from __future__ import annotations
