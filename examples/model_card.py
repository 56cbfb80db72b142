r"""Write the model card, with a drawn tree, of a model that one of the scripts here has trained.

    python examples/model_card.py --model outputs/sst2/spigot-1 --name someone/sst2-spigot --dataset stanfordnlp/sst2 \
        --example "A fascinating and fun film ."

The card (`README.md` and `tree.svg`) goes into the model's folder, or into `--output_dir`. (While training, or for models that
the Trainer publishes, `hf_latent.model_cards.ModelCardCallback` writes it.)
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

import hf_latent
from hf_latent.model_cards import write_model_card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the folder of a trained model")
    parser.add_argument("--name", required=True, help="what it is called, as owner/name on the Hub")
    parser.add_argument("--example", nargs="+", required=True, help="a sentence, whose tree is drawn; of pairs, two")
    parser.add_argument("--dataset", help="the name on the Hub of the data that it was trained on")
    parser.add_argument("--license", help="as the Hub names it, such as apache-2.0")
    parser.add_argument("--supervised", action="store_true", help="gold trees were learned from")
    parser.add_argument("--output_dir", type=Path, help="by default, the folder of the model")
    arguments = parser.parse_args()
    config_file, results_file = arguments.model / "config.json", arguments.model / "results.json"
    if not config_file.is_file():
        parser.error(f"--model {arguments.model} holds no trained model (there is no {config_file})")
    try:
        (model_class,) = json.loads(config_file.read_text(encoding="utf-8"))["architectures"]
        model_class = getattr(hf_latent, model_class)
        results = json.loads(results_file.read_text(encoding="utf-8")) if results_file.is_file() else {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        parser.error(f"--model {arguments.model} holds no model of ours, or files that are damaged ({error!r})")
    split = "test" if "test_accuracy" in results else "validation"
    metrics = {"accuracy": results[f"{split}_accuracy"]} if f"{split}_accuracy" in results else {}
    training_file = arguments.model / "training_args.bin"
    path = write_model_card(
        arguments.output_dir or arguments.model,
        model_class.from_pretrained(arguments.model),
        AutoTokenizer.from_pretrained(arguments.model),
        arguments.name,
        arguments.example,
        dataset=arguments.dataset,
        metrics=metrics,
        split=split,
        training=torch.load(training_file, weights_only=False) if training_file.is_file() else None,
        license=arguments.license,
        supervised=arguments.supervised,
    )
    print(f"The card is {path}.")


if __name__ == "__main__":
    main()
