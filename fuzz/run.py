#!/usr/bin/env python3
"""Builds the fuzzer with coverage counters and runs every target for its share of the time.

    fuzz/run.py [--minutes 10] [--target NAME ...] [--replay] [--minimize]

Needs the pinned stable toolchain and a C++ compiler, nothing else. What it finds while it runs is
kept outside of the sources, in the build folder, and used again by the next run; `--minimize`
writes the smallest set with the same coverage to `fuzz/corpus`, which is committed and replayed by
the tests. An input that breaks a property is kept in `fuzz/artifacts` and ends the run with 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
REPOSITORY = FUZZ.parent
CORPUS = FUZZ / "corpus"
ARTIFACTS = FUZZ / "artifacts"
OUTPUT = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target") / "fuzz"

# The counters that libFuzzer reads. A stable compiler has the pass; cargo-fuzz sets the same.
COUNTERS = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
)

# Of the whole time. The decoders get most; what is small is soon exhausted.
SHARES = {
    "otlp_protobuf": 4, "otlp_json": 4, "traces_json": 3, "trace_file": 2, "start_trace": 2, "assessment": 1,
    "content_encoding": 1, "record": 2, "any_value": 2, "rows": 4, "names": 1, "journal": 2,
    "experiment_filter": 1,
}  # fmt: skip

# Inputs that are committed of one target, from the shortest to the longest.
MAX_INPUTS = 60

LIMITS = ("-rss_limit_mb=1024", "-timeout=10", "-max_len=8192")


def build() -> Path:
    """The binary, built for the host with the counters in our code and its dependencies."""
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True, cwd=FUZZ)
    (host,) = re.findall(r"^host: (\S+)$", version.stdout, re.MULTILINE)
    # With a target named, the flags do not reach build scripts and macros.
    command = ["cargo", "build", "--locked", "--target", host, "--target-dir", str(OUTPUT)]
    environment = os.environ | {"RUSTFLAGS": " ".join(COUNTERS)}
    subprocess.run(command, check=True, cwd=FUZZ, env=environment)
    return OUTPUT / host / "debug" / "tracelake-fuzz"


def run(binary: Path, target: str, *arguments: str) -> tuple[int, str]:
    """Runs libFuzzer on one target; gives its exit code and what it said."""
    ARTIFACTS.mkdir(exist_ok=True)
    done = subprocess.run(
        [binary, *LIMITS, f"-artifact_prefix={ARTIFACTS}/{target}-", *arguments],
        env=os.environ | {"FUZZ_TARGET": target},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stdout


def fuzz(binary: Path, target: str, seconds: int) -> bool:
    """Fuzzes one target; prints executions and coverage. False when an input broke a property."""
    found = OUTPUT / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    committed = CORPUS / target
    seeds = [str(folder) for folder in (committed, *recorded(target)) if folder.is_dir()]
    dictionary = FUZZ / "dictionaries" / f"{target}.txt"
    options = [f"-dict={dictionary}"] if dictionary.is_file() else []
    begun = time.monotonic()
    code, said = run(
        binary, target, f"-max_total_time={seconds}", "-print_final_stats=1", *options,
        str(found), *seeds,
    )  # fmt: skip
    took = time.monotonic() - begun
    executions = last(r"stat::number_of_executed_units:\s*(\d+)", said)
    coverage = last(r"\bcov: (\d+)", said)
    features = last(r"\bft: (\d+)", said)
    verdict = "ok" if code == 0 else "FAILED"
    print(
        f"{target:20} {executions:>12,} executions {executions / took:>9,.0f}/s"
        f"  edges {coverage:>6,}  features {features:>6,}  {took:5.0f} s  {verdict}",
        flush=True,
    )
    if code != 0:
        print("\n".join(said.splitlines()[-60:]))
        print(f"hint: the input is in {ARTIFACTS}; replay it with")
        print(f"  FUZZ_TARGET={target} {binary} FILE")
    return code == 0


def recorded(target: str) -> list[Path]:
    """Folders of recorded real requests, where they are there."""
    data = REPOSITORY.parent / "shared" / "data"
    folders = {
        "otlp_json": ["otlp_vectors"],
        "otlp_protobuf": ["otlp_real", "mlflow_wire"],
        "rows": ["otlp_real"],
        "traces_json": ["mlflow_wire"],
        "start_trace": ["mlflow_wire"],
        "assessment": ["mlflow_wire"],
    }
    return [data / name for name in folders.get(target, ())]


def last(pattern: str, text: str) -> int:
    """The last number that the pattern finds, 0 without one."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def replay(binary: Path, target: str) -> bool:
    """Runs every committed input once."""
    folder = CORPUS / target
    code, said = run(binary, target, "-runs=0", str(folder)) if folder.is_dir() else (0, "")
    print(f"{target:20} {'ok' if code == 0 else 'FAILED'}")
    if code != 0:
        print("\n".join(said.splitlines()[-60:]))
    return code == 0


def minimize(binary: Path, target: str) -> bool:
    """Writes a small set of small inputs that reach every edge that all small inputs reach."""
    kept, found = CORPUS / target, OUTPUT / "corpus" / target
    fresh = OUTPUT / "merged" / target
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    sources = [str(folder) for folder in (kept, found) if folder.is_dir()]
    options = ("-set_cover_merge=1", "-use_counters=0", "-max_len=600")
    code, said = run(binary, target, *options, str(fresh), *sources)
    if code != 0:
        print("\n".join(said.splitlines()[-40:]))
        return False
    for file in kept.glob("*") if kept.is_dir() else ():
        # What a person gave a name once broke something, and stays.
        if re.fullmatch("[0-9a-f]{40}", file.name):
            file.unlink()
    kept.mkdir(parents=True, exist_ok=True)
    made = sorted(fresh.iterdir(), key=lambda file: file.stat().st_size)
    for file in made[len(made) // MAX_INPUTS :: len(made) // MAX_INPUTS + 1]:
        shutil.copy(file, kept)
    files = list(kept.iterdir())
    print(f"{target:20} {len(files)} inputs, {sum(file.stat().st_size for file in files)} bytes")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--target", action="append", choices=SHARES, help="only this one")
    parser.add_argument("--replay", action="store_true", help="only run the committed inputs")
    parser.add_argument("--minimize", action="store_true", help="write fuzz/corpus anew")
    options = parser.parse_args()
    targets = options.target or list(SHARES)
    binary = build()
    if options.replay:
        return 0 if all([replay(binary, target) for target in targets]) else 1
    if options.minimize:
        return 0 if all([minimize(binary, target) for target in targets]) else 1
    shares = sum(SHARES[target] for target in targets)
    seconds = {t: max(1, round(options.minutes * 60 * SHARES[t] / shares)) for t in targets}
    print(f"fuzzing {len(targets)} targets for {options.minutes:g} minutes", flush=True)
    return 0 if all([fuzz(binary, target, seconds[target]) for target in targets]) else 1


if __name__ == "__main__":
    sys.exit(main())
