"""The same model and step as a user would write them with PyTorch and pytorch_wavelets: the baseline of `step.py`.

The networks are those of `wavegan_dist.model`. Everything around them is plain: contiguous images; bands by pytorch_wavelets;
the fused image by separate operators; a forward of each discriminator for real and for generated images; in the discriminators'
phase a generator that keeps its graph, in the generators' phase discriminators that compute gradients of their weights; Adam
with PyTorch's defaults; an EMA that loops over the tensors; `.item()` of every loss.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from pytorch_wavelets import DWTForward, DWTInverse
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from wavegan_dist.config import Experiment
from wavegan_dist.data import ImageBatch
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.ema import Ema


class PlainGenerator(nn.Module):
    """`(1 - lam) * base + lam * inverse transform of the bands`, without the fused kernel.

    Args:
        experiment: the settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.networks = build_generator(experiment)
        self.inverse = DWTInverse(wave="haar", mode="zero")

    @override
    def forward(self, z: Tensor) -> Tensor:
        """Generate images [B, 3, R, R] from latents [B, z_dim]."""
        base, low, (high,) = self.networks.components(z)
        assert low is not None
        high_bcnhw = high.unflatten(1, (3, -1)).transpose(1, 2)  # n: LH, HL, HH
        with torch.autocast(z.device.type, enabled=False):  # pytorch_wavelets has no 16-bit filters
            image: Tensor = self.inverse((low.float(), [high_bcnhw.float()]))
        lam = self.networks.effective_lam()
        return (1 - lam) * base + lam * image


class PlainDiscriminators(nn.Module):
    """The three discriminators, each called on its own.

    Args:
        experiment: the settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        networks = build_discriminator(experiment, [])
        self.networks = nn.ModuleDict({name: getattr(networks, name) for name in ("image", "low", "high")})
        self.transform = DWTForward(wave="haar", mode="zero")

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the logits [B] of images [B, 3, R, R], by name of the network."""
        with torch.autocast(image.device.type, enabled=False):
            low, (high_bcnhw,) = self.transform(image.float())
        inputs = {"image": image, "low": low, "high": high_bcnhw.transpose(1, 2).flatten(1, 2)}
        return {name: self.networks[name]([x]) for name, x in inputs.items()}


class PlainTrainer:
    """Trains both; has the method `step` of `wavegan_dist.train.trainer.Trainer`.

    Args:
        experiment: the settings.
        device: device of the training.
    """

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self.settings, self.device = experiment, device
        self.generator = PlainGenerator(experiment).to(device)
        self.discriminators = PlainDiscriminators(experiment).to(device)
        self.ema = Ema(self.generator.networks, experiment.ema.half_lives_kimg[0] * 1000, experiment.ema.rampup)
        optim = experiment.optim
        betas = (optim.beta1, optim.beta2)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr=optim.lr_g, betas=betas)
        self.optimizer_d = torch.optim.Adam(self.discriminators.parameters(), lr=optim.lr_d, betas=betas)
        self.nimg = 0

    def step(self, batches: Iterator[ImageBatch]) -> dict[str, float]:
        """Train the discriminators, then the generators, on one batch, uint8 [B, 3, R, R]; return the losses."""
        real = next(batches).images.to(self.device).contiguous().float() / 127.5 - 1
        losses = self._train_discriminators(real) | self._train_generators(len(real))
        self.nimg += len(real)
        self._update_ema(len(real))
        return losses

    def _train_discriminators(self, real: Tensor) -> dict[str, float]:
        flipped = torch.rand(len(real), 1, 1, 1, device=self.device) < 0.5
        real = torch.where(flipped, real.flip(-1), real)
        self.optimizer_d.zero_grad()
        with self._autocast():
            fake = self.generator(self._latents(len(real))).detach()
            of_real, of_fake = self.discriminators(real), self.discriminators(fake)
        losses = {name: F.relu(1 - of_real[name].float()).mean() + F.relu(1 + of_fake[name].float()).mean() for name in of_real}
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer_d.step()
        return {f"d_{name}": loss.item() for name, loss in losses.items()}

    def _train_generators(self, count: int) -> dict[str, float]:
        self.optimizer_g.zero_grad()
        with self._autocast():
            logits = self.discriminators(self.generator(self._latents(count)))
        losses = {name: -values.float().mean() for name, values in logits.items()}
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer_g.step()
        return {f"g_{name}": loss.item() for name, loss in losses.items()}

    def _latents(self, count: int) -> Tensor:
        return torch.randn(count, self.settings.model.z_dim, device=self.device)

    def _autocast(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.settings.train.precision == "bf16"
        )
        return context

    @torch.no_grad()
    def _update_ema(self, batch_size: int) -> None:
        decay = self.ema.decay(self.nimg, batch_size)
        current = self.generator.networks.state_dict()
        for name, average in self.ema.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])
