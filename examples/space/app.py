"""Type a sentence, and see the latent trees that several models give it, side by side. A Space on the Hub; see `README.md`.

    python examples/space/app.py

What it shows is in `models.json` beside it: tasks by their titles, each with its models (folders beside that file, or names on
the Hub), sentences to begin with, and, if you like, a few words about it. Models of one task differ in their estimators:

    {"Sentiment": {"models": ["models/spigot", "owner/name"], "examples": ["A fun film ."], "about": "Is the film good?"}}
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

import gradio as gr
from transformers import AutoConfig, Pipeline, pipeline

import hf_latent  # noqa: F401 (makes the models known to the Auto classes)
from hf_latent import parse
from hf_latent.trees.drawing import shown

# Longer sentences make trees that nobody can read.
MOST_TOKENS, MOST_CHARACTERS = 80, 1000
# Of more labels, the most probable are shown.
MOST_LABELS = 20
INTRODUCTION = """
# Latent trees
Type a sentence, and see which trees different models make up for it. **Nobody ever showed them a tree**: they learned from
labels alone, and make up a tree where one helps to tell the label.
"""
LEGEND = """
An arrow points from a word's *head* to the word, and from `root` to the word that has no head. Some models choose one tree;
others average over all heads that a word might have, and an arc is the fainter, the less weight it has (the number on it).
"""
STYLE = """
.cards {display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); align-items: start; gap: 1rem;
  margin: 0 -12px} /* in line with the rest of the page, past the padding that Gradio puts around HTML */
.card {min-width: 0; padding: 1rem; border: 1px solid var(--border-color-primary); border-radius: 12px;
  background: var(--background-fill-primary)}
.card h3 {margin: 0 0 .6rem; font: 600 1rem var(--font-mono)}
.card p {margin: .6rem 0 0; font-size: .875rem}
.tree {overflow-x: auto; padding: .25rem; border-radius: 8px; background: white}
.tree svg {display: block; margin: 0 auto}
.label {position: relative; display: flex; justify-content: space-between; margin-top: .4rem; padding: .2rem .6rem;
  overflow: hidden; border-radius: 6px; background: var(--background-fill-secondary); font-size: .875rem}
.label.best {font-weight: 600}
.label i {position: absolute; inset: 0 auto 0 0; background: var(--color-accent); opacity: .22}
.card details {margin-top: .8rem; font-size: .875rem}
.card summary {cursor: pointer; opacity: .75}
.card pre {overflow-x: auto; margin: .4rem 0 0; padding: 0; background: none; font: .8rem/1.3 var(--font-mono)}
"""


@dataclass(frozen=True)
class Task:
    """What can be picked together: models by the names of their estimators, sentences to begin with, a text about them."""

    models: dict[str, str]
    examples: list[str]
    about: str


def read_tasks(file: Path) -> dict[str, Task]:
    """The tasks of a `models.json` by their titles.

    Raises:
        ValueError: no such file, or one that cannot be used; the message tells what to do.
    """
    if not file.is_file():
        raise ValueError(f"There is no {file.name} that says which models to show. Run `python prepare.py`, or write one.")
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
        tasks = {title: (task["models"], task["examples"], task.get("about", "")) for title, task in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        tasks = {}
    lists = [names for models, examples, about in tasks.values() for names in (models, examples, [about])]
    are_lists = all(isinstance(names, list) and names for names in lists)
    if not lists or not are_lists or not all(isinstance(one, str) for names in lists for one in names):
        raise ValueError(
            f"{file.name} must name at least one task, and for each task at least one model and one example: "
            '`{"Sentiment": {"models": ["models/spigot"], "examples": ["A fun film ."]}}`. Mend it, or run '
            "`python prepare.py` for one that works."
        )
    return {title: Task(by_estimator(models, file), examples, about) for title, (models, examples, about) in tasks.items()}


def by_estimator(models: list[str], file: Path) -> dict[str, str]:
    """The models by what they are called on the page: their estimators, and, where these are the same, their own names."""
    places = [str(file.parent / name) if (file.parent / name).is_dir() else name for name in models]
    estimators = [estimator_of(place, file) for place in places]
    return {
        estimator if Counter(estimators)[estimator] == 1 else f"{estimator} ({place})": place
        for estimator, place in zip(estimators, places, strict=True)
    }


def estimator_of(place: str, file: Path) -> str:
    try:
        config = AutoConfig.from_pretrained(place)
    except (OSError, ValueError):
        raise ValueError(
            f"{file.name} names the model {place!r}, which is neither a folder beside it nor a model on the Hub that can be "
            "reached from here. Correct the name, or run `python prepare.py` to make models."
        ) from None
    if config.architectures != ["LatentTreeForSequenceClassification"]:
        raise ValueError(
            f"{file.name} names the model {place!r}, which is no LatentTreeForSequenceClassification. Leave it out: only such "
            "models have a tree and a label for one sentence."
        )
    return config.estimator or "no tree"


@lru_cache
def load(place: str) -> Pipeline:
    """The model and its tokenizer, from a folder or the Hub, on first use."""
    return pipeline("text-classification", model=place, top_k=None)


def show(task: Task, estimators: list[str], sentence: str) -> str:
    """HTML: for each estimator a card with the model's tree of the sentence and its prediction."""
    if not sentence.strip():
        raise gr.Error("There is no sentence yet. Type one, or choose one of the examples.", print_exception=False)
    if not estimators:
        raise gr.Error("No estimator is picked. Tick one or more: each stands for a model.", print_exception=False)
    if len(sentence) > MOST_CHARACTERS:
        raise gr.Error(
            f"The sentence has {len(sentence)} characters, and may have {MOST_CHARACTERS}. Make it shorter.",
            print_exception=False,
        )
    cards = [card(name, place, sentence.strip()) for name, place in task.models.items() if name in estimators]
    return f'<div class="cards">{"".join(cards)}</div>'


def card(name: str, place: str, sentence: str) -> str:
    named = escape(repr(shown(name)), quote=False)  # errors, too, are shown as HTML
    try:
        classify = load(place)
    except Exception as error:  # of whatever kind; its cause is in the log, where the owner of the page looks
        raise gr.Error(f"The model of {named} cannot be loaded now. Untick it, or try again later.") from error
    model, tokenizer = classify.model, classify.tokenizer
    encoded = tokenizer(sentence, return_offsets_mapping=True)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", MOST_TOKENS)
    longest = min(MOST_TOKENS, tokenizer.model_max_length, longest)
    if len(encoded.input_ids) > longest:
        raise gr.Error(
            f"The sentence has {len(encoded.input_ids)} tokens, and {named} takes {longest}. Make it shorter.",
            print_exception=False,
        )
    trees = [] if model.config.estimator is None else parse(model, tokenizer, [sentence])
    probabilities = {one["label"]: one["score"] for one in classify([sentence])[0]}
    pairs = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
    unknown = [sentence[start:end] for token, (start, end) in pairs if token == tokenizer.unk_token_id]
    probable = sorted(probabilities, key=probabilities.__getitem__)[-MOST_LABELS:]
    parts = [f"<h3>{escape(shown(name))}</h3>"]
    parts += [f'<div class="tree">{tree.to_svg()}</div>' for tree in trees]
    parts += [bar(label, probabilities) for label in model.config.id2label.values() if label in probable]
    if unknown:
        parts.append(f"<p>Words that this model does not know: {escape(', '.join(map(shown, unknown)))}.</p>")
    parts += [f"<details><summary>as text</summary><pre>{escape(tree.to_text())}</pre></details>" for tree in trees]
    return f'<div class="card">{"".join(parts)}</div>'


def bar(label: str, probabilities: dict[str, float]) -> str:
    best = " best" if probabilities[label] == max(probabilities.values()) else ""
    percent = f"{100 * probabilities[label]:.1f}"
    texts = f"<span>{escape(shown(label))}</span><span>{percent} %</span>"
    return f'<div class="label{best}"><i style="width: {percent}%"></i>{texts}</div>'


def build(models_file: Path) -> gr.Blocks:
    """The page; where `models_file` cannot be used, a page that says why."""
    with gr.Blocks(title="Latent trees", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        try:
            tasks = read_tasks(models_file)
        except ValueError as error:
            gr.Markdown(f"**{escape(str(error), quote=False)}**")
            return page
        title, task = next(iter(tasks.items()))
        model = gr.Radio(list(tasks), value=title, label="Model")
        about = gr.Markdown(task.about)
        estimators = gr.CheckboxGroup(list(task.models), value=list(task.models), label="Estimators")
        sentence = gr.Textbox(task.examples[0], label="Sentence", max_lines=4, max_length=MOST_CHARACTERS)
        examples = gr.Dataset(components=[sentence], samples=[[one] for one in task.examples], label="Examples")
        button = gr.Button("Show trees", variant="primary")
        trees = gr.HTML(css_template=STYLE, elem_id="trees")
        gr.Markdown(LEGEND)

        def pick(title: str) -> tuple[str, gr.CheckboxGroup, str, gr.Dataset]:
            task = tasks[title]
            return (
                task.about,
                gr.CheckboxGroup(list(task.models), value=list(task.models)),
                task.examples[0],
                gr.Dataset(samples=[[one] for one in task.examples]),
            )

        def show_trees(title: str, estimators: list[str], sentence: str) -> str:
            return show(tasks[title], estimators, sentence)

        inputs = [model, estimators, sentence]
        gr.on([button.click, sentence.submit, page.load], show_trees, inputs, trees)
        examples.click(lambda sample: sample[0], examples, sentence).then(show_trees, inputs, trees)
        model.input(pick, model, [about, estimators, sentence, examples]).then(show_trees, inputs, trees)
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models_file", type=Path, default=Path(__file__).with_name("models.json"))
    # Gradio's own fonts, in bold where it asks for semi-bold, whose files lack most letters.
    sans, mono = (gr.themes.LocalFont(name, weights=(400, 700)) for name in ("Source Sans Pro", "IBM Plex Mono"))
    theme = gr.themes.Default(font=[sans, "sans-serif"], font_mono=[mono, "monospace"])
    build(parser.parse_args().models_file).launch(theme=theme)
