import pytest

from celery_app.connections.addresses import broker_address
from celery_app.connections.urls import shown, understood


@pytest.mark.parametrize(
    ("url", "words", "master"),
    [
        ("redis://a/0", "redis://a/0", None),
        ("redis://a/1;redis://b/2", "redis://a/1;redis://b/2", None),
        ("rediss://a/0?ssl_cert_reqs=none", "rediss://a/0?ssl_cert_reqs=none", None),
        ("valkey://u:p%2F@a:1/3", "redis://u:p%2F@a:1/3", None),
        ("valkeys://a/0?ssl_ca_certs=/ca", "rediss://a/0?ssl_ca_certs=/ca", None),
        ("valkey+socket:///a/b", "redis+socket:///a/b", None),
        ("sentinel://a/0?master_name=m", "sentinel://a/0", "m"),
        ("sentinel://a;sentinel://:p@b/2?master_name=m", "sentinel://:p@a/2;sentinel://:p@b/2", "m"),
        ("sentinel://:p@a/2?master_name=m;sentinel://b", "sentinel://:p@a/2;sentinel://:p@b/2", "m"),
        (
            "sentinel://:p@a;b:5;[::1]:6/2?master_name=m",
            "sentinel://:p@a/2;sentinel://:p@b:5/2;sentinel://:p@[::1]:6/2",
            "m",
        ),
        (
            "sentinel://a/1?ssl_ca_certs=c;b?master_name=m",
            "sentinel://a/1?ssl_ca_certs=c;sentinel://b/1?ssl_ca_certs=c",
            "m",
        ),
        # Without a master kombu understands it: by what the first says.
        ("sentinel://a/3", "sentinel://a/3", None),
        ("sentinel://:p@a/3;sentinel://b", "sentinel://:p@a/3;sentinel://:p@b/3", None),
        ("sentinel://a;sentinel://b/3", "sentinel://a;sentinel://b", None),
    ],
)
def test_urls_in_kombus_words(url, words, master):
    """A URL is translated, and what several Sentinels have in common is said at each."""
    assert understood(url) == (words, master)
    assert broker_address(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hidden@a/0",
        "redis+socket://:hidden@/a/b",
        "valkey://:hidden@a",
        "sentinel://a;:hidden@b/0?master_name=m",
        "sentinel://:hidden@a;b",
        "redis://a/0;:hidden@b/0",
    ],
)
def test_no_password_is_shown(url):
    """Whichever of several URLs has the password, people do not see it."""
    assert "hidden" not in shown(url)
    assert "**" in shown(url)
