import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from forwards import signin
from forwards.models import SignInToken

pytestmark = pytest.mark.django_db


def test_a_link_signs_in_once() -> None:
    user = signin.owner()
    token = signin.make_link_token(user)

    assert signin.redeem(token) == user
    assert signin.redeem(token) is None


def test_only_the_newest_link_of_a_user_works() -> None:
    user, other = signin.owner(), User.objects.create_user("other")
    old, others = signin.make_link_token(user), signin.make_link_token(other)
    new = signin.make_link_token(user)

    assert signin.redeem(old) is None
    assert signin.redeem(others) == other
    assert signin.redeem(new) == user


def test_a_link_ends_after_a_week() -> None:
    user = signin.owner()
    token = signin.make_link_token(user)
    SignInToken.objects.update(created_at=timezone.now() - timedelta(days=6, hours=23))
    assert signin.redeem(token) == user

    token = signin.make_link_token(user)
    SignInToken.objects.update(created_at=timezone.now() - timedelta(days=7, seconds=1))
    assert signin.redeem(token) is None


def test_the_link_of_a_deactivated_user_does_not_sign_in() -> None:
    user = signin.owner()
    token = signin.make_link_token(user)
    User.objects.update(is_active=False)

    assert signin.redeem(token) is None


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "\0", "\ud800", "' OR 1=1 --"])
def test_a_made_up_token_does_not_sign_in(token) -> None:
    signin.make_link_token(signin.owner())

    assert signin.redeem(token) is None


def test_the_database_holds_no_token_one_could_sign_in_with() -> None:
    token = signin.make_link_token(signin.owner())
    stored = SignInToken.objects.get().token_hash

    assert len(token) >= 43
    assert token not in stored
    assert signin.redeem(stored) is None


@pytest.mark.django_db(transaction=True)
def test_of_two_requests_at_the_same_moment_one_signs_in() -> None:
    token = signin.make_link_token(signin.owner())
    barrier, redeemed = threading.Barrier(8), []

    def redeem() -> None:
        try:
            barrier.wait()
            redeemed.append(signin.redeem(token))
        finally:
            connection.close()

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(redeemed) == 8
    assert len([user for user in redeemed if user is not None]) == 1


def test_the_owner_is_made_once_and_has_no_password() -> None:
    made = signin.owner()

    assert signin.owner() == made
    assert (made.username, made.is_superuser, made.is_staff, made.has_usable_password()) == ("owner", True, True, False)


def test_a_superuser_who_is_there_already_is_the_owner() -> None:
    admin = User.objects.create_superuser("admin")

    assert signin.owner() == admin


def test_an_ordinary_account_called_owner_is_not_promoted() -> None:
    User.objects.create_user("owner")
    User.objects.create_superuser("gone", is_active=False)

    assert signin.owner().username == "owner2"
    assert not User.objects.get(username="owner").is_superuser
