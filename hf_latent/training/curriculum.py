"""Short examples first."""

import random
from collections.abc import Sequence


def length_curriculum(
    lengths: Sequence[int], epochs: float, start: float = 0.05, until: float = 0.1, seed: int = 0
) -> list[int]:
    """An order of examples in which short ones come first: places in `lengths`, `epochs` times as many.

    At first, examples are drawn from the shortest `start` of all; the share grows in a straight line, and after `until` of
    the training, all are drawn from. Each draw is independent of the others.

    >>> order = length_curriculum([len(ids) for ids in data["input_ids"]], epochs=3)
    >>> arguments = TrainingArguments(train_sampling_strategy="sequential", num_train_epochs=1, …)
    >>> trainer = Trainer(model, arguments, train_dataset=data.select(order), …)

    The order is part of the data, so that an interrupted training goes on with it, and many devices share it out.

    Raises:
        ValueError: no lengths; `start` or `until` that are no shares, above 0 and at most 1; `epochs` that is not above 0.
    """
    if not len(lengths):
        raise ValueError("`lengths` is empty: there is nothing to put into an order.")
    for name, value in (("start", start), ("until", until)):
        if not 0 < value <= 1:
            raise ValueError(f"`{name}` must be a share, above 0 and at most 1, got {value!r}.")
    if not epochs > 0:
        raise ValueError(f"`epochs` must be above 0, got {epochs!r}.")
    source = random.Random(seed)
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    count = round(epochs * len(lengths))
    order = []
    for place in range(count):
        share = min(1.0, start + (1 - start) * place / (until * count))
        order.append(by_length[source.randrange(max(1, int(share * len(lengths))))])
    return order
