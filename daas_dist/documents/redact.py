"""Secrets in URLs: found, so that none is kept, and left out of what is recorded or told.

A URL can hold a password or a token before its @, a signature in its query, a token as a part of
its path. Who keeps such a URL keeps the secret, and shows it in every page and log.
"""

import re

PLACE = "…"
"""What stands for a secret."""

URL = re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^\s'\"<>`]*")
USER = re.compile(r"(?<=//)[^/@?#\s]*(?:@[^/@?#\s]*)*(?=@)")
"""What stands before the last @ of a URL's host."""
QUERY = re.compile(r"[?#].*", re.DOTALL)
NAMED = re.compile(
    r"(?i)(?:^|[/;&?,])(?:[\w.-]*(?:token|signature|secret|password|passwd|credentials?|api_?key"
    r"|access_?key(?:_?id)?)|(?:[\w.-]*[_.-])?(?:sig|auth|sas|jwt|pwd))=[^/;&?,#]+"
)
"""A part of a path that says what it is: token=…, X-Amz-Signature=…"""
KNOWN = re.compile(
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{30,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{20,}"
    r"|xox[abprs]-[\w-]{10,}|ya29\.[\w-]+|dapi[0-9a-f]{32}|sk-[\w-]{20,}"
    r"|eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"
)
"""As services write theirs: AWS, GitHub, GitLab, Hugging Face, Slack, Google, Databricks, JWT."""
RANDOM = re.compile(r"(?<=[/=])[A-Za-z0-9_~-]{32,}(?=[/?#]|$)")
TURNS = 6
"""How often digits and letters take turns in what nobody would call a folder."""


def secret_in(url: str) -> str | None:
    """Return what kind of secret a URL holds, in words; None if it holds none that can be seen."""
    if USER.search(url):
        return "a name, password or token before its @"
    head, query = QUERY.sub("", url), QUERY.search(url)
    if query is not None and len(query[0]) > 1 and "=" in query[0]:
        return "a query, as signed URLs do"
    path = head.partition("://")[2]
    if NAMED.search(path) or KNOWN.search(url) or any(map(_is_random, RANDOM.findall(head))):
        return "a token in its path"
    return None


def _is_random(part: str) -> bool:
    """Tell whether it has both cases and digits, mixed as no name has them."""
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in part]
    turns = sum((a == "d") != (b == "d") for a, b in zip(kinds, kinds[1:], strict=False))
    return set("dul") <= set(kinds) and turns >= TURNS


def redacted(text: str) -> str:
    """Leave the secrets of every URL out of a text: an error, a command, a message."""
    if "://" not in text and not KNOWN.search(text):
        return text
    return KNOWN.sub(PLACE, URL.sub(lambda found: _without(found[0]), text))


def _without(url: str) -> str:
    url = USER.sub(PLACE, url)
    head, query = QUERY.sub("", url), QUERY.search(url)
    scheme, mark, path = head.partition("://")
    path = NAMED.sub(lambda found: re.sub(r"=.*", f"={PLACE}", found[0]), path)
    head = RANDOM.sub(
        lambda found: PLACE if _is_random(found[0]) else found[0], scheme + mark + path
    )
    return head + (f"?{PLACE}" if query is not None and len(query[0]) > 1 else "")
