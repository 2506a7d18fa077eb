"""The alpha-beta formulas against their closed forms."""

import pytest

from wavegan_dist.plan import Hardware
from wavegan_dist.plan.count import StepCounter
from wavegan_dist.plan.network import Network, ring_seconds, tree_seconds
from wavegan_dist.plan.step_time import gradient_buckets, norm_seconds

MIB = 2**20
NEAR, FAR = {"alpha_us": 2.0, "gb_per_s": 100.0}, {"alpha_us": 10.0, "gb_per_s": 10.0}


@pytest.fixture
def device(rates) -> Hardware:
    return Hardware.model_validate(rates | {"intra_node": NEAR, "inter_node": FAR})


def test_a_ring_of_one_node_is_the_closed_form(device):
    size, n = 8e9, 8
    expected = 2 * (n - 1) * 2e-6 + 2 * (n - 1) / n * size / 100e9
    assert Network(device, n).all_reduce(size) == pytest.approx(expected)
    assert Network(device, n).all_gather(size) == pytest.approx(expected / 2)
    assert Network(device, n).reduce_scatter(size) == pytest.approx(expected / 2)


def test_over_nodes_each_gpu_reduces_its_eighth(device):
    size, k, m = 8e9, 8, 4
    within = 2 * (k - 1) * 2e-6 + 2 * (k - 1) / k * size / 100e9
    between = 2 * (m - 1) * 10e-6 + 2 * (m - 1) / m * (size / k) / 10e9
    assert Network(device, k * m).all_reduce(size) == pytest.approx(within + between)


def test_two_processes_exchange_two_alphas_and_all_bytes_once(device):
    assert Network(device, 2).all_reduce(1e9) == pytest.approx(2 * 2e-6 + 1e9 / 100e9)


def test_small_messages_over_many_nodes_go_by_a_tree(device):
    far = device.inter_node
    assert tree_seconds(12, 128, far) == pytest.approx(2 * 7 * (10e-6 + 12 / 10e9))
    within = 2 * ring_seconds(12, 8, device.intra_node)
    assert Network(device, 1024).all_reduce(12) == pytest.approx(within + tree_seconds(12 / 8, 128, far))
    assert tree_seconds(1e9, 128, far) > 2 * ring_seconds(1e9, 128, far)


def test_one_device_sends_nothing(device):
    alone = Network(device, 1)
    assert alone.all_reduce(1e9) == alone.all_gather(1e9) == alone.reduce_scatter(1e9) == 0


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
@pytest.mark.parametrize("size", [4.0, MIB, MIB + 4.0, 300.0 * MIB])
def test_buckets_are_all_of_the_gradients(strategy, size):
    messages = gradient_buckets(size, strategy)
    assert sum(messages) == size
    assert max(messages) <= (25 * MIB if strategy == "ddp" else 64 * MIB)
    assert min(messages) > 0


def test_batch_norms_share_collectives(device, experiment):
    """Norms of 32, 16, 8 channels in base and of 16, 8 in each band's network share three collectives."""
    sizes = StepCounter(experiment).sizes
    assert sizes.norm_channels == ((32, 16, 8), (16, 8), (16, 8))
    sent = 8 * 2 * 4 * (32 + 16 + 8 + 16 + 8 + 16 + 8)  # bytes that all 8 devices send in one pass
    gathered = 7 / 8 * sent / 100e9
    assert norm_seconds(sizes, Network(device, 8), d_steps=1) == pytest.approx(3 * (3 * 7 * 2e-6 + gathered))
