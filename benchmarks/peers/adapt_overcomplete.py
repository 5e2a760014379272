"""overcomplete: TopKSAE with the steps of train_sae, without its printed statistics (monitoring=0).

The loss is the mean squared error of its README, or with `aux` its top_k_auxiliary_loss, which every step decodes the
stronger half of all features that were not chosen and so costs more; it has no notion of a feature that has long been
silent. Counting usage is its DeadCodeTracker. It has no decoder bias.
"""

from __future__ import annotations

import torch
from worker import Setting, absent, tapered


def load() -> tuple[str, str]:
    absent("torchvision", "timm", "PIL", "cv2", "skimage", "overcomplete.visualization")
    import overcomplete

    return "overcomplete", overcomplete.__version__


def squared_error(x: torch.Tensor, x_hat: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return (x - x_hat).square().mean()


class Overcomplete:
    def __init__(self, setting: Setting) -> None:
        from overcomplete.sae import TopKSAE
        from overcomplete.sae.losses import top_k_auxiliary_loss
        from overcomplete.sae.trackers import DeadCodeTracker

        self.sae = TopKSAE(setting.d_in, nb_concepts=setting.n_features, top_k=setting.k)
        self.sae.encoder.final_block[0].weight.data *= setting.init_scale
        self.criterion = top_k_auxiliary_loss if setting.aux else squared_error
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=setting.lr)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: tapered(step, setting))
        self.tracker = DeadCodeTracker(setting.n_features, "cpu")

    def step(self, x: torch.Tensor) -> float:
        self.sae.train()
        self.optimizer.zero_grad()
        z_pre, z, x_hat = self.sae(x)
        loss = self.criterion(x, x_hat, z_pre, z, self.sae.get_dictionary())
        self.tracker.update(z)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def freeze(self) -> None:
        self.sae.train()  # so that eval() takes the newest weights
        self.sae.eval()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.sae.encode(x)[1]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.sae.decode(codes)

    def decoder(self) -> torch.Tensor:
        return self.sae.get_dictionary()


build = Overcomplete
