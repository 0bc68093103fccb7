"""A real sidecar process, and an operator that speaks the contract over TLS and breaks it on demand."""

from __future__ import annotations

import pytest


@pytest.fixture
def sidecar(new_sidecar, operator):
    """A sidecar of that operator, not started yet."""
    sidecar = new_sidecar(plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token)
    yield sidecar
    sidecar.end()


@pytest.fixture
def reported(operator, eventually):
    """Waits until the last report has these facts; the report."""

    def wait(**facts):
        def there():
            last = operator.last
            return last if all(getattr(last, name) == value for name, value in facts.items()) else None

        return eventually(there, lambda: f"a report with {facts}; the last was {operator.last}")

    return wait
