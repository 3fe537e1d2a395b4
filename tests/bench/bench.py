#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The benchmark: gateway and processor beside the limits of what they stand on, measured in the same run.

    bench.py --build build/release [--quick] [--only NAME[,NAME]]

Prints a table and writes build/bench/result.json. A figure with a target says PASS or MISS; a MISS is a finding and no
failure of the run. doc/benchmark.md says how to read it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import scenarios  # noqa: E402
from stage import Failure, Stage  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def print_figures(figures):
    for one in figures:
        limit = f"{number(one.limit)} {one.limit_name}" if one.limit else ""
        ratio = f"{one.ratio:.2f}x" if one.ratio is not None else ""
        print(f"{one.name:<62} {number(one.value):>9} {one.unit:<8} {limit:<24} {ratio:>7} {one.target_text():>9} "
              f"{one.verdict:<5} {one.note}".rstrip(), flush=True)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()[0],
            "commit": commit, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def main():
    parser = argparse.ArgumentParser(description="The benchmark, against its limits.")
    parser.add_argument("--build", default=str(ROOT / "build/release"), help="a release build")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs: a look, not a result")
    parser.add_argument("--only", default="", help=f"of: {', '.join(scenarios.ALL)}")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(scenarios.ALL)
    for name in names:
        if name not in scenarios.ALL:
            parser.error(f"no scenario {name}; there are {', '.join(scenarios.ALL)}")

    begin = time.monotonic()
    about = machine()
    print(f"{about['cores']} cores of {about['cpu']}, Linux {about['kernel']}, load before {about['load_before']:.1f}; "
          "everything on this machine", flush=True)
    result = {"machine": about, "quick": options.quick, "scenarios": {}}
    failed = False
    output = ROOT / "build/bench"
    with Stage(options.build, output / "run") as stage:
        stage.limits = {}
        for name in names:
            what = scenarios.ALL[name]
            print(f"\n{name}: {what.__doc__.splitlines()[0]}", flush=True)
            try:
                figures = what(stage, options.quick)
            except Failure as failure:
                failed = True
                print(f"FAILED {failure}", flush=True)
                result["scenarios"][name] = {"failed": str(failure)}
                for program in list(stage.programs):
                    stage.end(program)
                continue
            print_figures(figures)
            result["scenarios"][name] = [one.record() for one in figures]
    result["seconds"] = round(time.monotonic() - begin, 1)
    (output / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    targets = [one for figures in result["scenarios"].values() if isinstance(figures, list) for one in figures
               if one["verdict"]]
    missed = sum(one["verdict"] == "MISS" for one in targets)
    print(f"\n{len(targets) - missed} of {len(targets)} targets reached in {result['seconds']:.0f} s; "
          f"{output / 'result.json'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
