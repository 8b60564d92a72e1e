"""The section on what the models say of labelled texts."""

from collections.abc import Sequence

from pipeline.artifacts.benchmark import Quality, Slice
from pipeline.report.charts import Series, interval_rows
from pipeline.report.document import Block, Charts, Details, Section, Table, Text
from pipeline.report.sources import Source, same_data, signed
from pipeline.report.svg import Drawing
from pipeline.report.text import NOT_MEASURED, interval, metric_title, number

__all__ = ["quality_section"]

# Of more classes, those with the most examples are drawn; the table has all.
_DRAWN_SLICES = 12
_SLICE_TITLES = {"class": "by class", "length": "by length in tokens"}


def quality_section(sources: Sequence[Source]) -> Section:
    """Metrics, agreement, robustness and slices, for each group of files over the same data."""
    groups = same_data(sources)
    if not groups:
        reason = "no labelled texts were given (--validation-file)"
        return Section("Quality", [Text(f"{NOT_MEASURED.capitalize()}: {reason}.")])
    blocks: list[Block] = []
    for group in groups:
        content = _group_blocks(group)
        blocks += content if len(groups) == 1 else [Section(f"Quality{signed(group)}", content)]
    return Section("Quality", blocks)


def _group_blocks(group: Sequence[Source]) -> list[Block]:
    scored = [
        (series, model.quality)
        for source in group
        for series, model in source.series()
        if model.quality is not None
    ]
    data = group[0].benchmark.data
    assert data is not None
    names = list(dict.fromkeys(name for _, quality in scored for name in quality.metrics))
    rows = [
        [
            series.name,
            *(
                interval(quality.metrics[name], 4) if name in quality.metrics else NOT_MEASURED
                for name in names
            ),
            str(quality.truncated),
        ]
        for series, quality in scored
    ]
    return [
        Table(["model", *names, "texts cut"], rows),
        Text(
            f"{data.rows:,} examples of {data.source} (SHA-256 {data.sha256}). In brackets stand "
            "95 % intervals: of shares by Wilson's score, of other metrics by the bootstrap over "
            "the examples. They are each model's own: that two of them overlap does not show that "
            "the models are equally good."
        ),
        *_consistency(group),
        *_slices(scored),
    ]


def _consistency(group: Sequence[Source]) -> list[Block]:
    headers = [
        *("model", "same label as the first", "largest logit difference to it"),
        *("labels that padding changed", "largest logit difference by padding"),
    ]
    rows = []
    models = [(source, *entry) for source in group for entry in source.series()]
    for source, series, model in models:
        if model.quality is None:
            continue
        is_first = series.number == source.first_number
        agreement, robustness = model.quality.agreement, model.quality.robustness
        if agreement is None:
            same, difference = ("is the first" if is_first else NOT_MEASURED), ""
        else:
            share = agreement.same_label
            same = "no labels" if share is None else interval(share, 4)
            largest = agreement.largest_logit_difference
            difference = "logits of tokens" if largest is None else f"{largest:.3g}"
        measured = robustness.texts > 0
        rows.append(
            [
                series.name,
                same,
                difference,
                f"{robustness.changed_labels} of {robustness.texts}" if measured else NOT_MEASURED,
                f"{robustness.largest_logit_difference:.3g}" if measured else NOT_MEASURED,
            ]
        )
    return [
        Section(
            "Agreement and robustness",
            [
                Table(headers, rows),
                Text(
                    "Agreement is with the first model of the same file, example by example. "
                    "Padding: the same texts alone, and padded in a batch with longer ones."
                ),
            ],
        )
    ]


def _slices(scored: Sequence[tuple[Series, Quality]]) -> list[Block]:
    drawings: list[Drawing] = []
    rows = []
    for by, title in _SLICE_TITLES.items():
        parts: dict[str, list[tuple[Series, Slice]]] = {}
        for series, quality in scored:
            for part in quality.slices:
                if part.by == by:
                    parts.setdefault(part.name, []).append((series, part))
        if not parts:
            continue
        rows += [
            [by, name, series.name, f"{part.examples:,}", part.metric, interval(part.estimate, 4)]
            for name, entries in parts.items()
            for series, part in entries
        ]
        drawings += _slice_drawing(title, parts)
    if not rows:
        return []
    headers = ["by", "part", "model", "examples", "metric", "value"]
    table = Details("All parts in figures", [Table(headers, rows, numeric_from=3)])
    return [Section("Parts of the data", [Charts(drawings), table])]


def _slice_drawing(title: str, parts: dict[str, list[tuple[Series, Slice]]]) -> list[Drawing]:
    largest = sorted(parts, key=lambda name: -parts[name][0][1].examples)[:_DRAWN_SLICES]
    metric = next(iter(parts.values()))[0][1].metric
    # The title has the unit, and the names little room.
    unit = " tokens" if title == _SLICE_TITLES["length"] else ""
    subtitle = "95 % intervals"
    if len(parts) > len(largest):
        subtitle = f"the {len(largest)} of {len(parts)} with most examples, {subtitle}"
    drawing = interval_rows(
        f"{metric_title(metric)} {title}",
        subtitle,
        [
            (
                f"{name.removesuffix(unit)} ({number(parts[name][0][1].examples, 0)})",
                [(series, part.estimate) for series, part in parts[name]],
            )
            for name in parts
            if name in largest
        ],
    )
    return [] if drawing is None else [drawing]
