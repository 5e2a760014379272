"""EleutherAI's sparsify: SparseCoder, with the steps of its Trainer's loop.

The Trainer itself wants a language model and takes activations from hooks on it, so the body of its hook and of its
loop is followed here, call by call: unit decoder rows, the fraction of variance unexplained, AuxK, no gradient along
the decoder's rows, optimiser, counts. It clips nothing. Its default optimiser is SignSGD, schedule-free, with AuxK
off. Adam, which it also offers, is used here, as in all the others; with Adam its own schedule is a linear fall from
warm-up to the last step, and that is kept where any decay is asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from worker import Setting, tapered


def load() -> tuple[str, str]:
    import sparsify

    return "eai-sparsify", sparsify.__version__


class Sparsify:
    def __init__(self, setting: Setting) -> None:
        from sparsify import SparseCoder, SparseCoderConfig
        from transformers import get_linear_schedule_with_warmup

        config = SparseCoderConfig(num_latents=setting.n_features, k=setting.k)
        self.sae = SparseCoder(setting.d_in, config, dtype=torch.float32)
        self.sae.encoder.weight.data *= setting.init_scale
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=setting.lr)
        if setting.decay:
            self.scheduler = get_linear_schedule_with_warmup(self.optimizer, setting.warmup, setting.steps)
        else:
            self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: tapered(step, setting))
        self.alpha = 1 / 32 if setting.aux else 0.0
        self.dead_rows = setting.dead_rows
        self.silent = torch.zeros(setting.n_features, dtype=torch.long)
        self.fired = torch.zeros(setting.n_features, dtype=torch.bool)
        self.first = True

    def step(self, x: torch.Tensor) -> float:
        sae = self.sae
        if self.first:
            sae.b_dec.data = x.mean(0)
            self.first = False
        sae.set_decoder_norm_to_unit_norm()
        dead = self.silent > self.dead_rows if self.alpha > 0 else None
        total_variance = (x - x.mean(0)).pow(2).sum()
        out = sae(x=x, y=x, dead_mask=dead, total_variance=total_variance)
        self.fired[out.latent_indices.flatten()] = True
        fvu = float(out.fvu.detach())
        (out.fvu + self.alpha * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        with torch.no_grad():
            self.silent += len(x)
            self.silent[self.fired] = 0
            self.fired.zero_()
        return fvu

    def freeze(self) -> None:
        self.sae.set_decoder_norm_to_unit_norm()

    def encode(self, x: torch.Tensor) -> Any:
        return self.sae.encode(x)

    def decode(self, codes: Any) -> torch.Tensor:
        return self.sae.decode(codes.top_acts, codes.top_indices)

    def decoder(self) -> torch.Tensor:
        return self.sae.W_dec


build = Sparsify
