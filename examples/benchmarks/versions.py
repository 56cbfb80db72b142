"""Whether a change makes anything slower: a benchmark of two checkouts of this library, in turns, and the ratio of each figure.

    git worktree add ../before <commit>
    python examples/benchmarks/versions.py --before ../before --turns 5 inference --sizes 32x20 --seconds 0.3
    python examples/benchmarks/versions.py --before ../before --turns 5 training_step --sentences train.tsv --steps 40

What follows the name of the benchmark is given to it. A figure is the lowest of all turns: whatever else a machine does makes
a turn slower, never faster.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).parents[2]


def figures(folder: Path) -> dict[str, float]:
    """The milliseconds of the library itself that a benchmark wrote, by what was measured."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for row in content.get("rows", ()):
            backward = " + backward" if row["backward"] else ""
            name = f"{row['batch']} × {row['n']}, {row['trees']} {row['operation']}{backward}"
            found[name] = row["milliseconds"]["hf_latent"]
        if "rows" not in content:
            for name, milliseconds in content["milliseconds"].items():
                found |= {f"{name}, {estimator}": value for estimator, (value, _) in milliseconds.items()}
    return found


def run(checkout: Path, benchmark: str, options: list[str]) -> dict[str, float]:
    """One turn of a checkout."""
    script = checkout / "examples" / "benchmarks" / f"{benchmark}.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), *options, "--output_dir", folder]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return figures(Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the folder of another checkout")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("benchmark", choices=["inference", "training_step"])
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the benchmark")
    arguments = parser.parse_args()
    lowest: list[dict[str, float]] = [{}, {}]
    for _ in tqdm(range(arguments.turns), unit="turn"):
        for place, checkout in enumerate((arguments.before.resolve(), HERE)):
            for name, value in run(checkout, arguments.benchmark, arguments.options).items():
                lowest[place][name] = min(value, lowest[place].get(name, value))
    before, after = lowest
    width = max(map(len, before))
    print(f"{'':{width}}  {'before':>12}  {'after':>12}  ratio")
    for name in before:
        print(f"{name:{width}}  {before[name]:9.3f} ms  {after[name]:9.3f} ms  {after[name] / before[name]:.2f}×")


if __name__ == "__main__":
    main()
