import pytest

from forwards import signin
from forwards.models import SignInToken

pytestmark = pytest.mark.django_db


def test_the_row_of_a_link_does_not_hold_its_token() -> None:
    user = signin.owner()
    token = signin.make_link_token(user)

    row = SignInToken.objects.get()
    assert token not in (row.token_hash, str(row))
    assert str(row) == "sign-in link of owner"
