"""Where resources come from: a folder of manifests, or the operator. Both stand behind the seam in ``source``."""
