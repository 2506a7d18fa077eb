"""What a report measures of generated images."""

import torch

from wavegan_dist.model import WaveletGenerator
from wavegan_dist.train.collapse import coarse
from wavegan_dist.train.progress import image_metrics


def test_real_images_that_are_all_equal_have_no_diversity_to_compare_with():
    generator, z = WaveletGenerator(32, 8, width=4).eval(), torch.randn(8, 8)
    different, equal = torch.rand(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    assert "watch/diversity" in image_metrics(generator, z, coarse(different))
    assert "watch/diversity" not in image_metrics(generator, z, coarse(equal))
