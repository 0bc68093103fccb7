"""The real ``kubectl`` with our plugin on its path, as a user has both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.binaries import binary

_PLUGIN = """\
#!{python}
from hookline_cli.main import kubectl
kubectl()
"""
_NODE = """\
#!/bin/sh
# A control plane without nodes cannot run anything in a pod: what is run there is run here.
case "$1" in
exec) while [ "$1" != -- ]; do shift; done; shift 2; exec {python} -m hookline_sidecar "$@" ;;
*) exec {kubectl} "$@" ;;
esac
"""


@dataclass(frozen=True)
class Said:
    """What ``kubectl hookline`` printed."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """With ``--json``."""
        return json.loads(self.out)

    def stage(self, name):
        """One line of ``why --json``."""
        return next(each for each in self.json["stages"] if each["stage"] == name)


class KubectlPlugin:
    """``kubectl hookline …``; ``state`` is the folder of the sidecar that every pod has."""

    def __init__(self, folder, kubeconfig, *, state=None):
        folder.mkdir(exist_ok=True)
        self.folder, self.kubeconfig, self.state = folder, kubeconfig, state
        self._write("kubectl-hookline", _PLUGIN.format(python=sys.executable))
        self.kubectl = binary("kubectl")
        if state is not None:
            self._write("kubectl", _NODE.format(python=sys.executable, kubectl=self.kubectl))

    def _write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def __call__(self, *arguments, data=None):
        """Run it."""
        path = os.pathsep.join([str(self.folder), str(Path(self.kubectl).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig)}
        if self.state is not None:
            environment["HOOKLINE_STATE"] = str(self.state)
        done = subprocess.run(
            [self.kubectl, "hookline", *map(str, arguments)],
            input=data, capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)
