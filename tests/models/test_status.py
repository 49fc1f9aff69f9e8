import pytest

from forwards.models import Worker
from tests.factories import beat

pytestmark = pytest.mark.django_db


def test_a_worker_lives_as_long_as_its_heart_beats() -> None:
    assert not Worker.is_alive()
    beat(age=7)
    assert Worker.is_alive()
    beat(age=9)
    assert not Worker.is_alive()


def test_the_heart_of_another_worker_says_nothing(settings) -> None:
    beat(name="other")

    assert not Worker.is_alive()
    assert Worker.is_alive("other")
