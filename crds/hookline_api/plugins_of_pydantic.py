"""Pydantic has plugins of its own, none of which a program of ours has."""

from __future__ import annotations

import os


def switch_off() -> None:
    """For this process and its children. Programs do so as they begin, and a library never.

    Else the metadata of each package that is installed is read for one, before the first model is built.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # https://docs.pydantic.dev/latest/concepts/plugins/
