import re
from urllib.parse import unquote

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from forwards import signin

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def user() -> User:
    return User.objects.create_user("me", password=PASSWORD)


def signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def link(user: User) -> str:
    return f"/sign-in/{signin.make_link_token(user)}/"


# By link


def test_a_link_signs_in_and_leads_to_the_list(client, user) -> None:
    answer = client.get(link(user))

    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert client.get("/").status_code == 200
    assert client.session["_auth_user_id"] == str(user.pk)


def test_a_used_link_says_so_and_how_to_get_another(client, user) -> None:
    url = link(user)
    client.get(url)
    answer = Client().get(url)

    assert answer.status_code == 200
    page = answer.content.decode()
    assert "used" in page
    assert "manage.py serve" in page
    assert "manage.py sign_in_link" in page
    assert not signed_in(answer.client)


def test_a_made_up_link_gets_the_same_page_as_a_used_one(client) -> None:
    assert "manage.py sign_in_link" in client.get("/sign-in/nonsense/").content.decode()


def test_a_used_link_leads_whoever_is_signed_in_to_the_list(client, user) -> None:
    url = link(user)
    client.get(url)

    assert client.get(url)["Location"] == "/"


def test_a_link_is_kept_nowhere_and_told_to_nobody(client, user) -> None:
    for _ in range(2):
        answer = client.get(link(user))
        assert "no-store" in answer["Cache-Control"]
        assert answer["Referrer-Policy"] == "same-origin"
    assert "no-store" in client.get("/sign-in/")["Cache-Control"]


@pytest.mark.parametrize("method", ["head", "post", "options", "put"])
def test_only_opening_a_link_uses_it(client, user, method) -> None:
    url = link(user)
    answer = getattr(client, method)(url)

    assert answer.status_code == 405
    assert not signed_in(client)
    assert client.get(url).status_code == 302


def test_signing_in_starts_a_session_with_a_key_of_its_own(client, user) -> None:
    session = client.session
    session["planted"] = "by an app behind a forward"
    session.save()
    planted = session.session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = planted
    client.get(link(user))

    assert client.session.session_key != planted
    assert not Client(headers={"cookie": f"{settings.SESSION_COOKIE_NAME}={planted}"}).get("/").context


def test_a_link_of_another_user_ends_the_session_of_the_first(client, user) -> None:
    client.get(link(user))
    other = User.objects.create_user("other")
    client.get(link(other))

    assert client.session["_auth_user_id"] == str(other.pk)


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(client, user) -> None:
    cookie = client.get(link(user)).cookies[settings.SESSION_COOKIE_NAME]

    assert re.fullmatch(r"tunnelweb_session_[0-9a-f]{8}", settings.SESSION_COOKIE_NAME)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"


# By password


def test_the_sign_in_page_asks_for_user_and_password_and_tells_of_the_link(client) -> None:
    page = client.get("/sign-in/").content.decode()

    for part in ('name="username"', 'name="password"', "csrfmiddlewaretoken", "manage.py sign_in_link"):
        assert part in page
    assert 'action="/sign-in/"' in page


def test_a_password_signs_in_and_leads_to_where_one_wanted_to_go(client, user) -> None:
    answer = client.post("/sign-in/", {"username": "me", "password": PASSWORD, "next": "/servers/"})

    assert (answer.status_code, answer["Location"]) == (302, "/servers/")


def test_where_one_wanted_to_go_is_kept_through_a_wrong_password(client, user) -> None:
    answer = client.post("/sign-in/", {"username": "me", "password": "wrong", "next": "/servers/"})
    page = answer.content.decode()

    assert not signed_in(client)
    assert 'name="next" value="/servers/"' in page
    assert 'value="me"' in page
    assert "wrong" not in page
    assert "correct username and password" in page


@pytest.mark.parametrize(
    "url", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "http:///evil.example"]
)
def test_one_is_led_to_no_other_site(client, user, url) -> None:
    answer = client.post("/sign-in/", {"username": "me", "password": PASSWORD, "next": url})

    assert answer["Location"] == "/"


def test_a_deactivated_user_does_not_sign_in(client, user) -> None:
    User.objects.update(is_active=False)
    client.post("/sign-in/", {"username": "me", "password": PASSWORD})

    assert not signed_in(client)


def test_the_owner_has_no_password_to_guess(client) -> None:
    signin.owner()
    for password in ("", "!", "owner"):
        client.post("/sign-in/", {"username": "owner", "password": password})

    assert not signed_in(client)


def test_a_sign_in_without_its_csrf_token_is_refused(user) -> None:
    answer = Client(enforce_csrf_checks=True).post("/sign-in/", {"username": "me", "password": PASSWORD})

    assert answer.status_code == 403


def test_the_sign_in_page_names_whoever_is_signed_in_already(client, user) -> None:
    """A user who may not open the admin is sent here; another redirect would go round in circles."""
    client.force_login(user)
    answer = client.get("/admin/", follow=True)

    assert answer.status_code == 200
    assert unquote(answer.redirect_chain[-1][0]) == "/sign-in/?next=/admin/"
    assert "You are signed in as me" in answer.content.decode()


# Signing out


def test_signing_out_ends_the_session(client, user) -> None:
    client.force_login(user)
    key = client.session.session_key
    answer = client.post("/sign-out/")

    assert answer["Location"] == "/sign-in/"
    assert Client(headers={"cookie": f"{settings.SESSION_COOKIE_NAME}={key}"}).get("/").status_code == 302


def test_a_link_to_sign_out_does_not_sign_out(client, user) -> None:
    client.force_login(user)

    assert client.get("/sign-out/").status_code == 405
    assert signed_in(client)


def test_signing_out_twice_leads_to_the_sign_in_page(client) -> None:
    assert client.post("/sign-out/")["Location"] == "/sign-in/"


# Every door


@pytest.mark.parametrize("path", ["/", "/servers/", "/admin/", "/admin/forwards/forward/"])
def test_whoever_is_not_signed_in_is_sent_to_the_sign_in_page(client, path) -> None:
    answer = client.get(path, follow=True)

    assert unquote(answer.redirect_chain[-1][0]) == f"/sign-in/?next={path}"


def test_the_admin_has_no_sign_in_page_of_its_own(client) -> None:
    assert client.get("/admin/login/?next=/admin/")["Location"] == "/sign-in/?next=/admin/"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example"])
def test_a_host_name_that_is_not_ours_is_refused(client, host) -> None:
    assert client.get("/sign-in/", headers={"host": host}).status_code == 400
