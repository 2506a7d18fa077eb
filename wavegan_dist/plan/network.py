"""Seconds of collectives by the alpha-beta model (Thakur, Rabenseifner and Gropp 2005): rings, and rings of rings over nodes.

n devices sit k to a node (all of them in one node where n <= k, else n a multiple of k) on m = n / k nodes. Each of a node's
devices has its own share of the node's network.
"""

from dataclasses import dataclass

from wavegan_dist.plan.hardware import Hardware, Link


@dataclass(frozen=True)
class Network:
    """n devices and the links between them."""

    hardware: Hardware
    devices: int

    @property
    def in_node(self) -> int:
        """k, devices of a node that take part."""
        return min(self.devices, self.hardware.gpus_per_node)

    @property
    def nodes(self) -> int:
        """m."""
        return self.devices // self.in_node

    def all_gather(self, size: float) -> float:
        """All devices get the `size` bytes of which each has 1/n: over the nodes first, then within each."""
        over_nodes = ring(size / self.in_node, self.nodes, self.hardware.inter_node)
        return over_nodes + ring(size, self.in_node, self.hardware.intra_node)

    def reduce_scatter(self, size: float) -> float:
        """Each device gets 1/n of the sum of `size` bytes: `all_gather` backwards, and as long."""
        return self.all_gather(size)

    def all_reduce(self, size: float) -> float:
        """All devices get the sum of `size` bytes.

        Within a node reduce-scatter and all-gather; between them an all-reduce of 1/k over the nodes, as a ring or, where that
        is faster (small messages, many nodes), as a tree.
        """
        within = 2 * ring(size, self.in_node, self.hardware.intra_node)
        share, link = size / self.in_node, self.hardware.inter_node
        return within + min(2 * ring(share, self.nodes, link), tree(share, self.nodes, link))


def ring(size: float, count: int, link: Link) -> float:
    """Half an all-reduce in a ring: count - 1 messages of size / count bytes, one after another."""
    return (count - 1) * link.seconds(size / count)


def tree(size: float, count: int, link: Link) -> float:
    """An all-reduce up and down a binary tree: 2 ceil(log2 count) messages of all the bytes."""
    return 2 * (count - 1).bit_length() * link.seconds(size)
