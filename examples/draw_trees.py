r"""Draw the trees of several models side by side (paper, Figures 4 to 6), and count what their trees look like.

    python examples/draw_trees.py --models outputs/sst2/spigot-1 outputs/sst2/spigot_ce-1 outputs/sst2/marginals-1 \
        --texts_file dev.txt --output_dir outputs/trees

Writes `trees.svg` and `trees.png` with a row for each model, the trees as `.conllu`, and a table of statistics over the
texts of `--texts_file` (a text a line; what stands behind a tab is left out). With `--gold_file`, a treebank in CoNLL-U, also
how many of its arcs the latent trees have, beside trees that need no model. Without `--sentences`, the paper's.
"""

import argparse
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_latent  # noqa: F401 (makes the models known to the Auto classes)
from hf_latent import parse
from hf_latent.files import read_text, write_file
from hf_latent.trees import (
    Tree,
    attachment_score,
    baseline_trees,
    read_conllu,
    side_by_side,
    tree_statistics,
    write_conllu,
    write_png,
)
from hf_latent.trees.drawing import shown

SENTENCES = [
    "An intelligent , moving and invigorating film .",
    "A fascinating and fun film .",
    "A taut , intelligent psychological drama .",
]
# In characters; what is longer is cut where it is shown.
LONGEST_SENTENCE = 1000


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: a line for each name, a column for each figure."""
    titles = list(next(iter(rows.values())))
    lines = ["| trees | " + " | ".join(titles) + " |", "|:--|" + "--:|" * len(titles)]
    lines += [
        f"| {shown(name).replace('|', '&#124;')} | " + " | ".join(f"{value:.3f}" for value in found.values()) + " |"
        for name, found in rows.items()
    ]
    return "\n".join(lines)


def agreement(trees: list[Tree], gold: list[Tree]) -> dict[str, float]:
    """The share of words with the gold head, and of those with it or as it."""
    return {
        "attachment": attachment_score(trees, gold),
        "undirected attachment": attachment_score(trees, gold, directed=False),
        **tree_statistics(trees),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders of saved models, or names on the Hub")
    parser.add_argument("--names", nargs="+", help="what to call them; by default, the folders' names")
    parser.add_argument("--sentences", nargs="+", default=SENTENCES)
    parser.add_argument("--texts_file", type=Path, help="a text a line, to count over")
    parser.add_argument("--gold_file", type=Path, help="a treebank in CoNLL-U, plain or gzipped, to compare with")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/trees"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    trees_of: dict[str, list[Tree]] = {}
    counted: dict[str, dict[str, float]] = {}
    compared: dict[str, dict[str, float]] = {}
    gold = [] if arguments.gold_file is None else read_conllu(arguments.gold_file)
    if gold:
        compared = {name: agreement(trees, gold) for name, trees in {"gold": gold, **baseline_trees(gold)}.items()}
    names = arguments.names or [folder.name for folder in arguments.models]
    if len(set(names)) != len(arguments.models) or not all(name and Path(name).name == name for name in names):
        parser.error(f"--names must be one for each of the {len(arguments.models)} models, all different, and fit for files")
    for folder, name in zip(arguments.models, names, strict=True):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        if model.config.estimator is None:
            parser.error(f"{folder} was trained without a tree (`estimator=None`)")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        trees_of[name] = parse(model, tokenizer, arguments.sentences)
        write_conllu(trees_of[name], arguments.output_dir / f"{name}.conllu")
        if arguments.texts_file is not None:
            texts = [line.split("\t")[0] for _, line in read_text(arguments.texts_file, "file of texts") if line.strip()]
            counted[name] = tree_statistics(parse(model, tokenizer, texts, progress=True))
        if gold:
            trees = parse(model, tokenizer, [list(tree.words) for tree in gold], progress=True)
            compared[name] = agreement(trees, gold)
    rows = [[tree.to_svg() for tree in trees] for trees in trees_of.values()]
    picture = side_by_side(rows, [""] * len(arguments.sentences), list(trees_of))
    write_file(arguments.output_dir / "trees.svg", picture)
    write_png(picture, arguments.output_dir / "trees.png", zoom=1.0)
    for place, sentence in enumerate(arguments.sentences):
        print(shown(sentence, LONGEST_SENTENCE))
        for name, trees in trees_of.items():
            print(f"\n{shown(name)}\n{trees[place].to_text()}")
        print()
    for name, rows in {"statistics": counted, "attachment": compared}.items():
        if rows:
            write_file(arguments.output_dir / f"{name}.md", table(rows) + "\n")
            print(f"\n{table(rows)}")
    print(f"\nThe picture is {arguments.output_dir / 'trees.png'}.")


if __name__ == "__main__":
    main()
