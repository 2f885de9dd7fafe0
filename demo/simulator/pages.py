"""HTML pages that a proxy sends where the API's JSON should be."""

from __future__ import annotations

HTML_TYPE = "text/html"


def page(title: str) -> bytes:
    """Give a page as nginx makes them."""
    head = f"<head><title>{title}</title></head>"
    return f"<html>\r\n{head}\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n".encode()
