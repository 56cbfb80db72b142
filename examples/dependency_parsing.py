r"""Give the trees: the same parser, supervised, on Universal Dependencies (unlabelled).

    python examples/dependency_parsing.py --train_file en_ewt-ud-train.conllu --validation_file en_ewt-ud-dev.conllu \
        --word_vectors glove.6B.100d.txt.gz --output_dir outputs/parser

Latent trees are learned without any; this shows what the parser can do when it is told. Files are CoNLL-U, plain or gzipped.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_latent import BiLstmModel, DataCollatorForLatentTrees, LatentTreeModel, encode_words, parse
from hf_latent.files import write_file
from hf_latent.trees import Tree, attachment_score, baseline_trees, read_conllu


class Validation(TrainerCallback):
    """The attachment score on the validation sentences after each epoch."""

    def __init__(self, model: LatentTreeModel, tokenizer: PreTrainedTokenizerBase, gold: list[Tree]) -> None:
        self.model, self.tokenizer, self.gold = model, tokenizer, gold
        self.scores: list[float] = []

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        trees = parse(self.model, self.tokenizer, [list(tree.words) for tree in self.gold], batch_size=128)
        self.scores.append(attachment_score(trees, self.gold))
        print(f"\nepoch {state.epoch:.0f}: attachment score {100 * self.scores[-1]:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", type=Path, required=True)
    parser.add_argument("--validation_file", type=Path, required=True)
    parser.add_argument("--word_vectors", type=Path, required=True, help="in GloVe's text format (.txt or .gz)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/dependency_parsing"))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--longest", type=int, default=60, help="longer sentences are not trained on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--non_projective", action="store_true", help="all trees; by default, projective ones")
    arguments = parser.parse_args()
    set_seed(arguments.seed)
    training, gold = read_conllu(arguments.train_file), read_conllu(arguments.validation_file)
    kept = [
        tree for tree in training if len(tree.words) <= arguments.longest and (arguments.non_projective or tree.is_projective)
    ]
    print(f"{len(training)} sentences to train on, of which {len(training) - len(kept)} are too long or not projective.")
    vocabulary = {word.lower() for tree in [*kept, *gold] for word in tree.words}
    encoder, tokenizer = BiLstmModel.from_word_vectors(
        arguments.word_vectors, vocabulary, hidden_size=400, num_hidden_layers=2, dropout=0.3
    )
    model = LatentTreeModel.from_encoder(
        encoder,
        tokenizer,
        estimator="marginals",
        argmax_at_evaluation=True,
        projective=not arguments.non_projective,
        single_root=True,
        arc_size=200,
        dropout=0.3,
    )
    columns = encode_words(tokenizer, [tree.words for tree in kept], heads=[tree.heads for tree in kept])
    validation = Validation(model, tokenizer, gold)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.output_dir),
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=32,
            learning_rate=arguments.learning_rate,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            seed=arguments.seed,
        ),
        train_dataset=Dataset.from_dict(columns),
        data_collator=DataCollatorForLatentTrees(tokenizer),
        processing_class=tokenizer,
        callbacks=[validation],
    )
    trainer.train()
    trainer.save_model()
    others = {name: attachment_score(trees, gold) for name, trees in baseline_trees(gold, arguments.seed).items()}
    scores = {"supervised parser": validation.scores[-1], **others}
    results = {"attachment_score": scores, "by_epoch": validation.scores, "arguments": vars(arguments)}
    write_file(arguments.output_dir / "results.json", json.dumps(results, indent=2, default=str) + "\n")
    print("\nAttachment score (unlabelled, all words)")
    for name, score in scores.items():
        print(f"  {name:20}{100 * score:6.1f} %")


if __name__ == "__main__":
    main()
