"""What is shown is text: no terminal, page or Markdown obeys it, and no secret of a URL is told."""

import html
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daas_dist.config import ConfigError, load
from daas_dist.documents.escaping import html as escaped
from daas_dist.documents.escaping import markdown_code, output, told, visible
from daas_dist.documents.redact import redacted, secret_in

ANY = st.text(st.characters(), max_size=40)  # half characters too


def is_harmless(text: str) -> bool:
    """By Unicode's own classes: no control, format, private, unassigned or half character, no
    separator of lines."""
    return all(unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029" for c in text)


@given(ANY)
def test_nothing_that_a_terminal_or_an_eye_obeys_is_left(text: str) -> None:
    assert is_harmless(visible(text)) and is_harmless(told(text))
    assert is_harmless(output(text).replace("\n", "").replace("\t", ""))
    visible(text).encode("utf-8")


@given(ANY)
def test_a_page_shows_what_the_text_says(text: str) -> None:
    shown = escaped(text)
    assert not set("<>\"'") & set(shown)
    assert html.unescape(shown) == visible(text, keep="\n\t")


def test_what_is_harmless_stays_as_it_is() -> None:
    for text in ("chat, Hund", "猫と犬", "Zürich\u00a0– 12 %", "👍", "a\u3000b", ""):
        assert visible(text) == text
    assert visible("a\x1b[2Jb\u202ec\ud800") == "a\\x1b[2Jb\\u202ec\\ud800"


def test_of_another_programs_lines_colours_go_and_the_rest_is_seen() -> None:
    said = "\x1b[1;32mok\x1b[0m\tdone\r\n 10%\r 20%\x1b[2K\x1b]0;title\x07"
    assert output(said) == "ok\tdone\n 10%\n 20%\\x1b[2K\\x1b]0;title\\x07"


@given(ANY, st.booleans())
def test_a_code_span_ends_where_it_should(text: str, in_table: bool) -> None:
    span = markdown_code(text, in_table)
    fence = len(span) - len(span.lstrip("`"))
    inside = span[fence:-fence]
    assert span.endswith("`" * fence) and "`" * fence not in inside.strip("` ")
    assert not in_table or "|" not in inside.replace("\\|", "")


@pytest.mark.parametrize(
    "url",
    [
        "https://robot:hunter2@images.org/set", "https://ghtoken@images.org/set",
        "gs://bucket/set?token=abc", "abfs://c@account/set?sv=1&sig=abc",
        "https://images.org/get;access_token=abc/set", "s3://AKIAIOSFODNN7EXAMPLE/set",
        "https://images.org/eyJhbGciOi.eyJzdWIiOi.abc/set",
        "https://images.org/p/Zk3vQ8rT1mB6xW9cL2nH5dJ7sF4gA0pY/set",
        "hf://hf_abcdefghijklmnopqrstuvwx@datasets/set", "https://@images.org@evil.org/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["data.root", "data.val_root", "data.cache", "run_dir"])
def test_a_url_with_a_secret_is_refused_at_the_door_and_not_repeated(key: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["stage=search_imagenet", "data.root=/x", f'{key}="{url}"'])
    words = str(caught.value)
    assert words.startswith(key) and "netrc" in words and "\n" not in words
    for secret in ("hunter2", "abc", "ghtoken", "Zk3v", "AKIA", "eyJ"):
        assert secret not in words


@pytest.mark.parametrize(
    "url",
    ["s3://images/imagenet", "https://images.org:8443/a/b", "gs://b/ImageNet1kShards256",
     "https://images.org/9f86d081884c7d659a2feaa0c55ad015/set", "https://a.org/author=me/tokens"],
)  # fmt: skip
def test_a_plain_url_is_no_secret(url: str) -> None:
    assert secret_in(url) is None and redacted(f"{url} is not there") == f"{url} is not there"


def test_secrets_are_left_out_of_what_is_told() -> None:
    said = (
        "GET https://me:pw1@h.org/a?X-Amz-Signature=5f3 failed; see s3://k2@b/x and hf_" + 30 * "a"
    )
    kept = redacted(said)
    assert not [part for part in ("pw1", "5f3", "k2@", "aaa") if part in kept]
    assert kept.startswith("GET https://…@h.org/a?…") and "s3://…@b/x" in kept
