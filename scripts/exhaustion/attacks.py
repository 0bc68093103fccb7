"""All attacks; ``python -m exhaustion.attacks NAME SECONDS`` runs one, with the addresses as JSON on its input."""

from __future__ import annotations

import json
import logging
import os
import sys

from exhaustion import catalogue, content_attacks, network_attacks
from exhaustion.catalogue import Attack

__all__ = ["Attack", "attacks", "content_attacks", "network_attacks"]


def attacks() -> dict[str, Attack]:
    """By name, in the order of the table."""
    return dict(sorted(catalogue.attacks().items(), key=lambda item: item[1].entry))


def main() -> None:
    """Run the attack that is named."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    where = json.load(sys.stdin)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of each write to who has hung up
    os.nice(10)  # the attacker is another machine, which does not take its processor from those that are attacked
    print(json.dumps(attacks()[name].run(where, seconds)), flush=True)


if __name__ == "__main__":
    main()
