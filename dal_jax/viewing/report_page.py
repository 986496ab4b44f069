"""The HTML of a report: text in, text out; whatever comes from outside is escaped."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2

from dal_jax.evaluation import tables


class Row(NamedTuple):
    """One person: the picture's file name beside the page, the person's name, and its error as text ('' if unknown)."""

    file: str
    name: str
    error: str


class Gallery(NamedTuple):
    """People under one heading."""

    title: str
    rows: Sequence[Row]


def render(
    *,
    title: str,
    config: Sequence[tuple[str, object]],
    history: Sequence[Mapping[str, float | int | None]],
    plot_name: str | None,
    plot_files: Sequence[tuple[str, str]],
    galleries: Sequence[Gallery],
    tile_px: int,
) -> str:
    """Return the page.

    Args:
      title: of the page.
      config: names and values, in order.
      history: the entries of history.json.
      plot_name: file of Fig. 2, or None.
      plot_files: file and caption of each further plot.
      galleries: rows of Fig. 1; their pictures are four tiles wide.
      tile_px: side of a tile.
    """
    return _PAGE.render(
        title=title,
        config=config,
        columns=tables.HISTORY_COLUMNS,
        history=history,
        plot_name=plot_name,
        plot_files=plot_files,
        galleries=galleries,
        tile_px=tile_px,
    )


_ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters["cell"] = tables.cell_text
_PAGE = _ENVIRONMENT.from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 1120px; padding: 0 1rem; }
  h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: bottom; }
  th { font-weight: 600; } .config td { text-align: left; }
  .wide { overflow-x: auto; } img { max-width: 100%; height: auto; }
  figure { margin: 0 0 .9rem; } figcaption { color: #555; font-size: .9rem; overflow-wrap: anywhere; }
  figcaption b { color: #222; }
  .heads { display: grid; grid-template-columns: repeat(4, 1fr); text-align: center; color: #555; font-size: .9rem;
           max-width: {{ 4 * tile_px }}px; }
  .strip { border: 1px solid #e4e4e4; display: block; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if history %}
<h2>History</h2>
<p>MPJPE in mm over 17 joints, pelvis aligned, bone-sum scaled; PA after Procrustes alignment.</p>
<div class="wide"><table>
<tr>{% for label in columns.values() %}<th>{{ label }}</th>{% endfor %}</tr>
{% for entry in history %}
<tr>{% for field in columns %}<td>{{ entry.get(field) | cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<figure><img src="{{ plot_name }}" alt="MPJPE in mm against the round"></figure>
{% endif %}
{% if galleries %}
<p>Image: left limbs orange, right limbs blue, annotated surface points green, where there is annotation. Side: from the
camera's right, so what is nearer to the camera is on the left.</p>
{% endif %}
{% for gallery in galleries %}
<h2>{{ gallery.title }}</h2>
<div class="heads"><span>image</span><span>overlay</span><span>front</span><span>side</span></div>
{% for row in gallery.rows %}
<figure>
<img class="strip" src="{{ row.file }}" width="{{ 4 * tile_px }}" height="{{ tile_px }}" loading="lazy" \
alt="{{ row.name }}: image, overlay, front and side view">
<figcaption>{{ row.name }}{% if row.error %} <b>{{ row.error }}</b>{% endif %}</figcaption>
</figure>
{% endfor %}
{% endfor %}
{% if plot_files %}
<h2>Training</h2>
{% for file, caption in plot_files %}
<figure><img src="{{ file }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% endif %}
<h2>Configuration</h2>
<details><summary>{{ config | length }} values</summary>
<table class="config">
{% for name, value in config %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table></details>
</body>
</html>
""")
