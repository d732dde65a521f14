"""Charts as inline SVG, of a validation's figures: no script, colours from the page around them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 280  # units; the page scales them
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 24, 44  # units around the plot
DECADE = 10.0
NEAR = 16  # units; labels that are nearer than that would lie on one another


@dataclass(frozen=True, slots=True)
class Point:
    """One value, with how far it ranges; None: it was never reached."""

    x: int  # number of the place on the axis
    value: float | None
    top: float | None = None
    note: str = ""  # what is said when somebody points at it


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour, `a` or `b`."""

    name: str
    colour: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Chart:
    """Series over the same places, on an axis that is logarithmic."""

    title: str
    places: Sequence[str]  # below the axis
    x_name: str
    y_name: str
    text: Callable[[float], str]  # a value as the axis and the points show it
    series: Sequence[Series]
    limit: float | None = None  # a line across, for what was never reached
    limit_name: str = ""
    is_connected: bool = True  # the places follow one another

    def svg(self) -> str:
        """Return the chart as an element of HTML."""
        low, high = self._range()
        body = [*self._axes(low, high), *self._lines(low, high), *self._legend()]
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(body)}</svg>'
        )

    def _range(self) -> tuple[float, float]:
        """The decades that the axis shows."""
        points = [point for one in self.series for point in one.points]
        values = [value for point in points for value in (point.value, point.top) if value]
        values += [] if self.limit is None else [self.limit]
        low, high = min(values, default=1.0), max(values, default=1.0)
        first = math.floor(math.log10(low))
        last = max(first + 1, math.ceil(math.log10(high)))
        return DECADE**first, DECADE**last

    def _axes(self, low: float, high: float) -> Iterator[str]:
        bottom = HEIGHT - BOTTOM
        tick = low
        while tick <= high * 1.01:
            y = _y(tick, low, high)
            yield _across(y, "grid")
            yield _label(LEFT - 8, y + 4, self.text(tick), "end")
            tick *= DECADE
        for number, place in enumerate(self.places):
            yield _label(self._x(number), bottom + 18, place, "middle")
        yield _label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_name, "middle", "name")
        yield _label(4, 12, self.y_name, "start", "name")
        if self.limit is not None:
            y = _y(self.limit, low, high)
            yield _across(y, "limit")
            yield _label(WIDTH - RIGHT, y - 9, self.limit_name, "end", "name")

    def _lines(self, low: float, high: float) -> Iterator[str]:
        for side, series in enumerate(self.series):
            shift = (side - (len(self.series) - 1) / 2) * 8  # whiskers beside one another
            places = [
                (self._x(point.x) + shift, _y(point.value, low, high))
                for point in series.points
                if point.value
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            if self.is_connected:
                yield f'<polyline class="line {series.colour}" points="{path}"/>'
            for point in series.points:
                yield from self._mark(series, point, shift, low, high)

    def _mark(
        self, series: Series, point: Point, shift: float, low: float, high: float
    ) -> Iterator[str]:
        x = self._x(point.x) + shift
        title = f"<title>{escape(f'{series.name}, {self.places[point.x]}: {point.note}')}</title>"
        if point.value:
            y = _y(point.value, low, high)
            if point.top and point.top > point.value:
                up = _y(point.top, low, high)
                line = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{up:.1f}"'
                yield f'<line class="whisker {series.colour}" {line}/>'
            yield (
                f'<circle class="mark {series.colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
                f"{title}</circle>"
            )
        elif self.limit is not None:
            y = _y(self.limit, low, high)
            cross = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8"
            yield f'<path class="cross {series.colour}" d="{cross}">{title}</path>'

    def _legend(self) -> Iterator[str]:
        x = float(WIDTH - RIGHT)
        for series in reversed(self.series):
            yield _label(x, 12, series.name, "end")
            x -= 7 * len(series.name) + NEAR
            yield f'<circle class="mark {series.colour}" cx="{x + 8:.1f}" cy="8" r="4"/>'
            x -= NEAR

    def _x(self, number: int) -> float:
        step = (WIDTH - LEFT - RIGHT) / len(self.places)
        return LEFT + step * (number + 0.5)


def _y(value: float, low: float, high: float) -> float:
    part = (math.log10(max(value, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))
    return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)


def _across(y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'


def _label(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'
