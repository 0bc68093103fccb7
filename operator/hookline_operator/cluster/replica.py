"""One replica of the operator, as the Lease names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of the operator."""

    name: str
    """Of its pod."""
    address: str
    """``HOST:PORT`` at which its peers reach it."""

    @property
    def identity(self) -> str:
        """As the Lease has it."""
        return f"{self.name}_{self.address}"

    @classmethod
    def of(cls, identity: str | None) -> Replica | None:
        """From the Lease; None where nobody, or nobody of ours, holds it."""
        name, _, address = (identity or "").rpartition("_")
        return cls(name, address) if name and address else None
