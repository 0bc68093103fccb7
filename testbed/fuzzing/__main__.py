"""``python -m fuzzing``: each target for so many seconds, one after the other.

With atheris, inputs are bred by what of the parsers they reach; where it is not installed (it has wheels for Linux on
x86-64), hypothesis makes them of the corpus and of chance. What fails is written to build/fuzz/<target>: make it small,
mend the parser, and keep the input in tests/fuzz/corpus/<target>.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT / "tests" / "fuzz" / "corpus"
_FINDS: Final = ("crash-*", "timeout-*", "oom-*")
_SLOW_S: Final = 10
"""Seconds for one input, after which it is a find: what takes a hundredth of that is long."""
_MEMORY_MB: Final = 1024
_COUNTED: Final = 256
"""Bytes from which on the steps are counted, which makes a run many times slower: what is short cannot be dear."""


def main() -> None:
    """The command line; the exit code says whether something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("--target", action="append", metavar="NAME", help="these alone")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--runs", type=int, default=-1, help="inputs for each target, if that is sooner")
    parser.add_argument("--seeds", action="store_true", help="write what fuzzing begins with into the corpus, and end")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seeds:
        write_seeds(CORPUS)
    elif options.one:
        _fuzz(options.one, options.seconds, options.runs)
    else:
        sys.exit(_all(options))


def write_seeds(corpus: Path) -> None:
    """Write them anew; what was found stays."""
    from fuzzing.seeds import seeds  # noqa: PLC0415 - a run with atheris imports it instrumented

    for target, files in seeds().items():
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for name, data in files.items():
            (folder / f"seed-{name}").write_bytes(data)


def _all(options: argparse.Namespace) -> int:
    from fuzzing.targets import targets  # noqa: PLC0415 - the same

    found: list[Path] = []
    for name in options.target or targets():
        print(f"── {name} ──", flush=True)
        command = [sys.executable, "-m", "fuzzing", "--one", name, f"--seconds={options.seconds}"]
        began = time.time()
        code = subprocess.run([*command, f"--runs={options.runs}"], check=False, cwd=ROOT).returncode
        new = [each for kind in _FINDS for each in _work(name).glob(kind) if each.stat().st_mtime >= began - 1]
        if code and not new:
            raise SystemExit(f"{name}: the fuzzer itself failed with {code}")
        found += new
    for each in found:
        print(f"FOUND {each.relative_to(ROOT)}: {each.read_bytes()[:100]!r}")
    return 1 if found else 0


def _work(name: str) -> Path:
    folder = ROOT / "build" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fuzz(name: str, seconds: int, runs: int) -> None:
    """Never returns where atheris is: libFuzzer ends the process."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed here: inputs are made without a look at what they reach")
        _by_chance(name, seconds, runs)
        return
    import atheris  # noqa: PLC0415 - not on every machine

    parsers = ["hookline_api", "hookline_runtime", "hookline_sidecar", "tomllib", "yaml"]
    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=parsers):  # it names each file
        from fuzzing import targets  # noqa: PLC0415 - to be instrumented, parsers are imported here
    target = targets.targets()[name]

    def one(data: bytes) -> None:
        if len(data) < _COUNTED:
            target.run(data)
        else:
            targets.check(target, data)

    work = _work(name)
    grown = work / "corpus"
    grown.mkdir(exist_ok=True)
    atheris.Setup(
        [
            "fuzzing", f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={target.max_len}",
            f"-timeout={_SLOW_S}", f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={work}/", "-print_final_stats=1",
            "-verbosity=0", str(grown), str(CORPUS / name),
        ],
        one,
    )  # fmt: skip
    atheris.Fuzz()


def _by_chance(name: str, seconds: int, runs: int) -> None:
    import hypothesis  # noqa: PLC0415 - in one of the two ways alone
    from hypothesis import strategies as st  # noqa: PLC0415

    from fuzzing import targets  # noqa: PLC0415

    target = targets.targets()[name]
    kept = [each.read_bytes() for each in sorted((CORPUS / name).iterdir())]
    end = time.monotonic() + seconds
    piece = st.one_of(st.binary(max_size=64), st.sampled_from(kept))

    @hypothesis.settings(max_examples=1000, deadline=None, database=None, derandomize=False,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(base=st.sampled_from(kept), piece=piece, at=st.integers(0, 4096), cut=st.integers(0, 64),
                      times=st.integers(1, 64))  # fmt: skip
    def some(base: bytes, piece: bytes, at: int, cut: int, times: int) -> None:
        data = (base[:at] + piece * times + base[at + cut :])[: target.max_len]
        try:
            targets.check(target, data)
        except Exception:
            (_work(name) / "crash-by-chance").write_bytes(data)
            raise

    made = 0
    while time.monotonic() < end and (runs < 0 or made < runs):
        some()
        made += 1000


if __name__ == "__main__":
    main()
