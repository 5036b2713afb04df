"""Masking of personal data: what is masked, and what only looks like it."""

from __future__ import annotations

import pytest

from lucidlm.data.cleaning.pii import Masker


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+news@mail.example.co.uk today.", "Write to <EMAIL> today."),
        ("邮箱：zhang_san@qq.com，谢谢", "邮箱：<EMAIL>，谢谢"),
        ("Call +44 20 7946 0958 or +1 (212) 555-0123.", "Call <PHONE> or <PHONE>."),
        ("Call (212) 555-0123 or 212-555-0123!", "Call <PHONE> or <PHONE>!"),
        ("手机13812345678，或138 1234 5678；座机010-62345678。", "手机<PHONE>，或<PHONE>；座机<PHONE>。"),
        ("from 192.168.17.5, and 2001:db8:85a3::8a2e:370:7334.", "from <IP>, and <IP>."),
        ("card 4111 1111 1111 1111, 5555-5555-5555-4444, 378282246310005", "card <CARD>, <CARD>, <CARD>"),
        ("身份证11010519491231002X。", "身份证<CHINESE_ID>。"),
        ("IBAN GB82 WEST 1234 5698 7654 32 or DE89370400440532013000", "IBAN <IBAN> or <IBAN>"),
    ],
)
def test_personal_data_is_masked(text, masked):
    assert Masker()(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "On 2023-10-12 at 12:30:45, 1,234,567.89 people paid 19.99 in 1998.",
        "Pi is 3.14159265358979, the speed of light 299792458 m/s.",
        "Version 1.2.3.4 and v10.20.30.40; section 3.2.1.4; loopback 127.0.0.1 and ::1.",
        "std::vector<int> a::b; ratio 16:9; 5:30:20",
        "4111 1111 1111 1112 fails its check digit; so does 110105194912310021.",
        "ISBN 978-3-16-148410-0, order 0000000000000000, GB82 WEST 1234 5698 7654 33.",
        "１９９８年１２月３１日，人口１２億；1998年12月31日共1234567890元。",
        "user@localhost and @name and a@b",
        "1234567890123 ms since 1970",
    ],
)
def test_ordinary_numbers_stay(text):
    masker = Masker()
    assert masker(text) == text
    assert not masker.counts


def test_each_kind_is_counted_and_masking_twice_changes_nothing():
    masker = Masker()
    text = masker("a@b.org, c@d.org, 10.20.30.40")
    assert masker.counts == {"EMAIL": 2, "IP": 1}
    assert masker(text) == text
