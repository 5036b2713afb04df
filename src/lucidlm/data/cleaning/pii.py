"""Masking of personal data: what can be recognised by its form, and where the form allows it, by its check digits.

A mask says what it stands for (`<EMAIL>`). Numbers are masked only when nothing else could look like them: card, IBAN
and Chinese identity numbers have to pass their checksums, telephone numbers have to be written as such. Names and
addresses have no form and are not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable


def _passes_luhn(text: str) -> bool:
    """Return whether a card number's check digit is right (ISO/IEC 7812-1)."""
    digits = [int(digit) for digit in text if digit.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def _is_chinese_id(text: str) -> bool:
    """Return whether an 18-digit identity number has a possible date of birth and the right check digit (GB 11643)."""
    month, day = int(text[10:12]), int(text[12:14])
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(weight * int(digit) for weight, digit in zip(weights, text, strict=False))
    return 1 <= month <= 12 and 1 <= day <= 31 and "10X98765432"[total % 11] == text[17].upper()


def _is_iban(text: str) -> bool:
    """Return whether an IBAN's check digits are right (ISO 13616: 1 modulo 97)."""
    compact = text.replace(" ", "")
    digits = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return 15 <= len(compact) <= 34 and int(digits) % 97 == 1


def _is_address(text: str) -> bool:
    """Return whether `text` is an IP address, and not as well a section number (1.2.3.4) or a name in code (a::b)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 4:
        return any(len(part) > 1 for part in text.split(".")) and not (address.is_loopback or address.is_unspecified)
    return text.count(":") > 2 and any(map(str.isdigit, text))


def _has_telephone_length(text: str) -> bool:
    """Return whether a telephone number has as many digits as ITU-T E.164 allows and any country uses."""
    return 8 <= sum(map(str.isdigit, text)) <= 15


Pattern = tuple[re.Pattern[str], Callable[[str], bool]]
"""What something looks like, and a check of what does."""


def _kind(pattern: str, check: Callable[[str], bool] = lambda text: True) -> Pattern:
    """Return a kind whose matches stand alone: no letter or digit before or after, no longer number around."""
    return re.compile(rf"(?<![0-9A-Za-z.+:-])(?:{pattern})(?![0-9A-Za-z:]|[.-]\d)", re.ASCII), check


# In this order: a mask holds nothing that a later pattern matches, and what is checked most strictly comes early.
KINDS: dict[str, Pattern] = {
    "EMAIL": _kind(r"\w[\w.+%-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.)+[A-Za-z]{2,24}"),
    "CHINESE_ID": _kind(r"[1-8]\d{5}(?:18|19|20)\d{9}[0-9Xx]", _is_chinese_id),
    "IBAN": _kind(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?", _is_iban),
    "CARD": _kind(r"[3-6]\d{3}(?:[ -]?\d{4,6}){2,3}(?:[ -]?\d{1,4})?", _passes_luhn),
    "IP": _kind(r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}", _is_address),
    "PHONE": _kind(
        r"\+[1-9]\d{0,2}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{2,4}){2,5}"  # +44 20 7946 0958
        r"|1[3-9]\d(?:[ -]?\d{4}){2}"  # a Chinese mobile: 138 1234 5678
        r"|0\d{2,3}-[2-9]\d{6,7}"  # a Chinese landline: 010-62345678
        r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)[2-9]\d{2}-\d{4}",  # North American: (212) 555-0123
        _has_telephone_length,
    ),
}


class Masker:
    """Masks personal data in one text after the other; `counts` holds how many of each kind were masked."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        """Return `text` with each e-mail address, telephone number and so on replaced by `<EMAIL>`, `<PHONE>` …"""
        if not any(map(str.isdigit, text)) and "@" not in text and "::" not in text:
            return text
        for kind, (pattern, is_right) in KINDS.items():

            def mask(match: re.Match[str], kind: str = kind, is_right: Callable[[str], bool] = is_right) -> str:
                if not is_right(match[0]):
                    return match[0]
                self.counts[kind] += 1
                return f"<{kind}>"

            text = pattern.sub(mask, text)
        return text
