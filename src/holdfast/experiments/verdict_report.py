"""Sanitizing factors as pictures and tables: who was trusted how much, and who is suppressed since when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.experiments.measures import RoundRecord
from holdfast.experiments.verdict import FACTOR_EDGES, SIMILARITY_EDGES, ParticipantVerdict
from holdfast.report import HeatMap, Table
from holdfast.report.ridges import HONEST, MALICIOUS, RidgePlot

PARTICIPANTS = 4
TIMES = 6
_MOST_ROWS, _MOST_COLUMNS = 20, 12
Told = list[tuple[int, ParticipantVerdict]]


def told(records: Sequence[RoundRecord]) -> Told:
    """(round, verdict) of the rounds that have one."""
    return [(record.round, record.verdict) for record in records if record.verdict is not None]


def figure_4(records: Sequence[RoundRecord], malicious: Sequence[int]) -> RidgePlot | None:
    """Similarity and sanitizing factors of four participants, an attacker first, over the rounds (Figure 4)."""
    verdicts = _spread(told(records), TIMES)
    if not verdicts:
        return None
    bad, good = _sides(verdicts, malicious)
    chosen = ([*bad[:1], *good, *bad[1:]])[:PARTICIPANTS]
    bins = len(FACTOR_EDGES) - 1
    heights = np.full((len(chosen), 2, len(verdicts), bins), np.nan)
    for time, (_, verdict) in enumerate(verdicts):
        for row, client in enumerate(chosen):
            if client in verdict.clients:
                place = verdict.clients.index(client)
                heights[row, :, time] = verdict.similarity_shares[place], verdict.factor_shares[place]
    return RidgePlot(
        "Distribution of similarity and sanitizing factors over the parameters",
        tuple(_name(client, malicious) for client in chosen),
        tuple(MALICIOUS if client in malicious else HONEST for client in chosen),
        ("similarity (cosine)", "factor (1 = equal share)"),
        (SIMILARITY_EDGES, FACTOR_EDGES),
        tuple(f"round {number}" for number, _ in verdicts),
        heights,
        (("honest", HONEST), ("malicious", MALICIOUS)) if bad else (("honest", HONEST),),
    )


def factor_map(records: Sequence[RoundRecord], malicious: Sequence[int]) -> HeatMap | None:
    """Mean factor of every participant (twenty at most, attackers first) over the rounds."""
    verdicts = _spread(told(records), _MOST_COLUMNS)
    if not verdicts:
        return None
    bad, good = _sides(verdicts, malicious)
    chosen = [*bad[: _MOST_ROWS // 2], *good][:_MOST_ROWS]
    values = np.full((len(chosen), len(verdicts)), np.nan)
    for column, (_, verdict) in enumerate(verdicts):
        for row, client in enumerate(chosen):
            if client in verdict.clients:
                values[row, column] = verdict.factors[verdict.clients.index(client)]
    names = tuple(_name(client, malicious) for client in chosen)
    columns = tuple(str(number) for number, _ in verdicts)
    title = "Mean sanitizing factor of each participant"
    return HeatMap(title, "participant", "round", names, columns, values)


def suppressed_table(records: Sequence[RoundRecord], malicious: Sequence[int], tau: int) -> Table | None:
    """Who earns less than half an equal share after the last round, since when, and with what weight."""
    verdicts = told(records)
    if not verdicts:
        return None
    last = verdicts[-1][1]
    rows, values = [], []
    for client, step in last.suppressed:
        place, since = last.clients.index(client), -(-step // tau)
        side = "malicious" if client in malicious else "honest"
        factor, weight = last.factors[place], last.weights[place]
        rows.append((str(client), side, str(since), f"{100 * factor:.1f}", f"{100 * weight:.1f}"))
        values.append((client, side, since, factor, weight))
    note = f"{len(rows)} of {len(last.clients)} participants earn less than half an equal share."
    columns = ("participant", "side", "since round", "factor %", "weight %")
    return Table("Suppressed", columns, tuple(rows), tuple(values), (note,), left=2)


def _sides(verdicts: Told, malicious: Sequence[int]) -> tuple[list[int], list[int]]:
    """Malicious and honest participants of any of these rounds."""
    everybody = sorted({client for _, verdict in verdicts for client in verdict.clients})
    return [c for c in everybody if c in malicious], [c for c in everybody if c not in malicious]


def _spread(verdicts: Told, most: int) -> Told:
    """So many of them, evenly spread, the first and the last among them."""
    if len(verdicts) <= most:
        return verdicts
    return [verdicts[place] for place in np.linspace(0, len(verdicts) - 1, most).round().astype(int)]


def _name(client: int, malicious: Sequence[int]) -> str:
    return f"participant {client}{', malicious' if client in malicious else ''}"
