"""Schedules, parts, restarts and the curriculum, with the stock Trainer and a layer of one's own."""

from itertools import pairwise

import pytest
import torch
import torch._dynamo.testing
from datasets import Dataset
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from hf_latent import Categorical, LatentLayer, LatentTreeForSequenceClassification, LatentTreeLayer
from hf_latent.layers import CounterArcScorer
from hf_latent.training import (
    PartCallback,
    ScheduleCallback,
    length_curriculum,
    linear,
    parameter_groups,
    train_with_restarts,
)

TEXTS = ["a very good film .", "not unwatchable", "bad", "a good , very good unwatchable film ."] * 4


class Chooser(nn.Module):
    """A choice among three, of any network."""

    def __init__(self, estimator="marginals") -> None:
        super().__init__()
        self.scorer, self.output = nn.Linear(4, 3), nn.Linear(3, 2)
        self.choice = LatentLayer(Categorical(), estimator)
        self.seen: list[tuple[float, float]] = []

    def forward(self, x, labels):
        self.seen.append((self.choice.entropy_bonus, getattr(self.choice.estimator, "temperature", 0.0)))

        def loss_of(choice):
            return cross_entropy(self.output(choice), labels, reduction="none")

        latent = self.choice(self.scorer(x), None, loss_of)
        return {"loss": (loss_of(latent.value) + latent.loss).mean(), "logits": self.output(latent.value)}


def new_trainer(tmp_path, model=None, steps=10, **options) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    data = Dataset.from_dict({"x": x.tolist(), "labels": (x[:, 0] > 0).long().tolist()}).with_format("torch")
    settings = {"max_steps": steps, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    known = {name: options.pop(name) for name in list(options) if name != "optimizers"}
    arguments = TrainingArguments(tmp_path, **(settings | {"learning_rate": 1e-2} | known))
    return Trainer(Chooser() if model is None else model, arguments, train_dataset=data, **options)


def test_linear_schedules():
    schedule = linear(0.5, 0.1, until=0.2)
    assert [round(schedule(done), 6) for done in (0, 0.1, 0.2, 0.7, 1)] == [0.5, 0.3, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("until", [0, -0.1, 1.1, float("nan")])
def test_schedules_are_for_a_share_of_the_training(until):
    with pytest.raises(ValueError, match="`until` must be a share"):
        linear(1.0, until=until)
    with pytest.raises(ValueError, match="must be finite"):
        linear(float("inf"))


def test_options_follow_their_schedules(tmp_path):
    trainer = new_trainer(tmp_path, steps=10)
    trainer.add_callback(ScheduleCallback(entropy_bonus=linear(0.5, until=0.5), temperature=linear(2.0, 1.0)))
    trainer.train()
    bonuses, temperatures = zip(*trainer.model.seen, strict=True)
    assert bonuses == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0, 0, 0, 0, 0])
    assert temperatures == pytest.approx([2 - 0.1 * step for step in range(10)])
    assert trainer.model.choice.estimator.temperature == 1.0  # the last value stays
    assert trainer.model.choice.estimator.name == "marginals"


def test_a_schedule_goes_on_where_it_was(tmp_path):
    def new():
        set_seed(1)
        trainer = new_trainer(tmp_path, steps=6, save_strategy="steps", save_steps=3, seed=1)
        trainer.add_callback(ScheduleCallback(temperature=linear(2.0, 1.0), entropy_bonus=linear(0.5)))
        return trainer

    whole = new()
    whole.train()
    resumed = new()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.model.seen == whole.model.seen[3:]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_tree_is_saved_with_its_last_temperature(tiny_bert, wordpiece, tmp_path):
    model = LatentTreeForSequenceClassification.from_encoder(tiny_bert, wordpiece, num_labels=2, arc_scorer="counter")
    data = Dataset.from_dict({**wordpiece(TEXTS), "labels": [1, 0, 0, 1] * 4})
    arguments = TrainingArguments(tmp_path, max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True)
    trainer = Trainer(model, arguments, train_dataset=data, data_collator=DataCollatorWithPadding(wordpiece))
    trainer.add_callback(ScheduleCallback(temperature=linear(1.0, 0.25), counter_temperature=linear(1.0, 0.1)))
    trainer.train()
    trainer.save_model(tmp_path / "model")
    loaded = LatentTreeForSequenceClassification.from_pretrained(tmp_path / "model")
    assert loaded.base_model.tree.estimator.temperature == 0.25
    scorer = model.base_model.tree.scorer
    assert isinstance(scorer, CounterArcScorer)
    assert scorer.counters.temperature == pytest.approx(0.1)


def test_what_schedules_need(tmp_path):
    with pytest.raises(ValueError, match="at least one schedule"):
        ScheduleCallback()
    with pytest.raises(TypeError, match="`temperature` must be a function"):
        ScheduleCallback(temperature=0.5)
    trainer = new_trainer(tmp_path)
    trainer.add_callback(ScheduleCallback(heat=linear(1.0)))
    with pytest.raises(TypeError, match="'marginals' has no option 'heat'; it takes temperature"):
        trainer.train()
    trainer = new_trainer(tmp_path)
    trainer.add_callback(ScheduleCallback(temperature=linear(1.0, -1.0)))
    with pytest.raises(ValueError, match="`temperature` must be"):
        trainer.train()
    trainer = new_trainer(tmp_path)
    trainer.add_callback(ScheduleCallback(counter_temperature=linear(1.0, 0.1)))
    with pytest.raises(ValueError, match="no `Counters`"):
        trainer.train()

    class Plain(nn.Linear):
        def forward(self, x, labels):
            return {"loss": super().forward(x).mean()}

    trainer = new_trainer(tmp_path, Plain(4, 2))
    trainer.add_callback(ScheduleCallback(entropy_bonus=linear(1.0)))
    with pytest.raises(ValueError, match=r"The model \(Plain\) has no latent choice"):
        trainer.train()


def test_parts_have_rates_of_their_own():
    model = Chooser()
    groups = parameter_groups(model, 1e-2, {"scorer": 1e-3, "scorer.bias": 1e-4}, weight_decay=0.1)
    found = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert found == {
        id(model.scorer.weight): (1e-3, 0.1),
        id(model.scorer.bias): (1e-4, 0.0),
        id(model.output.weight): (1e-2, 0.1),
        id(model.output.bias): (1e-2, 0.0),
    }
    with pytest.raises(ValueError, match=r"no part 'parser' with parameters in it.*scorer, output, choice"):
        parameter_groups(model, 1e-2, {"parser": 1e-3})


def test_a_part_rests(tmp_path):
    model = Chooser()
    trainer = new_trainer(tmp_path, model, steps=4)
    trainer.add_callback(PartCallback("scorer", rests_after=0.5))
    weights = []
    for module in (model.scorer, model.output):
        module.register_forward_hook(lambda module, *_: weights.append(module.weight.detach().clone()))
    trainer.train()
    scorer, output = weights[0::3], weights[1::3]  # the output is called twice in a step
    assert [torch.equal(one, other) for one, other in zip(scorer, [*scorer[1:], model.scorer.weight], strict=True)] == [
        False,
        False,
        True,
        True,
    ]
    assert not any(torch.equal(one, other) for one, other in pairwise(output))


def test_a_part_is_clipped(tmp_path):
    model = Chooser()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = new_trainer(tmp_path, model, steps=1, optimizers=(optimizer, None), lr_scheduler_type="constant")
    trainer.add_callback(PartCallback("scorer", max_norm=1e-3))
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.scorer.parameters()])
    output = model.output.weight.detach().clone()
    trainer.train()
    after = torch.cat([parameter.detach().flatten() for parameter in model.scorer.parameters()])
    assert (after - before).norm() == pytest.approx(1e-3, rel=1e-3)
    assert (model.output.weight - output).norm() > 1e-2


def test_what_parts_need(tmp_path):
    with pytest.raises(ValueError, match="Give `max_norm`"):
        PartCallback("scorer")
    with pytest.raises(ValueError, match="`max_norm` must be above 0"):
        PartCallback("scorer", max_norm=0)
    with pytest.raises(ValueError, match="`rests_after` must be a share"):
        PartCallback("scorer", rests_after=40)
    trainer = new_trainer(tmp_path)
    trainer.add_callback(PartCallback("parser", max_norm=1.0))
    with pytest.raises(ValueError, match="no part 'parser'"):
        trainer.train()


def test_short_examples_come_first():
    lengths = [5, 1, 4, 2, 3] * 40
    order = length_curriculum(lengths, epochs=5, start=0.2, until=0.5, seed=3)
    assert len(order) == 1000
    assert set(order) <= set(range(200))
    drawn = [lengths[place] for place in order]
    assert set(drawn[:5]) == {1}
    for place, length in enumerate(drawn):  # never beyond the share of its time
        assert length <= -(-5 * min(1.0, 0.2 + 0.8 * place / 500) // 1)
    assert 2.5 < sum(drawn[500:]) / 500 < 3.5
    assert order == length_curriculum(lengths, epochs=5, start=0.2, until=0.5, seed=3)
    assert order != length_curriculum(lengths, epochs=5, start=0.2, until=0.5, seed=4)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"start": 0}, {"until": 2}])
def test_what_a_curriculum_needs(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        length_curriculum([1, 2], **{"epochs": 1, **wrong})
    with pytest.raises(ValueError, match="`lengths` is empty"):
        length_curriculum([], epochs=1)


def test_the_best_of_several_starts_goes_on(tmp_path):
    """It ends with the weights of a training of its own that was never stopped."""
    made = []

    def make_trainer(seed):
        set_seed(seed)
        trainer = new_trainer(tmp_path / str(seed), steps=20, seed=seed, logging_steps=7)
        if seed == 1:  # a start that does not learn
            trainer.args.learning_rate = 0.0
        made.append(trainer)
        return trainer

    best = train_with_restarts(make_trainer, starts=3, share=0.4, seed=1)
    assert len(made) == 3
    assert [trainer.state.global_step for trainer in made].count(20) == 1
    assert best is not made[0]
    assert best.state.global_step == 20
    alone = make_trainer(1 + made.index(best))
    alone.train()
    for one, other in zip(best.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not list(tmp_path.glob("*/checkpoint-*"))  # nothing was to be saved


def test_one_start_is_a_training(tmp_path):
    trainer = train_with_restarts(lambda seed: new_trainer(tmp_path, steps=3, seed=seed), starts=1)
    assert trainer.state.global_step == 3


def test_what_restarts_need(tmp_path):
    for wrong in ({"starts": 0}, {"share": 0.0}, {"share": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            train_with_restarts(lambda seed: new_trainer(tmp_path), **wrong)

    def diverging(seed):
        trainer = new_trainer(tmp_path / str(seed), steps=4, seed=seed, logging_nan_inf_filter=False, learning_rate=0.0)
        trainer.model.output.bias.data.fill_(torch.inf)
        trainer.model.scorer.requires_grad_(False)
        return trainer

    with pytest.raises(ValueError, match="None of the 2 starts has a finite loss"):
        train_with_restarts(diverging, starts=2, share=0.5)
    with pytest.raises(ValueError, match="`save_only_model=True` keeps too little"):
        train_with_restarts(lambda seed: new_trainer(tmp_path, save_only_model=True), starts=2)


def test_a_compiled_layer_follows_its_schedule_without_being_compiled_again():
    layer = LatentTreeLayer(4, estimator="perturb_and_map", arc_scorer="counter", arc_size=4).train()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda words: layer(words), backend=counter)
    words = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for step in range(12):
        layer.scorer.counters.temperature = 1 - step / 20
        layer.entropy_bonus = 0.5 - step / 40
        layer.estimator = layer.estimator.with_options(noise_scale=1 - step / 15)
        torch.manual_seed(step)
        expected = layer(words)
        torch.manual_seed(step)
        torch.testing.assert_close(compiled(words).arcs, expected.arcs)
    assert counter.frame_count <= 3
