"""Prints objects as they can be applied again: without what an API server gave them (docs/operate/backup.md).

``python scripts/restorable.py FILE``, where FILE is what ``kubectl get … --output json`` printed: a list or an object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

_GIVEN: Final = frozenset({
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
    "ownerReferences", "resourceVersion", "selfLink", "uid",
})  # fmt: skip
"""Of ``metadata``. Owners go by their uid, which a restored one does not have."""
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def restorable(given: Json) -> Json:
    """An object, or a List of them, without status and without what is only true of where it was."""
    if given.get("kind", "").endswith("List"):
        return {"apiVersion": "v1", "kind": "List", "items": [restorable(each) for each in given["items"]]}
    made = {name: value for name, value in given.items() if name != "status"}
    metadata = {name: value for name, value in given.get("metadata", {}).items() if name not in _GIVEN}
    annotations = {name: value for name, value in metadata.pop("annotations", {}).items() if name != _LAST_APPLIED}
    made["metadata"] = metadata | ({"annotations": annotations} if annotations else {})
    return made


def main() -> None:
    """Print what the file holds."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    json.dump(restorable(json.loads(Path(sys.argv[1]).read_text())), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
