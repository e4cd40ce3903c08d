"""Shallower models: some of the layers of another, as they are.

What is left does not work until it is healed (`heal` of a configuration): it is trained on plain
text, taught by the model it comes from.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atkd.models.families import check_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAYER = re.compile(r"(.*\.(?:layers|h)\.)(\d+)(\..*)")  # of a weight's name


def keep_layers(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A model of the same architecture with the layers of these numbers, from 0, in this order.

    InputError where there is no such layer, or the numbers do not rise.
    """
    config = copy.deepcopy(model.config)
    count = config.num_hidden_layers
    check_layers(kept, count, "keep_layers")
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in kept]
    places = {number: place for place, number in enumerate(kept)}
    state = {}
    for name, tensor in model.state_dict().items():
        match = LAYER.fullmatch(name)
        if match is None:
            state[name] = tensor
        elif int(match[2]) in places:
            state[f"{match[1]}{places[int(match[2])]}{match[3]}"] = tensor
    made = type(model)(config).to(model.dtype)
    made.load_state_dict(state)
    made.tie_weights()
    return made
