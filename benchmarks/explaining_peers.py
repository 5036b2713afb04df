"""Attributions of other tools to the pieces that ours are for, each tool with its own settings but for the 50 steps of its
integrated gradients: captum, interpreto (classifiers), inseq (next tokens)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from lucidlm.explain.prediction import Prediction

STEPS = 50
Attributor = Callable[[Prediction, str, int], np.ndarray]
"""From a prediction, the text, and the number of what is predicted, a label or a token, to a figure for each piece."""


def captum_gradients(
    model: nn.Module,
    prediction: Prediction,
    forward: Callable[[torch.Tensor], torch.Tensor],
    size: int,
    steps: int = STEPS,
) -> np.ndarray:
    """Return captum's integrated gradients of `forward`, read in batches of `size`, with our blank as the baseline."""
    from captum.attr import LayerIntegratedGradients

    method = LayerIntegratedGradients(forward, model.get_input_embeddings())  # pyright: ignore[reportCallIssue]
    ids, blank = prediction.ids[None], prediction.blanked.tokens[None]
    found = method.attribute(ids, blank, n_steps=steps, internal_batch_size=size)
    return prediction.by_piece(found[0].sum(-1))


def classifier_peers(model: nn.Module, tokenizer: Any) -> dict[str, Attributor]:
    """Return what explains labels of a classifier of transformers."""
    from interpreto import Granularity, IntegratedGradients, KernelShap, Occlusion

    def captum(prediction: Prediction, text: str, label: int) -> np.ndarray:
        def forward(tokens: torch.Tensor) -> torch.Tensor:
            return model(tokens).logits.log_softmax(-1)[:, label]

        return captum_gradients(model, prediction, forward, 16)

    def interpreto(explainer: Any) -> Attributor:
        def explain(prediction: Prediction, text: str, label: int) -> np.ndarray:
            [found] = explainer(text, targets=label)
            read = tokenizer([text], return_tensors="pt", return_offsets_mapping=True)
            assert read["input_ids"][0].tolist() == prediction.ids.tolist()
            [groups] = found.granularity.get_indices(read, tokenizer)
            values = torch.zeros(len(prediction.ids))
            for value, places in zip(found.attributions.flatten().tolist(), groups, strict=True):
                values[places] = value / len(places)
            return prediction.by_piece(values)

        return explain

    return {
        "captum, integrated gradients": captum,
        "interpreto, integrated gradients": interpreto(
            IntegratedGradients(model, tokenizer, batch_size=16, n_perturbations=STEPS, granularity=Granularity.TOKEN)
        ),
        "interpreto, occlusion": interpreto(Occlusion(model, tokenizer, batch_size=16)),
        "interpreto, kernel SHAP": interpreto(KernelShap(model, tokenizer, batch_size=16)),
    }


def language_model_peers(model: nn.Module, tokenizer: Any) -> dict[str, Attributor]:
    """Return what explains the next token of a causal language model of transformers."""
    import inseq

    explainer: Any = inseq.load_model(model, "integrated_gradients", tokenizer=tokenizer)

    def captum(prediction: Prediction, text: str, token: int) -> np.ndarray:
        def forward(tokens: torch.Tensor) -> torch.Tensor:
            return model(tokens, logits_to_keep=1).logits[:, -1].log_softmax(-1)[:, token]

        return captum_gradients(model, prediction, forward, 16)

    def gradients(prediction: Prediction, text: str, token: int) -> torch.Tensor:
        written = text + tokenizer.decode([token])
        found = explainer.attribute(
            text, written, n_steps=STEPS, internal_batch_size=16, show_progress=False, pretty_progress=False
        )
        values = found.sequence_attributions[0].target_attributions[:, 0]  # (T, D)
        assert len(values) >= len(prediction.ids)
        return values[: len(prediction.ids)]

    return {
        "captum, integrated gradients": captum,
        "inseq, integrated gradients, summed": lambda *asked: asked[0].by_piece(gradients(*asked).sum(-1)),
        "inseq, integrated gradients, norms": lambda *asked: asked[0].by_piece(gradients(*asked).norm(dim=-1)),
    }
