"""A language model's price and what it accepts; asking it is tested with labels and advice."""

import pytest
from pydantic import SecretStr

from acidburn_assets.adapters.language_model import PRICES, Form, LanguageModel, Price, Read
from acidburn_assets.adapters.language_model import read_prices as read
from acidburn_assets.core.errors import ConfigError

FORM = Form({"type": "json_object"}, 100, lambda content: Read(content))


def make_model(name: str, prices: str = "") -> LanguageModel:
    return LanguageModel(
        SecretStr("xai-key"),
        base_url="http://127.0.0.1:9/v1",
        model=name,
        model_setting="ACIDBURN_ASK_MODEL",
        prices=read(prices),
    )


def test_prices_that_a_person_set_come_before_those_that_are_known() -> None:
    assert read("") == PRICES
    set_by_a_person = read(" grok-4.3* = 2/0.4/5/0.1, qwen3=0/0/0 ,")
    assert set_by_a_person["grok-4.3*"] == Price(2.0, 0.4, 5.0, 0.1)
    assert set_by_a_person["grok-4.5*"] == PRICES["grok-4.5*"]
    assert make_model("grok-4.3-0611", "grok-4.3-0611=9/9/9").price == Price(9.0, 9.0, 9.0)
    assert make_model("qwen3", "qwen3=0/0/0").worst_usd([], FORM) == 0.0


@pytest.mark.parametrize(
    "text",
    ["grok-5", "grok-5=", "grok-5=1/2", "grok-5=1/2/3/4/5", "=1/2/3", "grok-5=1/nan/3",
     "grok-5=-1/2/3", "grok-5=1e3/2/3", "grok-5=1 /2/3", "1.25/0.2/2.5"],
)  # fmt: skip
def test_a_price_that_is_none_says_how_it_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match=r"ACIDBURN_PRICES has .*MODEL=INPUT/CACHED/OUTPUT"):
        read(text)


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        # 29 bytes of text, 23 of the schema, 16 around; who reasons unasked has room for that
        ("grok-4.3", (68 * 1.25 + 100 * 2.5) / 1e6),
        ("grok-4.20-0309-non-reasoning", (68 * 1.25 + 100 * 2.5) / 1e6),
        ("grok-4.20-0309-reasoning", (68 * 1.25 + 1_700 * 2.5) / 1e6),
        ("grok-4.7", (68 * 2.0 + 1_700 * 6.0) / 1e6),
    ],
)
def test_the_worst_a_call_can_cost_is_a_token_for_each_byte(name: str, usd: float) -> None:
    messages = [{"role": "user", "content": "Wer fällt über die Brücke?"}]
    assert len(messages[0]["content"].encode()) == 29
    assert make_model(name).worst_usd(messages, FORM) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("asked", "answered", "is_accepted"),
    [
        ("grok-4.3", "grok-4.3", True),
        ("grok-4.3", "grok-4.3-0611", True),
        ("grok-4.3-latest", "grok-4.3-20260611", True),
        ("grok-4.3", "grok-4.30", False),
        ("grok-4.3", "grok-4.3-fast", False),
        ("grok-4.3", "", False),
        ("grok-4.3", "grok-4x3", False),
    ],
)
def test_only_snapshots_of_the_model_that_was_asked_are_accepted(
    asked: str, answered: str, is_accepted: bool
) -> None:
    assert make_model(asked).accepts(answered) is is_accepted
