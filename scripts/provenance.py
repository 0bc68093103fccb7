"""Says what was built from what: an in-toto statement (v1) with a SLSA provenance (v1) as its predicate.

https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance. It is unsigned: whoever runs the build vouches
for it. RELEASING.md says how the release workflow does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sbom import sha256_of

BUILD_TYPE: Final = "https://hookline.dev/build/make-dist/v1"
_BY_HAND: Final = "https://hookline.dev/builders/make-dist"


def state(
    files: Iterable[Path], *, version: str, parts: Sequence[str], commit: str, inputs: Mapping[str, Path],
    environment: Mapping[str, str],
) -> str:  # fmt: skip
    """The statement as JSON: ``files`` were built of ``commit`` and of ``inputs``, files by the names to call them.

    In workflows of GitHub, ``environment`` names the builder, the source and the run; elsewhere they stay unnamed.
    """
    source: dict[str, Any] = {"name": "source", "digest": {"gitCommit": commit}}
    run: dict[str, Any] = {"builder": {"id": _BY_HAND}}
    if repository := environment.get("GITHUB_REPOSITORY"):
        at = f"{environment['GITHUB_SERVER_URL']}/{repository}"
        source["uri"] = f"git+{at}@{environment['GITHUB_REF']}"
        run["builder"]["id"] = f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_WORKFLOW_REF']}"
        attempt = environment["GITHUB_RUN_ATTEMPT"]
        run["metadata"] = {"invocationId": f"{at}/actions/runs/{environment['GITHUB_RUN_ID']}/attempts/{attempt}"}
    locks = [{"name": name, "digest": {"sha256": sha256_of(path)}} for name, path in inputs.items()]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": {"sha256": sha256_of(file)}} for file in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": version, "parts": list(parts)},
                "resolvedDependencies": [source, *locks],
            },
            "runDetails": run,
        },
    }
    return json.dumps(statement, indent=2) + "\n"
