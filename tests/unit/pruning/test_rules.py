"""How ties pass through single operations, and einsum as products."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruned_networks.case import studied
from sdk_pruning.einsum import as_products
from sdk_pruning.resizing import Resize, resize_
from sdk_runtimes.errors import PruningError

SIZES = {"b": 2, "h": 3, "i": 4, "j": 5, "d": 6, "c": 7, "e": 3, "o": 5, "t": 4, "k": 2}


@pytest.mark.parametrize(
    "equation",
    [
        "bhid,bhjd->bhij",
        "bhij,bhjd->bhid",
        "btc,chd->bhtd",
        "bhtd,hdc->btc",
        "bi,eih->ebh",
        "ebh,eho->ebo",
        "ebo,be->bo",
        "bti,ih->bth",
        "bth,oh->bto",
        "oh,bth->bto",
        "bi,bj->bij",
        "bi,bi->b",
        "bi,bi->",
        "i,i->",
        "bij->b",
        "bij->bji",
        "bid,bjd,bd->bij",
        "ij,jk",
        "bhid,bhje->bhdje",
        "...ij,...jk->...ik",
        "...i,i->...",
        "bij,k->bijk",
        "hd,hd->h",
        "i,j->ij",
        "bihd,bjhd->bhij",
        "ji,j",
    ],
)
def test_einsum_as_products_is_einsum(equation: str):
    generator = torch.Generator().manual_seed(0)
    shapes = [
        [*((2, 3) if "..." in term else ()), *(SIZES[letter] for letter in term.replace("...", ""))]
        for term in equation.partition("->")[0].split(",")
    ]
    operands = [torch.randn(shape, generator=generator) for shape in shapes]

    found, expected = as_products(equation, operands), torch.einsum(equation, *operands)

    assert found is not None
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("ii->i", [(3, 3)]), ("ij,jk->ik", [(2, 1), (3, 4)])],
)
def test_einsum_that_is_no_chain_of_products_stays(equation: str, shapes: list[tuple[int, ...]]):
    assert as_products(equation, [torch.randn(shape) for shape in shapes]) is None


class Between(nn.Module):
    """A function between two linear layers."""

    def __init__(self, function, outputs: int = 12, inputs: int = 12) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, outputs), nn.Linear(inputs, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def widths(function, outputs: int = 12, inputs: int = 12) -> dict[str, int]:
    """Groups of `Between`, after a look at what their removal does."""
    torch.manual_seed(0)
    found = studied(Between(function, outputs, inputs).eval(), (torch.randn(4, 5),))
    assert not found.widths or max(found.gap(found.removal(seed)) for seed in range(3)) < 1e-5
    return found.widths


@pytest.mark.parametrize(
    ("function", "inputs", "units"),
    [
        (
            lambda x: torch.cat((x[:, :8], x), 1),
            20,
            4,
        ),  # what lies behind the last place that is counted may go
        (lambda x: x[:, 4:], 8, 8),  # what is skipped stays
        (lambda x: x[:, -8:], 8, 0),  # counted from the end
        (lambda x: torch.cat((x[:, 3:9], x), 1), 18, 3),
        (lambda x: x[:, 6:], 6, 0),  # half of it, as code would have it that counts a half
        (lambda x: x[:, [0, 2, 4]], 3, 0),
        (lambda x: F.pad(x, (1, 2)), 15, 12),
        (lambda x: F.pad(x, (-1, 0)), 11, 0),
        (lambda x: x.flip(-1), 12, 12),
        (lambda x: x.roll(1, -1), 12, 0),
        (lambda x: x.cumsum(-1), 12, 0),
        (lambda x: x.repeat(1, 2), 24, 12),
        (lambda x: x.repeat_interleave(2, -1), 24, 12),
        (lambda x: torch.stack((x, x.square()), -1).flatten(1), 24, 12),
        (lambda x: torch.cat((x, torch.ones(x.shape[0], 2)), -1), 14, 12),
        (lambda x: x.view(-1, 3, 4).sum(1), 4, 4),
        (lambda x: x.view(-1, 3, 4).softmax(1).flatten(1), 12, 4),
        (lambda x: x.view(-1, 3, 4).transpose(1, 2).flatten(1), 12, 4),  # rows of three
        (lambda x: x.chunk(3, -1)[1], 4, 4),
        (lambda x: torch.where(x > 0, x, x.exp()), 12, 12),
        (lambda x: x * torch.arange(12.0), 12, 0),  # numbers of the code's own
        (lambda x: x / x.norm(dim=-1, keepdim=True), 12, 0),
        (lambda x: torch.einsum("bi,bi->bi", x, x), 12, 12),
        (lambda x: x.clone().mul_(2).relu_(), 12, 12),
    ],
)
def test_what_single_operations_let_go(function, inputs: int, units: int):
    assert widths(function, 12, inputs).get("first", 0) == units


def test_an_unknown_operation_is_refused_where_channels_could_go():
    with pytest.raises(PruningError, match="'special_bessel_j0' in the model itself is unknown"):
        widths(torch.special.bessel_j0)


def test_an_unknown_operation_behind_the_last_layer_names_what_to_protect():
    class Behind(Between):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(super().forward(x))

    with pytest.raises(PruningError, match=r"protect=\('last',\)"):
        studied(Behind(F.relu).eval(), (torch.randn(4, 5),))


def test_sizes_are_corrected_by_number_of_call_and_position():
    class Views(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [
                x.view(2, 6),
                x.reshape((2, 6)),
                torch.reshape(x, (2, -1, 3)),
                x.unflatten(1, (2, 3)),
                *x.split(3, dim=1),
                *torch.split(x, [2, 4], 1),
                x[:, :1].expand(2, 4),
            ]

    model = Views()
    resize_(model, [Resize("", call, 1, 4) for call in (0, 1)] + [Resize("", 2, 2, 2), Resize("", 3, 1, 2)])
    resize_(model, [Resize("", 4, 0, 2), Resize("", 5, 1, 2), Resize("", 6, 1, 5)])

    shapes = [tuple(one.shape) for one in model(torch.randn(2, 4))]

    assert isinstance(model, Views)
    assert shapes == [(2, 4), (2, 4), (2, 2, 2), (2, 2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 5)]
