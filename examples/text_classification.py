r"""Classify sentences through a latent dependency tree, on files of your own or a dataset on the Hub.

    python examples/text_classification.py --train_file train.tsv --validation_file dev.tsv --test_file test.tsv \
        --word_vectors glove.6B.100d.txt.gz --estimator spigot --output_dir outputs/spigot

    python examples/text_classification.py --dataset_name stanfordnlp/sst2 --text_columns sentence \
        --encoder bert-base-uncased --learning_rate 2e-5 --estimator marginals --output_dir outputs/bert

`--estimator none` trains the same network without a tree: the baseline.
"""

from classification import run

from hf_latent import LatentTreeForSequenceClassification

if __name__ == "__main__":
    run(LatentTreeForSequenceClassification, {}, {}, {"output_dir": "outputs/text_classification"})
