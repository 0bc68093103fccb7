"""All attacks; ``python -m exhaustion.attacks NAME SECONDS`` runs one, with the addresses as JSON on its input."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Final

from exhaustion import catalogue, content_attacks, network_attacks
from exhaustion.catalogue import Attack

__all__ = ["Attack", "attacks", "brief", "content_attacks", "network_attacks"]

_LONG_ALONE: Final = frozenset({
    "sidecar-crowd-hooks", "sidecar-drips-hooks", "sidecar-flood-hooks", "sidecar-members", "sidecar-toml",
    "operator-crowd-health", "operator-drips-health", "operator-flood-health", "operator-readers-health",
    "operator-members", "operator-yaml", "operator-params",
})  # fmt: skip
"""Attacks of ``make exhaust`` alone: each has a sibling that goes at the same code by another door."""


def attacks() -> dict[str, Attack]:
    """By name, in the order of the table."""
    return dict(sorted(catalogue.attacks().items(), key=lambda item: item[1].entry))


def brief(program: str) -> list[str]:
    """The names of those that are run for some seconds in every run of the tests."""
    return [each.name for each in attacks().values() if each.program == program and each.name not in _LONG_ALONE]


def main() -> None:
    """Run the attack that is named."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    where = json.load(sys.stdin)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of each write to who has hung up
    os.nice(10)  # the attacker is another machine, which does not take its processor from those that are attacked
    print(json.dumps(attacks()[name].run(where, seconds)), flush=True)


if __name__ == "__main__":
    main()
