"""What a validation says that it will cost."""

import pytest

from backgate.gateway.profiles import Price
from backgate.gateway.provider import Limits
from backgate.gateway.validation.plan import Plan, estimate

PRICE = Price(checked="2026-03-31", list=0.005, storage=0.023, egress=0.09)


def test_money_is_known_where_prices_are() -> None:
    assert estimate(Plan(), Limits(), None).cost is None
    assert estimate(Plan(), Limits(), Price(checked="2026-03-31")).cost is None

    cost = estimate(Plan(), Limits(), PRICE).cost

    assert cost is not None
    assert 0.05 < cost < 0.2


def test_many_objects_cost_more() -> None:
    few, many = (estimate(Plan(objects=count), Limits(), PRICE) for count in (1000, 100_000))

    assert many.puts - few.puts == 99_000
    assert (many.cost or 0) > (few.cost or 0) + 0.4


def test_a_minimum_storage_time_is_paid_for() -> None:
    a_day, a_quarter = (estimate(Plan(), Limits(), PRICE, days).cost for days in (0, 90))

    assert (a_quarter or 0) - (a_day or 0) == pytest.approx(0.3 * 0.023 * 89 / 30, rel=0.3)
