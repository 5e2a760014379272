"""SAELens: TopKTrainingSAE with SAETrainer's own step (Adam, clipping, AuxK, counts), and TopKSAE for inference.

What its fit() does around a step without a display is repeated: reset the counts of a window, count the step.
use_sparse_activations is left off, as by default: with it the backward pass fails on the CPU.
"""

from __future__ import annotations

import torch
from worker import Setting, absent


def load() -> tuple[str, str]:
    absent("plotly", "plotly.graph_objects", "plotly.subplots", "plotly_express", "babe", "nltk")
    import sae_lens

    return "sae-lens", sae_lens.__version__


class SAELens:
    def __init__(self, setting: Setting) -> None:
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        self.size = {"d_in": setting.d_in, "d_sae": setting.n_features, "k": setting.k}
        coefficient = 1.0 if setting.aux else 0.0
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**self.size, aux_loss_coefficient=coefficient))
        sae.W_enc.data *= setting.init_scale
        config = SAETrainerConfig(
            total_training_samples=setting.steps * setting.batch,
            train_batch_size_samples=setting.batch,
            lr=setting.lr,
            lr_end=setting.lr / 10,  # as its runner's configuration sets it; a constant schedule does not use it
            lr_warm_up_steps=setting.warmup,
            lr_decay_steps=setting.decay,
            dead_feature_window=min(1000, max(1, setting.dead_rows // setting.batch)),
        )
        self.trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))

    def step(self, x: torch.Tensor) -> float:
        self.trainer.maybe_reset_sparsity()
        out = self.trainer.step(x)
        self.trainer.n_training_steps += 1
        return out.loss.item()

    def freeze(self) -> None:
        from sae_lens import TopKSAE, TopKSAEConfig

        state = {name: value.clone() for name, value in self.trainer.sae.state_dict().items()}
        self.trainer.sae.process_state_dict_for_saving_inference(state)
        self.sae = TopKSAE(TopKSAEConfig(**self.size))
        self.sae.load_state_dict(state)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae.encode(x)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.sae.decode(codes)

    def decoder(self) -> torch.Tensor:
        return self.sae.W_dec


build = SAELens
