"""Several levels of the transform, from implementations of one level."""

from collections.abc import Callable, Sequence

from torch import Tensor

from wavegan_dist.wavelet import checks

Wavedec = Callable[[Tensor, int], tuple[Tensor, list[Tensor]]]
Waverec = Callable[[Tensor, Sequence[Tensor]], Tensor]


def level_by_level(
    dwt: Callable[[Tensor], tuple[Tensor, Tensor]], idwt: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Wavedec, Waverec]:
    """Return functions (wavedec, waverec) that loop over `dwt` and `idwt`; arguments, results and errors are those in `ops`."""

    def wavedec(x_bchw: Tensor, levels: int) -> tuple[Tensor, list[Tensor]]:
        checks.check_wavedec(x_bchw, levels)
        low, highs = x_bchw, []
        for _ in range(levels):
            low, high = dwt(low)
            highs.append(high)
        return low, highs[::-1]

    def waverec(low: Tensor, highs: Sequence[Tensor]) -> Tensor:
        checks.check_waverec(low, highs)
        for high in highs:
            low = idwt(low, high)
        return low

    return wavedec, waverec
