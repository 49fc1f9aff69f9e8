import pytest
from django.test import AsyncClient, Client

ICON = "/static/tunnelweb/icon.svg"


@pytest.mark.parametrize("path", [ICON, "/static/admin/css/base.css", "/static/django_htmx/htmx-2.min.js"])
def test_static_files_are_served_before_anybody_signed_in(path) -> None:
    answer = Client().get(path)

    assert answer.status_code == 200
    assert int(answer["Content-Length"]) == len(answer.content) > 0


def test_a_static_file_says_what_it_is() -> None:
    assert Client().get(ICON)["Content-Type"].startswith("image/svg+xml")


def test_a_file_the_browser_has_already_is_not_sent_again() -> None:
    etag = Client().get(ICON)["ETag"]
    answer = Client().get(ICON, headers={"if-none-match": etag})

    assert (answer.status_code, answer.content) == (304, b"")


async def test_under_asgi_files_are_whole_and_nothing_warns() -> None:
    """The suite turns warnings into errors: Django warns of an iterator it has to read in a thread."""
    answer = await AsyncClient().get(ICON)

    assert not answer.streaming
    assert answer.content.startswith(b"<svg")


@pytest.mark.parametrize(
    "path", ["../manage.py", "%2e%2e/manage.py", "..%2f..%2fetc/passwd", "/etc/passwd", "nothing.css", ""]
)
def test_nothing_else_is_served(path) -> None:
    assert Client().get(f"/static/{path}").status_code in (302, 404)
