"""Colors and dash patterns that stay distinct for color-blind readers, in print and on a dark screen.

The first four colors belong to the kinds of certificate, the last (gray) to models without one. Okabe and Ito's set,
adjusted so that every color has a contrast of at least 3:1 against its background.
"""

LIGHT = ("#0072B2", "#C8500A", "#00805C", "#A8478A", "#9A6B00", "#332288", "#1F8FC4", "#666666")
DARK = ("#56B4E9", "#F5853F", "#2FC49B", "#E39AC8", "#E6B73C", "#A99BE8", "#9AD4F5", "#A3A3A3")
DASHES = ((), (6, 3), (2, 2), (9, 3, 2, 3), (1, 3), (12, 4))  # lengths of ink and gap; () = solid
OVER = ((8, 8), (4, 12))  # for a curve that lies exactly on an earlier one, or two: the colors below show through
WRONG_LIGHT, WRONG_DARK = "#8C1D18", "#FF8A80"


def color(index: int) -> str:
    """The light-background color of a palette index."""
    return LIGHT[index % len(LIGHT)]


def dash(index: int) -> tuple[int, ...]:
    """The dash pattern of a design or series; () is solid. -1 lies over one equal curve, -2 or less over more."""
    return OVER[min(-index, len(OVER)) - 1] if index < 0 else DASHES[index % len(DASHES)]
