"""The type of durations, in resources and in settings."""

from datetime import timedelta

import pytest
from pydantic import BaseModel, ValidationError

from kuma.resources.duration import Duration


class Waiting(BaseModel):
    time: Duration = Duration("1m")


def test_it_is_kept_as_written_and_says_what_it_stands_for() -> None:
    found = Waiting.model_validate({"time": "30d"})
    assert (found.time.delta, found.time.seconds) == (timedelta(days=30), 30 * 86400.0)
    assert found.model_dump(mode="json") == {"time": "30d"}
    assert type(found.model_dump(mode="json")["time"]) is str, "YAML writers take nothing else"
    assert Waiting().time.seconds == 60
    assert Waiting.model_json_schema()["properties"]["time"]["type"] == "string"


def test_a_number_is_told_the_form() -> None:
    with pytest.raises(ValidationError, match='has to be a number and a unit, such as "30d"; got 5'):
        Waiting.model_validate({"time": 5})


def test_what_is_none_says_so_when_it_is_read() -> None:
    with pytest.raises(ValueError, match='got "soon"'):
        assert Waiting.model_validate({"time": "soon"}).time.delta
