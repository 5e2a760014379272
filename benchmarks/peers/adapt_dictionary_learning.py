"""dictionary_learning: TopKTrainer.update, the whole of its step (clipping, AuxK, counts, threshold, unit decoder)."""

from __future__ import annotations

import torch
from worker import Setting, absent


def load() -> tuple[str, str]:
    absent("nnsight", "wandb", "zstandard", "circuitsvis", "umap", "plotly")
    import dictionary_learning

    return "dictionary-learning", dictionary_learning.__version__


class DictionaryLearning:
    def __init__(self, setting: Setting) -> None:
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.trainer = TopKTrainer(
            steps=setting.steps,
            activation_dim=setting.d_in,
            dict_size=setting.n_features,
            k=setting.k,
            layer=0,
            lm_name="none",
            lr=setting.lr,
            auxk_alpha=1 / 32 if setting.aux else 0.0,
            warmup_steps=setting.warmup,
            decay_start=setting.steps - setting.decay if setting.decay else None,
            seed=setting.seed,
            device="cpu",
        )
        self.trainer.dead_feature_threshold = setting.dead_rows
        self.trainer.ae.encoder.weight.data *= setting.init_scale
        self.steps = 0

    def step(self, x: torch.Tensor) -> float:
        loss = self.trainer.update(self.steps, x)
        self.steps += 1
        return loss

    def freeze(self) -> None:
        pass

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.trainer.ae.encode(x)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.trainer.ae.decode(codes)

    def decoder(self) -> torch.Tensor:
        return self.trainer.ae.decoder.weight.T


build = DictionaryLearning
