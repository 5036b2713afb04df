"""Added tokens, which are matched in a text before it is split: special tokens and terms of a domain.

They are named in up to five places: `added_tokens_decoder`, `*_token` and `additional_special_tokens` (or
`extra_special_tokens`) of `tokenizer_config.json`, the same of `special_tokens_map.json`, `added_tokens.json`, and
`tokenizer.json` itself. Which of them count, in what order, and so the ids of those that the vocabulary lacks, is as in
transformers 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The roles of special tokens, in the order in which transformers adds those that are missing."""

LISTS = ("extra_special_tokens", "additional_special_tokens")
"""What further control tokens are listed under, now and formerly."""


def content(token: Any) -> str | None:
    """Return what a token is in a text, from any of the forms that settings write one in; None if it is no token."""
    token = token.get("content") if isinstance(token, Mapping) else token
    return token if isinstance(token, str) else None


def additional(settings: Mapping[str, Any]) -> list[str]:
    """Return the further control tokens that settings list, under whichever name."""
    found: list[Any] = []
    for name in LISTS:
        listed = settings.get(name)
        found += listed.values() if isinstance(listed, Mapping) else listed if isinstance(listed, list) else ()
    return [token for token in map(content, found) if token is not None]


def merged(config: Mapping[str, Any], mapped: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `tokenizer_config.json` and `special_tokens_map.json` together.

    The latter is the older file: it counts where the former lists no `added_tokens_decoder`, and then more than it.
    """
    if "added_tokens_decoder" in config:
        return dict(config)
    extra, more = config.get(LISTS[0]) or config.get(LISTS[1]), mapped.get(LISTS[0]) or []
    found = {**config, **mapped}
    if isinstance(extra, list) and isinstance(more, list):
        found[LISTS[0]] = [*extra, *(token for token in more if token not in extra)]
    elif extra:
        found[LISTS[0]] = extra
    return found


def add_tokens(
    core: tokenizers.Tokenizer,
    settings: Mapping[str, Any],
    listed: Mapping[str, int],
    own: Mapping[int, AddedToken],
    *,
    names: bool = True,
) -> list[str]:
    """Give a tokenizer the tokens that are named beside its vocabulary; return those that the settings call special.

    Parameters
    ----------
    settings: see `merged`.
    listed: what `added_tokens.json` says.
    own: what `tokenizer.json` lists, by id.
    names: whether tokens that only a role names are added even if the vocabulary lacks them.
    """
    roles = {name: token for name, token in settings.items() if name.endswith("_token") and content(token)}
    roles = {name: roles[name] for name in (*NAMES, *roles) if name in roles}
    extra = settings.get(LISTS[0]) or settings.get(LISTS[1]) or []
    if isinstance(extra, Mapping):
        roles, extra = {**roles, **extra}, []
    named = {content(token) for token in roles.values()}
    found: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in settings:
        found = {int(index): _token(token, False) for index, token in settings["added_tokens_decoder"].items()}
    else:
        special = named | {content(token) for token in settings.get(LISTS[0]) or ()}
        for token, index in listed.items():
            found[index] = AddedToken(token, normalized=token not in special, special=token in special)
        found.update(own)
    tokens = [token for _, token in sorted(found.items(), key=lambda item: item[0])]
    if not names:
        roles = {name: token for name, token in roles.items() if core.token_to_id(str(content(token))) is not None}
    known: set[str | None] = {token.content for token in (*tokens, *core.get_added_tokens_decoder().values())}
    for token in (*roles.values(), *extra):
        if content(token) not in known:
            tokens.append(_token(token, True))
            known.add(content(token))
    for token in tokens:
        token.special = token.special or token.content in named
    core.add_tokens(tokens)
    return [str(content(token)) for token in (*roles.values(), *extra)]


def named_only(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose tokens are names, as all software reads them; `tokenizer.json` has the rest of what they are."""
    plain = {key: content(value) or value for key, value in settings.items() if key.endswith("_token")}
    lists = {key: settings[key] for key in LISTS if isinstance(settings.get(key), list)}
    return {**settings, **plain, **{key: [content(token) or token for token in found] for key, found in lists.items()}}


def _token(token: Any, special: bool) -> AddedToken:
    """Return a token as `tokenizers` has it; `special` is for one that does not say, which a whole object would."""
    if isinstance(token, str):
        return AddedToken(token, special=special)
    fields = {key: token[key] for key in ("single_word", "lstrip", "rstrip", "normalized", "special") if key in token}
    return AddedToken(token["content"], **{"special": special and "__type" not in token, **fields})
