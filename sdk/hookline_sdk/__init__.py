"""What authors of plugins get: a package for each language, and the projects that ``hookline new`` makes.

Each folder is that language's own package, as its tools expect it; nothing here is Python but this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
"""Where the packages are."""
