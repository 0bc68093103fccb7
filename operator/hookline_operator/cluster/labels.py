"""The labels and annotations that Hookline reads and writes on pods and namespaces."""

from __future__ import annotations

from typing import Final

LABEL_ASKS: Final = "hookline.dev/inject"
"""On a pod or a namespace: ``true`` asks for a sidecar; ``false`` on the pod wins over everything."""
LABEL_REQUIRES: Final = "hookline.dev/require-injection"
"""On a namespace: ``true`` asks for sidecars too, and refuses pods while no operator answers."""
SIDECAR_LABEL: Final = "hookline.dev/sidecar"
"""On a pod that has a sidecar, injected or by hand: ``true``."""
ANNOTATION_CA: Final = "hookline.dev/operator-ca"
"""The certificate authorities of the operator, PEM. Kubelet hands the running sidecar each change of it."""
