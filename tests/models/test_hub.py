"""Models on the Hub: published and loaded by the real client, from a stand-in for the Hub on this machine."""

import json

PREPARE = """
    import torch
    from transformers import BertConfig, BertModel
    import hf_latent
    from hf_latent.models.bilstm import word_tokenizer

    torch.manual_seed(0)
    tokenizer = word_tokenizer(["a", "good", "bad", "film"])
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                   intermediate_size=16, max_position_embeddings=20))
    model = hf_latent.LatentTreeForSequenceClassification.from_encoder(encoder, tokenizer, num_labels=2, estimator="spigot")
"""
SHOW = """
    import torch
    inputs = tokenizer(["a good film", "bad"], padding=True, return_tensors="pt")
    print("LOGITS", model.eval()(**inputs).logits.tolist())
"""


def logits(printed: str) -> list[list[float]]:
    return json.loads(next(line for line in printed.splitlines() if line.startswith("LOGITS"))[7:])


def test_published_and_loaded_with_the_package_imported(hub, client):
    pushed = client(PREPARE, "model.push_to_hub('someone/trees'); tokenizer.push_to_hub('someone/trees')", SHOW)
    files = hub.repositories["someone/trees"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_hf_latent.py"} <= set(files)
    loaded = client(
        """
        import hf_latent
        from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
        tokenizer = AutoTokenizer.from_pretrained("someone/trees")
        assert isinstance(AutoConfig.from_pretrained("someone/trees"), hf_latent.LatentTreeConfig)
        assert isinstance(AutoModel.from_pretrained("someone/trees"), hf_latent.LatentTreeModel)
        print(pipeline("latent-tree-parsing", model="someone/trees")("a good film")["tree"].to_text())
        model = AutoModelForSequenceClassification.from_pretrained("someone/trees")
        """,
        SHOW,
    )
    assert logits(loaded) == logits(pushed)
    assert "ROOT" in loaded


def test_loaded_without_importing_the_package(hub, client):
    pushed = client(PREPARE, "model.push_to_hub('someone/trees'); tokenizer.push_to_hub('someone/trees')", SHOW)
    loaded = client(
        """
        import sys
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
        assert "hf_latent" not in sys.modules
        serve = pipeline("text-classification", model="someone/trees", trust_remote_code=True)
        print("SCORE", serve("a good film")[0]["score"])
        model = AutoModelForSequenceClassification.from_pretrained("someone/trees", trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained("someone/trees")
        import hf_latent
        assert type(model) is hf_latent.LatentTreeForSequenceClassification  # the same class, not a copy of it
        model.push_to_hub("someone/again")
        """,
        SHOW,
    )
    assert logits(loaded) == logits(pushed)
    assert (
        hub.repositories["someone/again"]["modeling_hf_latent.py"] == hub.repositories["someone/trees"]["modeling_hf_latent.py"]
    )
    assert "SCORE" in loaded


def test_without_the_package_the_error_says_what_to_install(hub, client):
    client(PREPARE, "model.push_to_hub('someone/trees')")
    printed = client(
        """
        import importlib.util
        import sys

        class Nothing:  # as on a machine where the package is not installed
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "hf_latent":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Nothing())
        from transformers import AutoModelForSequenceClassification
        try:
            AutoModelForSequenceClassification.from_pretrained("someone/trees", trust_remote_code=True)
        except ImportError as error:
            print("SAID", error)
        """
    )
    assert "pip install hf_latent" in printed


def test_the_trainer_publishes(hub, client):
    """What a user would write: train, evaluate, push; with a card that tells of the tree in place of the Trainer's own."""
    client(
        PREPARE,
        """
        from datasets import Dataset
        from transformers import Trainer, TrainingArguments
        from hf_latent.model_cards import ModelCardCallback
        data = Dataset.from_dict({**tokenizer(["a good film", "a bad film"] * 4), "labels": [1, 0] * 4})
        arguments = TrainingArguments("out", push_to_hub=True, hub_model_id="someone/trained", max_steps=4, report_to="none",
                                      use_cpu=True, eval_strategy="steps", eval_steps=2, save_steps=2)
        trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
        trainer.add_callback(ModelCardCallback(trainer, "a good film", dataset="stanfordnlp/sst2"))
        trainer.train()
        trainer.push_to_hub()
        """,
    )
    files = hub.repositories["someone/trained"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "tree.svg", "modeling_hf_latent.py"} <= set(
        files
    )
    card = files["README.md"].decode()
    assert card in hub.cards
    assert "gradient estimator | `spigot`" in card
    assert "On the validation split" in card
    assert "| loss | 0." in card
    loaded = client(
        """
        from transformers import pipeline
        print(pipeline("text-classification", model="someone/trained", trust_remote_code=True)("a good film"))
        """
    )
    assert "LABEL" in loaded


def test_the_trainers_own_card_is_valid_too(hub, client):
    client(
        PREPARE,
        """
        from datasets import Dataset
        from transformers import Trainer, TrainingArguments
        data = Dataset.from_dict({**tokenizer(["a good film", "a bad film"] * 4), "labels": [1, 0] * 4})
        arguments = TrainingArguments("out", hub_model_id="someone/plain", max_steps=2, report_to="none", use_cpu=True)
        trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
        trainer.train()
        trainer.push_to_hub(tasks="text-classification", dataset="sst2", finetuned_from="google-bert/bert-base-uncased")
        """,
    )
    assert hub.repositories["someone/plain"]["README.md"].decode() in hub.cards


def test_a_card_that_the_hub_would_refuse(hub, client):
    printed = client(
        """
        from huggingface_hub import ModelCard
        try:
            ModelCard("---\\nlicense: none\\npipeline_tag: parsing\\n---\\n").validate()
        except ValueError as error:
            print("SAID", error)
        """
    )
    assert "may not be 'none'" in printed
    assert "may not be 'parsing'" in printed
