r"""Does one sentence follow from another? Decomposable attention with a latent tree on each (paper, section 7.2.2).

    python examples/natural_language_inference.py --train_file SICK_train.txt --validation_file SICK_trial.txt \
        --test_file SICK_test_annotated.txt --text_columns sentence_A sentence_B --label_column entailment_judgment \
        --word_vectors glove.6B.100d.txt.gz --estimator spigot --output_dir outputs/sick

    python examples/natural_language_inference.py --dataset_name stanfordnlp/snli --text_columns premise hypothesis \
        --word_vectors glove.6B.300d.txt --estimator marginals --output_dir outputs/snli

As in the paper, words have no context but their head: `--lstm_layers 0`, and arcs are scored by an MLP on two word vectors.
`--encoder bert-base-uncased` puts the same on a transformer. `--estimator none` is decomposable attention without trees.
"""

from classification import run

from hf_latent import LatentTreeForPairClassification

if __name__ == "__main__":
    run(
        LatentTreeForPairClassification,
        {"text_columns": ["premise", "hypothesis"]},
        {"lstm_layers": 0, "arc_scorer": "mlp", "decoder_size": 200, "dropout": 0.2, "split_punctuation": True},
        {"output_dir": "outputs/natural_language_inference", "per_device_train_batch_size": 64},
    )
