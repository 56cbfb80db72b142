"""Find the trees of a little language from sentence labels alone. Under two minutes on two cores; see `little_language.py`.

    python examples/demo.py --output_dir demo_output

Trains a latent-tree classifier with the stock `Trainer`, beside the same network without a tree, and compares its trees with
the true ones, which it never saw.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from datasets import Dataset
from little_language import CLASSES, SEASON, WORD_CLASS, Sentence, generate
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)

from hf_latent import BiLstmConfig, BiLstmModel, LatentTreeForSequenceClassification, parse
from hf_latent.files import write_file
from hf_latent.models.bilstm import word_tokenizer
from hf_latent.training import ScheduleCallback, linear, train_with_restarts
from hf_latent.trees import Tree, attachment_score, baseline_trees, side_by_side


def new_model(tokenizer: PreTrainedTokenizerBase, estimator: str | None, **changed) -> LatentTreeForSequenceClassification:
    """A classifier whose parser reads word classes ("adjective noun preposition noun"), and its decoder seasons.

    So neither can do the work of the other. A parser that sees the words solves the task by itself and tells the decoder the
    answer through the shape of a tree; a decoder that sees the classes tells arcs apart by them, and is content with trees
    whose arcs point the other way.
    """
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.convert_tokens_to_ids)
    options = {
        "parser_input": [1 + CLASSES.index(WORD_CLASS[word]) if word in WORD_CLASS else 0 for word in vocabulary],
        "decoder_input": [1 + SEASON[word] if word in SEASON else 0 for word in vocabulary],
        "single_root": True,
        "arc_scorer": "relative",
        "arc_size": 32,
        "decoder_size": 64,
    }
    encoder = BiLstmModel(BiLstmConfig(vocab_size=len(vocabulary), embedding_size=32, hidden_size=64))
    return LatentTreeForSequenceClassification.from_encoder(
        encoder, tokenizer, num_labels=2, estimator=estimator, **{**options, **changed}
    )


def new_trainer(
    model: LatentTreeForSequenceClassification, tokenizer: PreTrainedTokenizerBase, data: Dataset, epochs: float, **options
) -> Trainer:
    """The stock Trainer, with a quiet progress bar."""
    arguments = TrainingArguments(
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        dataloader_pin_memory=False,
        disable_tqdm=False,
        **options,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(QuietProgress)
    return trainer


class QuietProgress(ProgressCallback):
    """The Trainer's progress bar without a line for each log entry."""

    def on_log(self, *args, **kwargs) -> None:
        pass


def accuracy(model: LatentTreeForSequenceClassification, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> float:
    """The share of sentences that `model` labels rightly, by the stock pipeline."""
    classify = pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, batch_size=128)
    predictions = classify([" ".join(words) for words in data["words"]])
    pairs = zip(predictions, data["labels"], strict=True)
    return sum(prediction["label"] == model.config.id2label[label] for prediction, label in pairs) / len(data)


def in_columns(left: str, right: str, width: int = 44) -> str:
    rows = zip(left.splitlines(), right.splitlines(), strict=True)
    return "\n".join(f"  {one:<{width}}{other}".rstrip() for one, other in rows)


def best_of_starts(
    tokenizer: PreTrainedTokenizerBase,
    data: Dataset,
    estimator: str | None,
    starts: int,
    seed: int,
    epochs: float = 10,
    **options,
) -> Trainer:
    """Of several models that are trained for a while, the one with the lowest loss, trained on."""
    with tempfile.TemporaryDirectory() as folder:

        def make_trainer(seed: int) -> Trainer:
            set_seed(seed)
            model = new_model(tokenizer, estimator, **options)
            trainer = new_trainer(model, tokenizer, data, epochs, seed=seed, output_dir=f"{folder}/{seed}")
            if estimator is not None:
                trainer.add_callback(ScheduleCallback(entropy_bonus=linear(0.3, until=0.2)))
            return trainer

        return train_with_restarts(make_trainer, starts, share=0.2, seed=seed)


def step_size(text: str) -> float | str:
    return text if text == "auto" else float(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_output"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--estimator", default="spigot_ce")
    parser.add_argument("--step_size", type=step_size, default=0.1, help="of the pulled-back estimators; or auto")
    parser.add_argument("--starts", type=int, default=8)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    tokenizer = word_tokenizer(WORD_CLASS)
    training = generate(10_000, seed=1)
    known = {sentence.words for sentence in training}
    test = [sentence for sentence in generate(4000, seed=2) if sentence.words not in known]
    print(f"{len(training)} sentences to train on, {len(test)} others to test on. For example:")
    for sentence in test[:2]:
        print(f"  {'harmony' if sentence.label else 'discord'}: {' '.join(sentence.words)}")

    def encode(sentences: list[Sentence]) -> Dataset:
        texts = [" ".join(sentence.words) for sentence in sentences]
        columns = {"words": [sentence.words for sentence in sentences], "labels": [sentence.label for sentence in sentences]}
        return Dataset.from_dict({**tokenizer(texts), **columns})

    train_data, test_data = encode(training), encode(test)
    print("\nThe network without a tree")
    set_seed(arguments.seed)
    no_tree = new_model(tokenizer, None)
    new_trainer(no_tree, tokenizer, train_data, epochs=2, output_dir="unused").train()

    print(f"\nWith a latent tree ({arguments.estimator}): {arguments.starts} starts, of which the best goes on")
    pulled_back = arguments.estimator in ("ste_identity", "spigot", "spigot_ce", "spigot_eg")
    options = {"estimator_options": {"step_size": arguments.step_size}} if pulled_back else {}
    trainer = best_of_starts(tokenizer, train_data, arguments.estimator, arguments.starts, arguments.seed, **options)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"The best start had seed {trainer.args.seed}; its training loss in the last epoch is {losses[-1]:.3f}")
    model = trainer.model
    accuracies = {
        "chance": max(sum(s.label == label for s in test) for label in (0, 1)) / len(test),
        "the same network without a tree": accuracy(no_tree, tokenizer, test_data),
        "with a latent tree": accuracy(model, tokenizer, test_data),
    }
    gold = [Tree(sentence.words, sentence.heads) for sentence in test]
    latent = parse(model, tokenizer, [" ".join(sentence.words) for sentence in test])
    scores = {"latent trees": latent, **baseline_trees(gold, arguments.seed)}
    attachment = {name: attachment_score(trees, gold) for name, trees in scores.items()}
    whole = sum(ours.heads == theirs.heads for ours, theirs in zip(latent, gold, strict=True)) / len(gold)

    print("\nTest accuracy (the label)")
    for name, value in accuracies.items():
        print(f"  {name:32}{100 * value:6.1f} %")
    print("\nAttachment score against the gold trees (share of words with the right head)")
    for name, value in attachment.items():
        print(f"  {name:32}{100 * value:6.1f} %")
    print(f"  {100 * whole:.1f} % of the latent trees are right in every word.")

    chosen = random.Random(arguments.seed).sample([place for place, tree in enumerate(gold) if len(tree.words) >= 6], 3)
    for place in chosen:
        print("\n" + in_columns("latent tree\n" + latent[place].to_text(), "gold tree\n" + gold[place].to_text()))
    picture = arguments.output_dir / "trees.svg"
    drawings = [(latent[place].to_svg(gold[place]), gold[place].to_svg()) for place in chosen]
    write_file(picture, side_by_side(drawings, ["latent tree, learned from the label", "gold tree, never seen"]))
    results = {"accuracy": accuracies, "attachment_score": attachment, "whole_trees": whole, "arguments": vars(arguments)}
    write_file(arguments.output_dir / "results.json", json.dumps(results, indent=2, default=str) + "\n")
    print(f"\nThe picture is {picture}, the numbers are in {arguments.output_dir / 'results.json'}.")
    print(f"All of it took {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
