import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mamegpt.text.normalize import normalize

SURROGATES = [chr(code) for code in range(0xD800, 0xE000, 97)]
ODD = st.sampled_from(["\r\n", "\r", "\n", "\0", "▁", "か", "\u3099", "ﾌﾟ", "Ａ", "_", "【", "】", *SURROGATES])
ANY_TEXT = st.lists(st.one_of(ODD, st.characters()), max_size=30).map("".join)


@given(ANY_TEXT, st.sampled_from(["nfc", "nfkc", "none"]))
@example("\r\0\n", "nfc")
@example("か\0\u3099", "nfc")
def test_normalize_is_idempotent_and_keeps_its_promises(text, form):
    once = normalize(text, form)
    assert normalize(once, form) == once
    assert not set(once) & {"\r", "\0", "▁", *SURROGATES}
    once.encode("utf-8")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("nfc", "が\nﾌｧﾐｺﾝ\nＡ_\ufffd\n"),
        ("nfkc", "が\nファミコン\nA_\ufffd\n"),
        ("none", "か\u3099\nﾌｧﾐｺﾝ\nＡ_\ufffd\n"),
    ],
)
def test_normalize_forms(form, expected):
    assert normalize("か\u3099\r\nﾌｧﾐｺﾝ\rＡ▁\udc00\0\r", form) == expected


def test_normalize_refuses_an_unknown_form():
    with pytest.raises(ValueError, match="nfd"):
        normalize("text", "nfd")
