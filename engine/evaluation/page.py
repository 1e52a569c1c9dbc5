"""The HTML page of an evaluation: self-contained, keyboard usable, light and dark."""

import base64
import io
import math
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from ..files import write
from .report import Example, Report

WIDEST = 1280  # pictures on the page are scaled down to this; the numbers are those of the full picture


def write_page(report: Report, path: str | Path) -> None:
    """One page without other files or network: the tables, and a before/after slider for the worst pictures."""
    write(Path(path), page(report))


def page(report: Report) -> str:
    """The page as one text."""
    return _PAGE.substitute(
        title=escape(f"{report.model} on {report.data}"),
        summary=_summary(report),
        flicker=_flicker(report),
        examples="\n".join(_slider(report, index, example) for index, example in enumerate(report.worst)),
        worst=len(report.worst),
        first=escape(report.metrics[0]),
        table=_rows(report),
        definitions="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.definitions.items()),
        quantise=escape(report.quantise),
    )


def _summary(report: Report) -> str:
    head = "".join(f'<th scope="col">{escape(key)}</th>' for key in report.metrics)
    rainy, output = report.rainy, report.output
    lines = [
        f'<tr><th scope="row">rainy input</th>{_cells(rainy[key] for key in report.metrics)}</tr>',
        f'<tr><th scope="row">{escape(report.model)}</th>{_cells(output[key] for key in report.metrics)}</tr>',
        f'<tr><th scope="row">gain</th>{_cells((output[key] - rainy[key] for key in report.metrics), sign=True)}</tr>',
    ]
    count = len(report.rows)
    return (
        f"<p>{count} picture{'s' if count != 1 else ''}, median {report.seconds * 1000:.1f} ms each. "
        f"The output is 8-bit ({escape(report.quantise)}).</p>"
        f'<table><thead><tr><th scope="col">mean</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _flicker(report: Report) -> str:
    if report.flicker is None:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_cells((value.change_error, value.still_change))}</tr>'
        for name, value in report.flicker.items()
    )
    return (
        "<h2>Temporal flicker</h2><p>Root mean squares from frame to frame, in levels of 0 to 255: the error of the "
        "change against the clean clip, and the change where the clean clip stands still.</p>"
        '<table><thead><tr><th scope="col">clip</th><th scope="col">change error</th>'
        f'<th scope="col">still change</th></tr></thead><tbody>{lines}</tbody></table>'
    )


def _slider(report: Report, index: int, example: Example) -> str:
    row = example.row
    numbers = ", ".join(f"{escape(k)} {_number(row.rainy[k])} → {_number(row.output[k])}" for k in report.metrics)
    return _SLIDER.substitute(
        index=index,
        name=escape(row.name),
        numbers=numbers,
        width=row.width,
        height=row.height,
        rainy=_data_uri(example.rainy),
        output=_data_uri(example.output),
        clean="" if example.clean is None else _CLEAN.substitute(name=escape(row.name), clean=_data_uri(example.clean)),
        choices="" if example.clean is None else _CHOICES.substitute(index=index),
    )


def _rows(report: Report) -> str:
    titles = ["picture", "size"]
    for key in report.metrics:
        titles += [f"rainy {key}", key, "gain"]
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(title)}</button></th>'
        for title in [*titles, "ms"]
    )
    body = []
    for row in report.rows:
        cells = []
        for key in report.metrics:
            cells += [_cells([row.rainy[key], row.output[key]]), _cells([row.output[key] - row.rainy[key]], sign=True)]
        body.append(
            f'<tr><th scope="row">{escape(row.name)}</th>'
            f'<td data-value="{row.width * row.height}">{row.width}×{row.height}</td>'
            f'{"".join(cells)}<td data-value="{row.seconds}">{row.seconds * 1000:.1f}</td></tr>'
        )
    return f'<table id="rows"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _cells(values, sign: bool = False) -> str:
    return "".join(f'<td data-value="{value}">{_number(value, sign)}</td>' for value in values)


def _number(value: float, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "∞" if value == math.inf else "–"
    # Decibels need two digits, similarities of at most one need four.
    return f"{value:{'+' if sign else ''}.{2 if abs(value) >= 2 else 4}f}"


def _data_uri(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((WIDEST, WIDEST * 4))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


_SLIDER = Template("""<figure class="example">
<figcaption><strong>$name</strong> <span>$numbers</span></figcaption>
<div class="stage" style="--cut:50%;aspect-ratio:$width/$height">
<img class="right" data-kind="output" src="$output" alt="output of $name">
<img class="left" data-kind="rainy" src="$rainy" alt="rainy $name">
$clean<input type="range" min="0" max="100" step="1" value="50"
 aria-label="how much of the left picture of $name is shown, in percent">
</div>
<fieldset><legend>Compare</legend>
<label><input type="radio" name="compare$index" value="rainy output" checked> rainy | output</label>
$choices</fieldset>
</figure>""")

_CLEAN = Template("""<img class="hidden" data-kind="clean" src="$clean" alt="clean $name">
""")

_CHOICES = Template("""<label><input type="radio" name="compare$index" value="output clean"> output | clean</label>
<label><input type="radio" name="compare$index" value="rainy clean"> rainy | clean</label>
""")

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:82rem;margin:0 auto;padding:1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:1rem 0}
th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid color-mix(in srgb,CanvasText 20%,Canvas)}
th:first-child{text-align:left}
.wide{overflow-x:auto}
th button{all:unset;cursor:pointer;font-weight:bold}
th button:focus-visible,input:focus-visible{outline:3px solid Highlight;outline-offset:2px}
th[aria-sort=ascending] button::after{content:" ▲"}
th[aria-sort=descending] button::after{content:" ▼"}
.example{margin:2rem 0}
.stage{position:relative;max-width:100%;max-height:90vh}
.stage img{position:absolute;inset:0;width:100%;height:100%;object-fit:contain}
.stage .left{clip-path:inset(0 calc(100% - var(--cut)) 0 0);z-index:1}
.stage .hidden{visibility:hidden}
.stage::after{content:"";position:absolute;z-index:2;top:0;bottom:0;left:var(--cut);border-left:2px solid #fff;
 box-shadow:0 0 3px #000;pointer-events:none}
.stage input{position:absolute;z-index:3;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize}
.stage:focus-within{outline:3px solid Highlight;outline-offset:2px}
fieldset{border:0;padding:.5rem 0}
legend{float:left;margin-right:1rem}
label{margin-right:1rem}
</style>
</head>
<body>
<h1>$title</h1>
$summary
$flicker
<h2>The $worst pictures with the lowest $first</h2>
<p>Drag across a picture, or focus it with Tab and use the arrow keys.</p>
$examples
<h2>Every picture</h2>
<div class="wide" tabindex="0" role="region" aria-label="every picture">$table</div>
<h2>Definitions</h2>
<dl>$definitions<dt>8-bit</dt><dd>the output is scaled to 255 and made uint8 by this rule: $quantise</dd></dl>
<script>
for (const figure of document.querySelectorAll('.example')) {
  const stage = figure.querySelector('.stage');
  stage.querySelector('input').addEventListener('input', e => stage.style.setProperty('--cut', e.target.value + '%'));
  figure.querySelector('fieldset').addEventListener('change', e => {
    const [left, right] = e.target.value.split(' ');
    for (const image of stage.querySelectorAll('img'))
      image.className = {[left]: 'left', [right]: 'right'}[image.dataset.kind] || 'hidden';
  });
}
const body = document.querySelector('#rows tbody');
document.querySelectorAll('#rows th button').forEach((button, column) => button.addEventListener('click', () => {
  const head = button.parentElement, up = head.getAttribute('aria-sort') !== 'ascending';
  for (const other of head.parentElement.children) other.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const value = row => { const cell = row.children[column]; return cell.dataset.value ?? cell.textContent; };
  const number = text => text === 'inf' ? Infinity : text === '-inf' ? -Infinity : Number(text);
  const compare = (a, b) => column ? number(a) - number(b) || 0 : a.localeCompare(b, undefined, {numeric: true});
  body.append(...[...body.children].sort((a, b) => (up ? 1 : -1) * compare(value(a), value(b))));
}));
</script>
</body>
</html>
""")
