"""Are latent trees the right ones? List operations, learned from their answers alone.

    python examples/listops/train.py --output_dir outputs/listops
    python examples/listops/train.py --output_dir outputs/listops --estimators perturb_and_map --test_file listops.test.tsv.gz

Generates expressions, trains one model for each estimator, kind of trees and seed, and tabulates how many answers and how many
edges of the trees are right. The trees are never shown. Each run is kept in a file of its own, so that the command can be
stopped and given again. Expressions with operators that the model was not trained on are left out of `--test_file`.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from model import PADDING, ListOpsModel
from torch import Tensor

from hf_latent import DependencyTree, get_estimator
from hf_latent.data.listops import OPERATORS as ALL_OPERATORS
from hf_latent.data.listops import TOKENS, Expression, generate, read_file
from hf_latent.files import write_file
from hf_latent.structures.dependency_tree.conversions import heads_from_arcs
from hf_latent.trees import Tree, attachment_score, baseline_trees

sys.path.append(str(Path(__file__).parents[1]))
from resumable_runs import run_all

ESTIMATORS = {
    "marginals": {},
    "sparsemap": {},
    "perturb_and_map": {},
    "perturbed_marginals": {},
    "score_function": {"baseline": "self_critical"},
    "ste_marginals": {},
    "ste_identity": {"step_size": 1.0},
    "spigot": {"step_size": 1.0},
    "spigot_ce": {"step_size": 1.0},
    "spigot_eg": {"step_size": 1.0},
}
KINDS = {"projective": DependencyTree(True, True), "non_projective": DependencyTree(False, True)}
OPERATORS = ("[MAX", "[MIN", "[MED", "[SM")
LONGEST, BATCH = 20, 64


def encode(expressions: list[Expression]) -> tuple[Tensor, Tensor]:
    """`input_ids (batch, tokens)` and answers `(batch,)`."""
    rows = [torch.tensor([TOKENS.index(token) for token in expression.tokens]) for expression in expressions]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)
    return padded, torch.tensor([expression.answer for expression in expressions])


def gold_trees(expressions: list[Expression]) -> list[Tree]:
    return [Tree(expression.words, expression.heads) for expression in expressions]


@torch.no_grad()
def evaluate(model: ListOpsModel, expressions: list[Expression]) -> dict[str, float]:
    """The share of answers and of edges that are right. A tree has one edge a word, so precision and recall are the same."""
    model.eval()
    right, trees = 0, []
    for start in range(0, len(expressions), 256):
        batch = expressions[start : start + 256]
        input_ids, answers = encode(batch)
        _, logits, tree, lengths = model(input_ids, answers)
        right += int((logits.argmax(1) == answers).sum())
        heads = heads_from_arcs(model.tree.structure.argmax(tree.scores, lengths))
        trees += [Tree(one.words, tuple(row[: len(one.words)].tolist())) for one, row in zip(batch, heads, strict=True)]
    model.train()
    return {"answers": right / len(expressions), "edges": attachment_score(trees, gold_trees(expressions))}


def train(
    estimator: str,
    options: dict[str, Any],
    kind: str,
    seed: int,
    steps: int,
    entropy: float,
    expressions: int,
    test_file: str | None,
) -> dict[str, Any]:
    """One run: the figures at the end, and the curves on the way there.

    At first, each tree's entropy is rewarded: otherwise all operands soon hang from the outermost operator, which answers half
    of the questions, and a decoder that never sees another tree has no use for one. And at first, expressions are short. The
    parser has learned all that it will after 40 % of the steps, and rests, so that the decoder can learn to calculate.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    source = random.Random(seed)
    training = sorted(generate(expressions, LONGEST, seed=1, operators=OPERATORS), key=lambda one: len(one.tokens))
    known = {one.tokens for one in training}
    validation = [one for one in generate(2000, LONGEST, seed=2, operators=OPERATORS) if one.tokens not in known][:1000]
    model = ListOpsModel(get_estimator(estimator, **options), KINDS[kind])
    decoder = [*model.words.parameters(), *model.messages.parameters(), *model.output.parameters()]
    parser = [*model.kind_embedding.parameters(), *model.encoder.parameters(), *model.tree.parameters()]
    groups = [{"params": parser, "lr": 1e-3}, {"params": decoder, "lr": 2e-3}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        [lambda step: min(1.0, max(0.0, 3 - 7.5 * step / steps)), lambda step: min(1.0, 2 * (1 - step / steps) + 0.02)],
    )
    curves, started = [], time.perf_counter()
    for step in range(1, steps + 1):
        pool = training[: int(len(training) * min(1.0, 0.05 + 10 * step / steps))]
        input_ids, answers = encode(source.sample(pool, min(BATCH, len(pool))))
        loss, _, tree, lengths = model(input_ids, answers)
        bonus = entropy * max(0.0, 1 - 6 * step / steps)
        if bonus:
            loss = loss - bonus * (model.tree.structure.entropy(tree.scores, lengths) / lengths).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(steps // 10, 1) == 0:
            curves.append({"step": step, **evaluate(model, validation)})
    result = {"validation": curves[-1], "curves": curves, "seconds": time.perf_counter() - started}
    if test_file is not None:
        result["test"] = evaluate(model, known_expressions(test_file))
    return result


def known_expressions(path: str) -> list[Expression]:
    """Those of a file whose operators a model was trained on."""
    unknown = set(ALL_OPERATORS) - set(OPERATORS)
    known = [one for one in read_file(path) if not unknown & set(one.tokens)]
    if not known:
        raise ValueError(f"{path} has no expression without the operators {', '.join(sorted(unknown))}: none to test on.")
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/listops"))
    parser.add_argument("--estimators", nargs="+", default=list(ESTIMATORS), choices=list(ESTIMATORS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), help="of trees; all with a single root")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--entropy", type=float, default=0.5, help="how much a tree's entropy (per word) is rewarded at first")
    parser.add_argument("--expressions", type=int, default=20_000, help="to train on")
    parser.add_argument("--test_file", help="`answer<TAB>expression` lines")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    runs = [
        {
            "estimator": estimator,
            "options": ESTIMATORS[estimator],
            "kind": kind,
            "seed": seed,
            "steps": arguments.steps,
            "entropy": arguments.entropy,
            "expressions": arguments.expressions,
            "test_file": arguments.test_file,
        }
        for estimator in arguments.estimators
        for kind in arguments.kinds
        for seed in arguments.seeds
    ]
    found = run_all(train, runs, arguments.output_dir / "runs", arguments.jobs)
    results = {(run["estimator"], run["kind"], run["seed"]): result for run, result in zip(runs, found, strict=True)}
    measures = [("validation", "answers"), ("validation", "edges")]
    if arguments.test_file is not None:
        measures += [("test", "answers"), ("test", "edges")]
    head = [f"{kind}: {what}" + (" (file)" if split == "test" else "") for kind in arguments.kinds for split, what in measures]
    lines = [["", *head], [":--"] + ["--:"] * len(head)]
    for estimator in arguments.estimators:
        cells = [estimator]
        for kind in arguments.kinds:
            own = [results[estimator, kind, seed] for seed in arguments.seeds]
            cells += [f"{100 * statistics.mean(one[split][what] for one in own):.1f}" for split, what in measures]
        lines.append(cells)
    gold = gold_trees(generate(1000, LONGEST, seed=2, operators=OPERATORS))
    others = [f"{name} {100 * attachment_score(trees, gold):.1f}" for name, trees in baseline_trees(gold).items()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text += f"\n\nEdges of trees that need no training: {', '.join(others)}.\n"
    write_file(arguments.output_dir / "listops.md", text)
    stored = [{"run": run, **result} for run, result in zip(runs, found, strict=True)]
    write_file(arguments.output_dir / "listops.json", json.dumps(stored, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
