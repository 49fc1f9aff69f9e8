import pytest

from tunnelweb.origin import is_own_origin, parse_origin


def scope(origin: str | None, host: str | None = "localhost:8000", **more: object) -> dict:
    headers = [(b"host", host.encode())] if host is not None else []
    headers += [(b"origin", origin.encode("latin1"))] if origin is not None else []
    return {"type": "websocket", "path": "/ws/dashboard/", "headers": headers, **more}


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8000", "localhost:8000"),
        ("http://LOCALHOST:8000", "localhost:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://localhost", "localhost"),
        ("http://localhost:80", "localhost"),
        ("http://localhost", "localhost:80"),
    ],
)
def test_a_page_of_the_dashboard_may_connect(origin, host) -> None:
    assert is_own_origin(scope(origin, host))


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://localhost:3000",
        "http://localhost",
        "http://localhost:80",
        "https://localhost:8000",
        "ws://localhost:8000",
        "file://",
        "http://127.0.0.1:8000",
        "http://localhost.:8000",
        "http://localhost:8000.evil.example",
        "http://evil.example",
        "http://localhost:8000@evil.example",
        "http://evil.example#@localhost:8000",
        "http://localhost:8000/",
        "http://localhost:8000 http://localhost:8000",
        "http://localhost:8000\n",
        " http://localhost:8000",
        "http://localhost:08000000",
        "http://localhost:８000".encode().decode("latin1"),
        "http://[::1",
        "//localhost:8000",
        "localhost:8000",
    ],
)
def test_any_other_origin_is_refused(origin) -> None:
    assert not is_own_origin(scope(origin))


def test_two_origins_are_refused_even_if_one_is_right() -> None:
    asked = scope("http://localhost:8000")
    asked["headers"].append((b"origin", b"http://localhost:8000"))

    assert not is_own_origin(asked)


@pytest.mark.parametrize("host", [None, "", "evil.example:8000", "evil.example", "localhost:8000,evil.example", "a b"])
def test_a_host_that_is_not_ours_is_refused_even_if_the_origin_says_the_same(host) -> None:
    """DNS rebinding: a page of evil.example whose name now resolves to 127.0.0.1."""
    assert not is_own_origin(scope(f"http://{host}", host))


def test_over_tls_the_page_must_have_come_over_tls_and_443_may_be_left_out() -> None:
    assert is_own_origin(scope("https://localhost", "localhost", scheme="wss"))
    assert is_own_origin(scope("https://localhost:443", "localhost", scheme="wss"))
    assert not is_own_origin(scope("http://localhost", "localhost", scheme="wss"))
    assert not is_own_origin(scope("http://localhost:443", "localhost", scheme="wss"))


def test_behind_a_trusted_proxy_that_ends_tls_the_page_is_https(settings) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    asked = scope("https://localhost", "localhost")
    asked["headers"].append((b"x-forwarded-proto", b"https"))

    assert is_own_origin(asked)


def test_a_forwarded_scheme_counts_for_nothing_unless_a_proxy_is_trusted() -> None:
    asked = scope("https://localhost", "localhost")
    asked["headers"].append((b"x-forwarded-proto", b"https"))

    assert not is_own_origin(asked)


def test_hosts_added_by_the_environment_are_the_dashboards_own_too(settings) -> None:
    settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "jump.example"]

    assert is_own_origin(scope("http://jump.example:8000", "jump.example:8000"))
    assert not is_own_origin(scope("http://localhost:8000", "jump.example:8000"))


def test_origins_are_compared_with_the_port_the_scheme_stands_for() -> None:
    assert parse_origin("http://a") == ("http", "a", 80)
    assert parse_origin("https://a") == ("https", "a", 443)
    assert parse_origin("ftp://a") is None
