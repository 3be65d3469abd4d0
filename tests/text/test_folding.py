import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamegpt.text.folding import fold, matches


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("ﾌｧﾐｺﾝ", "家庭用のファミコンは", True),
        ("ファミコン", "ﾌｧﾐｺﾝは1983年", True),
        ("ガンダム", "ｶﾞﾝﾀﾞﾑ", True),
        ("wii", "任天堂のＷｉｉ", True),
        ("STRASSE", "Straße", True),
        ("がく", "か\u3099く", True),
        ("ファミコン", "ファミリーコンピュータ", False),
        ("はは", "ハハ", False),
    ],
)
def test_keyword_matches_whatever_the_width_and_case(keyword, text, found):
    assert matches(text, fold(keyword)) is found


@given(st.text())
def test_fold_is_idempotent_and_blind_to_width(text):
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFKC", text)) == fold(text)
