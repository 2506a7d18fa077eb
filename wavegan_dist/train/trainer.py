"""The training state and one step of it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from wavegan_dist.config import Experiment
from wavegan_dist.data import ImageBatch, TrainingData, flip
from wavegan_dist.errors import WaveganError
from wavegan_dist.images import from_uint8
from wavegan_dist.log import log
from wavegan_dist.model import Ema, WaveletGenerator
from wavegan_dist.model.build import build_discriminator, build_generator
from wavegan_dist.model.lockstep import convert_to_lockstep
from wavegan_dist.run_folder import ema_label
from wavegan_dist.train.augment_probability import AugmentProbability
from wavegan_dist.train.draws import DrawAhead
from wavegan_dist.train.ema_state import EmaState
from wavegan_dist.train.engine import Engine
from wavegan_dist.train.metric_accumulator import MetricAccumulator
from wavegan_dist.train.penalty_schedule import PenaltySchedule
from wavegan_dist.train.phase import OVERFITTING, DiscriminatorPhase, GeneratorPhase, MicroBatch
from wavegan_dist.train.schedule import lr_factor
from wavegan_dist.train.strategy import engine_class


@dataclass(frozen=True)
class PhaseResult:
    """A phase that has run, with all that is needed to run it again.

    Attributes:
        engine: the engine of the module that trained; its `phase` computes the loss.
        first_nimg: `Trainer.nimg` when the phase ran: for a discriminator phase the number of the first image of its global
            batch, for the generator phase the end of the step.
        micro_batches: this rank's inputs to the phase.
        values: by name, float32 scalars: the phase's values (`Phase.value_names`), means over micro-batches, and
            `grad_norm/<phase>`, the norm of the batch's gradient, or 0 if it is not finite.
        nonfinite: float32 scalar, 1 if a loss or gradient of this or an earlier phase of the step was not finite, else 0. A
            gradient that overflows in fp16 at a loss scale above 1 does not count. In fp16 the ranks may differ: a loss that is
            not finite on one rank is only such an overflow on the others.
    """

    engine: Engine
    first_nimg: int
    micro_batches: list[MicroBatch]
    values: dict[str, Tensor]
    nonfinite: Tensor


class Trainer:
    """Generator and discriminator, each in an engine, the generator's EMAs, and `nimg`, the number of real images shown.

    Constructing a trainer is a collective call. All ranks build equal weights from `seed`; the state of PyTorch's random number
    generators stays as it was.

    Attributes:
        generator, discriminator: the engines; `engine.module` is the network.
        emas: the averages of the generator's weights, one for each half-life.
        nimg: number of real images shown to the discriminators.
        rollbacks: how often the run went back to a checkpoint because of a value that was not finite.
        phase_results: the phases of the last step, in order; empty before the first step.

    Args:
        experiment: the settings.
        index: the index of the data set or the mixture, for the standard deviation of each wavelet band.
        accelerator: gives the device, the rank and the collectives. Modules are on its device, replicated or sharded according
            to `train.strategy`.
    """

    def __init__(self, experiment: Experiment, index: TrainingData, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self.nimg = 0
        self.rollbacks = 0
        with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
            torch.manual_seed(experiment.seed)
            band_std = [std.model_dump() for std in index.band_std_by_level()]
            generator, discriminator = build_generator(experiment), build_discriminator(experiment, band_std)
        if accelerator.num_processes > 1:
            convert_to_lockstep(generator)
        engine, optim = engine_class(experiment.train), experiment.optim
        generator.to(accelerator.device).to(memory_format=torch.channels_last)
        half_life_kimg, *others = experiment.ema.half_lives_kimg
        ema = Ema(generator, half_life_kimg * 1000, experiment.ema.rampup)
        loss, precision = experiment.loss, experiment.train.precision
        g_phase = GeneratorPhase(generator, discriminator, loss, precision)
        measures_overfitting = bool(experiment.augment.probability and loss.weights.image)
        d_phase = DiscriminatorPhase(discriminator, generator, loss, precision, measures_overfitting)
        self.generator = engine(generator, g_phase, "generator", optim.lr_g, experiment, accelerator)
        self.discriminator = engine(discriminator, d_phase, "discriminator", optim.lr_d, experiment, accelerator)
        self.emas = [self.generator.make_ema(ema, "ema")]
        for half_life_kimg in others:  # copies of the first EMA's module: the engine's module may be sharded by now
            other = Ema(ema.module, half_life_kimg * 1000, experiment.ema.rampup)
            self.emas.append(self.generator.make_ema(other, ema_label(half_life_kimg)))
        self.phase_results: list[PhaseResult] = []
        self.metrics = MetricAccumulator(accelerator)
        self.augmentation = AugmentProbability(experiment.augment, accelerator)
        self.draws = DrawAhead(experiment, accelerator)
        self.penalties = PenaltySchedule(experiment, accelerator)
        self._compiled: set[tuple[str, bool]] = set()  # (name of the phase, whether with penalties)

    def step(self, batches: Iterator[ImageBatch]) -> None:
        """Run `train.d_steps` discriminator phases and one generator phase, then update the EMAs: a collective call.

        `nimg` grows by `train.d_steps` times the batch size. Under DDP, the host does not wait for the device. Once a loss or
        gradient is not finite, no weight changes in the rest of the step, and `nonfinite` is 1. In fp16, a gradient that
        overflows at a loss scale above 1 is no error: this optimizer step is skipped and the scale is halved.

        Args:
            batches: this rank's batches (images uint8 [b, 3, R, R] on the CPU, labels int64 [b] or None); one is taken for each
                discriminator phase. Images of the generator phase have the labels of the last batch.

        Raises:
            WaveganError: `train.compile` is on and PyTorch cannot compile a phase.
        """
        batch_size = self.experiment.train.batch_size
        self.phase_results = []
        nimg = self.nimg
        end = nimg + batch_size * self.experiment.train.d_steps
        for engine, lr in zip(self.engines, self.learning_rates(end), strict=True):
            engine.set_lr(lr)
        draws = self.draws.take(nimg, self.rollbacks)
        augment_d = self.augmentation.choose(draws.augment_d, nimg)
        augment_g = self.augmentation.choose(draws.augment_g, nimg)
        if self.experiment.train.compile == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        for phase, (flips, latents) in enumerate(zip(draws.flips, draws.latents_d, strict=True)):
            images, labels = next(batches)
            real, labels = self._prepare_real(images, flips), self._prepare_labels(labels)
            batch = MicroBatch(real, latents, labels, None if augment_d is None else augment_d[phase])
            self._run_phase(self.discriminator, self.penalties.extend(batch, self.nimg, self.rollbacks))
            self.nimg += batch_size
        self._run_phase(self.generator, MicroBatch(real, draws.latents_g, labels, augment_g))
        overfitting = [result.values.pop(OVERFITTING) for result in self.phase_results if OVERFITTING in result.values]
        self.augmentation.end_step(overfitting, batch_size // self.accelerator.num_processes, nimg, self.nimg)
        for ema in self.emas:
            ema.update(self.nimg, self.nimg - nimg)
        self._add_to_metrics()
        self.draws.prepare(self.nimg, self.rollbacks)

    @property
    def nonfinite(self) -> Tensor:
        """float32 scalar on the device: 1 if a loss or gradient of the last step was not finite, else 0.

        Call this only after a step. In fp16 the value may differ between ranks (`PhaseResult.nonfinite`); `StepSync` takes the
        maximum.
        """
        return self.phase_results[-1].nonfinite

    @property
    def last_real(self) -> Tensor:
        """This rank's batch of real images of the last discriminator phase, on the device: float32 [b, 3, R, R] in [-1, 1].

        Call this only after a step. The images are not augmented.
        """
        result = next(result for result in reversed(self.phase_results) if result.engine is self.discriminator)
        return torch.cat([micro_batch.real for micro_batch in result.micro_batches])

    @property
    def ema(self) -> EmaState:
        """The first EMA, of which samples and grids are made during training."""
        return self.emas[0]

    def learning_rates(self, nimg: int) -> tuple[float, float]:
        """Return the learning rates of the generator and the discriminator in the step that ends after `nimg` images."""
        optim = self.experiment.optim
        factor = lr_factor(optim, nimg)
        return optim.lr_g * factor, optim.lr_d * factor

    def lam(self) -> float:
        """Return the lam that the generator blends with (`WaveletGenerator.effective_lam`): a collective call.

        The host waits for the device.
        """
        assert isinstance(self.generator.module, WaveletGenerator)
        with self.generator.gathered_params():
            return self.generator.module.effective_lam().item()

    def gradient_shares(self) -> dict[str, float]:
        """Return the share of each network in the squared gradient norm of its module: a collective call.

        The names are `grad_share/g_base`, `grad_share/d_image`, ...; the shares of a module have the sum 1, without lam. The
        squares are averaged over about 1 / (1 - beta2) steps, because they are read from Adam's second moments. Call this only
        after a step or the load of a checkpoint: before, Adam has no moments. The host waits for the device.
        """
        shares: dict[str, float] = {}
        for engine in self.engines:
            sums = {name: torch.zeros((), device=self.accelerator.device) for name, _ in engine.module.named_children()}
            for name, moment in engine.second_moments():
                if (network := name.partition(".")[0]) in sums:
                    sums[network] = sums[network] + moment.sum()
            totals = self.accelerator.reduce(torch.stack(list(sums.values())))
            of_networks = (totals / totals.sum().clamp(min=torch.finfo(totals.dtype).tiny)).tolist()
            shares |= {f"grad_share/{engine.phase.name}_{name}": share for name, share in zip(sums, of_networks, strict=True)}
        return shares

    @property
    def engines(self) -> tuple[Engine, Engine]:
        """The generator's engine and the discriminator's engine."""
        return self.generator, self.discriminator

    @contextmanager
    def _compiled_once(self, engine: Engine, batch: MicroBatch) -> Iterator[None]:
        """Context around the forward and backward of a micro-batch, in which only the first of its kind may compile the phase.

        The discriminator phase has two kinds, with and without penalties. A later recompilation raises RuntimeError.

        Raises:
            WaveganError: PyTorch cannot compile the phase.
        """
        mode, variant = self.experiment.train.compile, (engine.phase.name, batch.penalty_factor is not None)
        if mode == "off" or variant in self._compiled:
            with nullcontext() if mode == "off" else torch.compiler.set_stance("fail_on_recompile"):
                yield
            return
        if self.accelerator.is_main_process and not self._compiled:
            log.info("compiling the training step; without cached code this takes minutes")
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            cause = getattr(error, "inner_exception", error)
            reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            raise WaveganError(f"train.compile = {mode} failed: {reason}; fix this or set train.compile=off") from error
        self._compiled.add(variant)

    def _prepare_real(self, images_uint8: Tensor, flips: Tensor) -> Tensor:
        images = images_uint8.to(self.accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        return from_uint8(flip(images, flips) if self.experiment.data.horizontal_flip else images)

    def _prepare_labels(self, labels: Tensor | None) -> Tensor | None:
        """Copy the labels of a batch to the device: the loader reuses the memory of the batch."""
        return None if labels is None else labels.to(self.accelerator.device, non_blocking=True, copy=True)

    def _run_phase(self, engine: Engine, batch: MicroBatch) -> None:
        """Accumulate gradients over micro-batches, then step the optimizer; the other module is frozen."""
        for other in self.engines:
            other.requires_grad(other is engine)
        count = self.experiment.train.accumulation
        micro_batches = batch.split(count)
        mean_loss = mean_values = torch.zeros((), device=self.accelerator.device)
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self._compiled_once(engine, micro_batch), engine.micro_batch(last=number == count):
                loss, values = engine.forward(micro_batch)
                engine.backward(loss / count * self._one_or_nan())
            mean_loss, mean_values = mean_loss + loss.detach() / count, mean_values + values / count
        grad_norm = engine.step()
        names = engine.phase.value_names(penalized=batch.penalty_factor is not None)
        named_values = dict(zip(names, mean_values.unbind(), strict=True))
        # A norm that is not finite is reported as 0, for example that of a step that was skipped in fp16.
        named_values[f"grad_norm/{engine.phase.name}"] = grad_norm.nan_to_num(0, 0, 0)
        nonfinite = self._any_nonfinite(engine, mean_loss, grad_norm)
        self.phase_results.append(PhaseResult(engine, self.nimg, micro_batches, named_values, nonfinite))

    def _add_to_metrics(self) -> None:
        """Add the values of the step to `metrics`: of each value the mean over the phases that have it."""
        values: dict[str, list[Tensor]] = {}
        for result in self.phase_results:
            for name, value in result.values.items():
                values.setdefault(name, []).append(value)
        means = {
            name: torch.stack(of_phases).mean(0) if len(of_phases) > 1 else of_phases[0] for name, of_phases in values.items()
        }
        self.metrics.add_step(means | self.augmentation.values())

    def _one_or_nan(self) -> Tensor | float:
        """Return the factor of the loss: NaN after a non-finite phase, so that the optimizer skips the phases after it, else 1.

        The factor is on the device, because a condition on the host would wait for the device in every phase.
        """
        return torch.where(self.nonfinite > 0, torch.nan, 1.0) if self.phase_results else 1.0

    def _any_nonfinite(self, engine: Engine, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Return `PhaseResult.nonfinite`; updates the loss scale.

        In fp32 and bf16 all ranks get the same result: gradients are all-reduced, so a loss that is not finite on one rank
        makes the norm not finite on all. In fp16 results may differ between ranks until `step_sync` reduces them.
        """
        nonfinite = engine.loss_scale.update(1 - grad_norm.isfinite().float())
        nonfinite = nonfinite.maximum(1 - loss.isfinite().float())
        return nonfinite.maximum(self.nonfinite) if self.phase_results else nonfinite
