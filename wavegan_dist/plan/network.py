"""Seconds of collectives by the alpha-beta model (Thakur, Rabenseifner and Gropp 2005): rings, hierarchical over nodes.

n devices take part, k in each of m = n / k nodes: all in one node if n <= devices per node, else n is a multiple of k. Each
device of a node has an equal, exclusive share of the node's network bandwidth.
"""

from dataclasses import dataclass

from wavegan_dist.plan.hardware import Hardware, Link


@dataclass(frozen=True)
class Network:
    """`devices` devices and the links between them; the methods return the seconds of one collective.

    Args:
        hardware: the links, and the number of devices in a full node.
        devices: number of devices that take part, at most those of one node or a multiple of them, which is not checked.
    """

    hardware: Hardware
    devices: int

    @property
    def devices_per_node(self) -> int:
        """k, the number of participating devices in each node."""
        return min(self.devices, self.hardware.gpus_per_node)

    @property
    def nodes(self) -> int:
        """m, the number of participating nodes."""
        return self.devices // self.devices_per_node

    def all_gather(self, size: float) -> float:
        """Return the seconds of an all-gather with an output of `size` bytes, of which each device holds 1/n.

        The shards are exchanged between the nodes first, then within each node.
        """
        between_nodes = ring_seconds(size / self.devices_per_node, self.nodes, self.hardware.inter_node)
        return between_nodes + ring_seconds(size, self.devices_per_node, self.hardware.intra_node)

    def reduce_scatter(self, size: float) -> float:
        """Return the seconds of a reduce-scatter of an input of `size` bytes: the steps of `all_gather` in reverse."""
        return self.all_gather(size)

    def all_reduce(self, size: float) -> float:
        """Return the seconds of an all-reduce of `size` bytes.

        Each node computes a reduce-scatter, and at the end an all-gather. In between, each device all-reduces its 1/k over the
        nodes, along a ring or a tree, whichever is faster (a tree for small messages and many nodes).
        """
        within_nodes = 2 * ring_seconds(size, self.devices_per_node, self.hardware.intra_node)
        shard, link = size / self.devices_per_node, self.hardware.inter_node
        return within_nodes + min(2 * ring_seconds(shard, self.nodes, link), tree_seconds(shard, self.nodes, link))


def ring_seconds(size: float, count: int, link: Link) -> float:
    """Return the seconds of a reduce-scatter or an all-gather of `size` bytes along a ring of `count` members.

    It takes count - 1 messages of size / count bytes, one after another; an all-reduce takes twice as many.
    """
    return (count - 1) * link.seconds(size / count)


def tree_seconds(size: float, count: int, link: Link) -> float:
    """Return the seconds of an all-reduce of `size` bytes up and down a binary tree of `count` members.

    It takes 2 ceil(log2 count) messages of `size` bytes, one after another.
    """
    return 2 * (count - 1).bit_length() * link.seconds(size)
