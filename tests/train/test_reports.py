"""What a report measures: generated images, memory."""

import pytest
import torch

from wavegan_dist.model import WaveletGenerator
from wavegan_dist.train.collapse import coarse
from wavegan_dist.train.progress import image_metrics, peak_memory


def test_real_images_that_are_all_equal_have_no_diversity_to_compare_with():
    generator, z = WaveletGenerator(32, 8, width=4).eval(), torch.randn(8, 8)
    different, equal = torch.rand(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    assert "watch/diversity" in image_metrics(generator, z, coarse(different))
    assert "watch/diversity" not in image_metrics(generator, z, coarse(equal))


def test_a_run_on_cpus_reports_resident_memory_beside_a_gpu_that_it_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 0)
    assert peak_memory(torch.device("cpu")) > 2**20
