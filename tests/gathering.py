"""One process of a group that gathers items. Rank 0 asserts their order, and that it never holds many of other ranks."""

import weakref

from wavegan_dist.processes import gather_to_main, join, leave

received = weakref.WeakSet["Item"]()


class Item:
    """An item that knows its rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __setstate__(self, state: dict[str, int]) -> None:
        self.rank = state["rank"]
        received.add(self)


group = join()
ranks = []
for item in gather_to_main(group, Item(group.process_index)):
    ranks.append(item.rank)
    assert len(received) <= 1
    del item
assert ranks == ([0, 1, 2, 3] if group.is_main_process else [])
leave()
